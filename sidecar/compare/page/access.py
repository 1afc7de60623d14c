"""Who may see the page: a browser on this machine that was given the link once. Every other request is refused.

Other sites cannot reach it: their names are no names of this machine (DNS rebinding), they have no cookie (SameSite), and a
form counts only with our own origin and a token that only the page has.
"""

import hmac
import secrets
from hashlib import sha256
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
FORM_TOKEN = "form"  # noqa: S105 - the name of a field
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no origin with our own forms
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):
    """A request that is not answered: why, and what to do."""

    def __init__(self, status: HTTPStatus, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


class Gate:
    """Lets one browser in, by a link that can be used once. Cookies do not know ports, so its name has ours."""

    def __init__(self, port: int) -> None:
        self.cookie = f"sidecar-browse-{port}"
        self._token: str | None = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)

    @property
    def link(self) -> str:
        """The path of the link."""
        return f"/?token={self._token}"

    @property
    def form_token(self) -> str:
        """What every form has to send."""
        return hmac.new(self._session.encode(), b"form", sha256).hexdigest()

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or the link with a cookie. Raises `Refused`."""
        require_local(request)
        if request.method not in {"GET", "HEAD", "POST"}:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not allowed here.")
        if "token" in request.query and request.method == "GET":
            return self._let_in(request.query["token"])
        if not same(request.cookies.get(self.cookie, ""), self._session):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "This page is for the browser in which its link was opened first.",
                "Its session has ended, or this is another browser. Start `sidecar browse` again, and open the new link.",
            )
        if request.method == "POST":
            await self._require_own_form(request)
        return await handler(request)

    def _let_in(self, token: str) -> web.Response:
        if self._token is None or not same(token, self._token):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "This link was used already, or is of another start.",
                "A link opens the page in one browser, once. Start `sidecar browse` again for a new one.",
            )
        self._token = None
        answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        answer.set_cookie(self.cookie, self._session, path="/", httponly=True, samesite="Strict")
        return answer

    async def _require_own_form(self, request: web.Request) -> None:
        own = request.headers.get("Origin") == f"http://{request.headers['Host']}"
        if not own or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "Another site sent this form.")
        if not same(str((await request.post()).get(FORM_TOKEN, "")), self.form_token):
            raise Refused(HTTPStatus.FORBIDDEN, "This form is from an earlier session.", "Reload the page.")


def require_local(request: web.Request) -> None:
    """Raise `Refused` unless the browser asked for a name of this machine; the port may be that of a tunnel."""
    hosts = request.headers.getall("Host", [])
    try:
        name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
    except ValueError:
        name = None
    if name not in LOCAL_NAMES:
        raise Refused(
            HTTPStatus.MISDIRECTED_REQUEST,
            "This page answers only to 127.0.0.1 and localhost.",
            "From another machine, use a tunnel: ssh -L PORT:127.0.0.1:PORT HOST.",
        )


def same(one: str, other: str) -> bool:
    """Whether two secrets are the same, in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
