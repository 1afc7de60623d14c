"""A client of a web application on the loopback interface: it keeps cookies, and follows redirects."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any

from tests.harness.ports import LOOPBACK

TIMEOUT = 20.0


class Refused(Exception):
    """The application answered with an error, or did not answer."""


class Browser:
    """One user of the application that listens on `port`."""

    def __init__(self, port: int) -> None:
        self._origin = f"http://{LOOPBACK}:{port}"
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        )

    def cookie(self, name: str) -> str:
        """The value of a cookie that the application has set."""
        return next((cookie.value or "" for cookie in self._cookies if cookie.name == name), "")

    def get(self, path: str, **headers: str) -> str:
        """The body of a page."""
        return self.send("GET", path, None, headers)

    def get_json(self, path: str, **headers: str) -> Any:
        """The value that a page of JSON holds."""
        return json.loads(self.get(path, **headers, Accept="application/json"))

    def post_form(self, path: str, fields: Mapping[str, str]) -> str:
        """Send a form; the body of the page that it leads to."""
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Referer": f"{self._origin}{path}"}
        return self.send("POST", path, urllib.parse.urlencode(fields).encode(), kind)

    def send_json(self, method: str, path: str, value: object) -> Any:
        """Send JSON; the value that comes back."""
        kind = {"Content-Type": "application/json", "Accept": "application/json"}
        return json.loads(self.send(method, path, json.dumps(value).encode(), kind))

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> str:
        """Any request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{self._origin[7:]}{path}", body, named, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                text: str = answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(400).decode(errors="replace")
            raise Refused(f"{method} {path}: {error.code} {detail}") from error
        except OSError as error:
            raise Refused(f"{method} {path}: {error}") from error
        return text


def hidden_field(page: str, name: str) -> str:
    """The value of a hidden field of a form."""
    match = re.search(rf'name="{name}" value="([^"]*)"', page)
    if match is None:
        raise Refused(f"the page has no field {name}: {page[:400]}")
    return match[1]
