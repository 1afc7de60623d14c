"""The applications: how each is installed and started, and how a row is written and read through its own interface.

A start script is what an image's entrypoint would be. It finds these variables: `bin`, the programs of the application;
`DATA`, the directory that is lost; `image`, a directory that is part of the image and stays; `port`, where to listen.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.apps.browser import Browser, Refused, hidden_field

PASSWORD = "correct-horse-battery"


class Client(Protocol):
    """Somebody who uses the application."""

    def write(self, name: str) -> None:
        """Return when the application has said that it has the row; raise `Refused` when it did not."""

    def names(self) -> set[str]:
        """The names of the rows that the application shows."""


class IssoClient:
    """Writes comments below an article."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)

    def write(self, name: str) -> None:
        comment = {"text": f"I agree with {name}.", "author": name, "title": "An article"}
        self._browser.send_json("POST", "/new?uri=%2Farticle%2F", comment)

    def names(self) -> set[str]:
        return {reply["author"] for reply in self._browser.get_json("/?uri=%2Farticle%2F")["replies"]}


class TracClient:
    """Creates tickets, as an anonymous visitor who may."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)

    def write(self, name: str) -> None:
        self._browser.get("/newticket")
        token = self._browser.cookie("trac_form_token")
        ticket = {"__FORM_TOKEN": token, "field_summary": name, "submit": "Create ticket", "author": "visitor"}
        if name not in self._browser.post_form("/newticket", ticket):
            raise Refused(f"Trac does not show the new ticket {name}")

    def names(self) -> set[str]:
        table = self._browser.get("/query?format=csv&col=summary&max=0&status=!gone")
        return {line.rpartition(",")[2] for line in table.lstrip("\ufeff").splitlines()[1:]}


class DevpiClient:
    """Creates users of a package index."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)

    def write(self, name: str) -> None:
        self._browser.send_json("PUT", f"/{name}", {"password": PASSWORD})

    def names(self) -> set[str]:
        return set(self._browser.get_json("/")["result"]) - {"root"}


class DjangoClient:
    """Creates groups in the admin, logged in as the superuser."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)
        self._submit("/admin/login/", {"username": "admin", "password": PASSWORD, "next": "/admin/"})

    def write(self, name: str) -> None:
        if "was added successfully" not in self._submit("/admin/auth/group/add/", {"name": name, "_save": "Save"}):
            raise Refused(f"the admin does not say that it added {name}")

    def names(self) -> set[str]:
        return set(
            re.findall(r"/auth/group/\d+/change/[^>]*>([^<]+)</a>", self._browser.get("/admin/auth/group/?all="))
        )

    def _submit(self, path: str, fields: dict[str, str]) -> str:
        token = hidden_field(self._browser.get(path), "csrfmiddlewaretoken")
        return self._browser.post_form(path, {**fields, "csrfmiddlewaretoken": token})


class ActualClient:
    """Uploads budgets; the first visitor sets the password."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)
        fresh = not self._browser.get_json("/account/needs-bootstrap")["data"]["bootstrapped"]
        answer = self._browser.send_json("POST", "/account/bootstrap" if fresh else "/account/login", self._login())
        self._token = answer["data"]["token"]

    def write(self, name: str) -> None:
        headers = {
            "X-ACTUAL-TOKEN": self._token,
            "X-ACTUAL-FILE-ID": name,
            "X-ACTUAL-NAME": name,
            "X-ACTUAL-FORMAT": "2",
            "Content-Type": "application/encrypted-file",
        }
        self._browser.send("POST", "/sync/upload-user-file", b"a budget", headers)

    def names(self) -> set[str]:
        files = self._browser.get_json("/sync/list-user-files", X_ACTUAL_TOKEN=self._token)["data"]
        return {file["name"] for file in files}

    @staticmethod
    def _login() -> dict[str, str]:
        return {"loginMethod": "password", "password": PASSWORD}


@dataclass(frozen=True)
class Application:
    """`requirements` have exact versions, and the first is the application. `database` is relative to DATA."""

    name: str
    installer: Literal["pip", "npm"]
    requirements: tuple[str, ...]
    database: str
    script: str
    client: Callable[[int], Client]
    journal_mode: Literal["wal", "keep"] = "wal"
    store: Literal["file", "s3"] = "file"

    @property
    def version(self) -> str:
        """The application's own version."""
        return re.split("==|(?<=.)@", self.requirements[0])[1]


ISSO = Application(
    "isso",
    "pip",
    ("isso==0.14.0",),
    "comments.db",
    """cat > "$image/isso.cfg" <<END
[general]
dbpath = $DATA/comments.db
host = http://127.0.0.1:$port/
[server]
listen = http://127.0.0.1:$port
[guard]
enabled = false
END
exec "$bin/isso" -c "$image/isso.cfg" run
""",
    IssoClient,
)

# Its directory has the configuration and is part of the image; the database is in the directory that is lost.
TRAC = Application(
    "Trac",
    "pip",
    ("Trac==1.6", "setuptools==75.8.0"),
    "trac.db",
    """if [ ! -e "$DATA/trac.db" ]; then
    "$bin/trac-admin" "$image/trac" initenv apps "sqlite:$DATA/trac.db"
    "$bin/trac-admin" "$image/trac" permission add anonymous TICKET_CREATE
fi
exec "$bin/tracd" --hostname 127.0.0.1 --port "$port" --single-env "$image/trac"
""",
    TracClient,
    journal_mode="keep",
)

# It refuses a directory without two small files beside its database, which never change. Derived keys may be cheap here.
DEVPI = Application(
    "devpi-server",
    "pip",
    ("devpi-server==6.20.3", "setuptools==75.8.0"),
    ".sqlite",
    """if [ ! -e "$DATA/.sqlite" ]; then
    "$bin/devpi-init" --serverdir "$DATA" --no-root-pypi --root-passwd correct-horse-battery
    cp "$DATA/.serverversion" "$DATA/.nodeinfo" "$image"
fi
cp "$image/.serverversion" "$image/.nodeinfo" "$DATA"
exec "$bin/devpi-server" --serverdir "$DATA" --host 127.0.0.1 --port "$port" --offline-mode \\
    --argon2-memory-cost 1024 --argon2-time-cost 1
""",
    DevpiClient,
    store="s3",
)

DJANGO = Application(
    "Django",
    "pip",
    ("Django==5.2.19", "gunicorn==23.0.0"),
    "db.sqlite3",
    """cd "$image"
[ -e shop ] || "$bin/django-admin" startproject shop "$image"
cat > container.py <<END
from shop.settings import *
DATABASES["default"]["NAME"] = "$DATA/db.sqlite3"
ALLOWED_HOSTS = ["127.0.0.1"]
END
export DJANGO_SETTINGS_MODULE=container DJANGO_SUPERUSER_PASSWORD=correct-horse-battery
"$bin/python" manage.py migrate --verbosity 0
"$bin/python" manage.py createsuperuser --noinput --username admin --email admin@localhost || true
exec "$bin/gunicorn" --workers 2 --bind "127.0.0.1:$port" shop.wsgi
""",
    DjangoClient,
)

# Which migrations it has run, it writes beside its database; the image keeps that.
ACTUAL = Application(
    "@actual-app/sync-server",
    "npm",
    ("@actual-app/sync-server@25.6.0",),
    "server-files/account.sqlite",
    """mkdir -p "$DATA/server-files" "$DATA/user-files"
ln -sf "$image/.migrate" "$DATA/.migrate"
export ACTUAL_DATA_DIR="$DATA" ACTUAL_HOSTNAME=127.0.0.1 ACTUAL_PORT="$port"
exec "$bin/actual-server"
""",
    ActualClient,
)

APPLICATIONS = (ISSO, TRAC, DEVPI, DJANGO, ACTUAL)
