"""The guestbook as a real process, spoken to over real HTTP."""

import http.client
import json
import os
import re
import selectors
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

READY = re.compile(r"guestbook listening on http://127\.0\.0\.1:(\d+)\n")
SECONDS = 20.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class App:
    process: subprocess.Popen[str]
    port: int

    def request(
        self, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, document: object) -> Reply:
        return self.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})

    def entries(self, query: str = "") -> Any:
        return self.request("GET", f"/api/entries{query}").json()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def spawn(directory: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar.demo"],
        cwd=directory,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "GUESTBOOK_PORT": "0", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def guestbook(directory: Path, **settings: str) -> Iterator[App]:
    """A guestbook that listens; no process of it is left at the end."""
    with spawn(directory, **settings) as process:
        try:
            yield App(process, port_of(process))
        finally:
            process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(SECONDS), "no ready line in time"
    line = process.stdout.readline()
    ready = READY.fullmatch(line)
    assert ready, f"not a ready line: {line!r}"
    return int(ready[1])


def refused_to_start(directory: Path, **settings: str) -> tuple[int, str, str]:
    with spawn(directory, **settings) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        return process.returncode, out, err


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with guestbook(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def app_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for the tests that leave no trace in it."""
    with guestbook(tmp_path_factory.mktemp("guestbook")) as running:
        yield running


def test_it_says_when_it_is_ready_and_then_nothing_until_sigterm_ends_it_with_0(app: App, tmp_path: Path) -> None:
    """Result: one line of output, status 0, and a database that needs no WAL."""
    assert app.post("/api/entries", {"name": "Ada", "message": "hello"}).status == 201
    assert app.request("GET", "/healthz").json() == {"status": "ok"}

    assert app.end(signal.SIGTERM) == 0

    assert app.process.communicate() == ("", "")
    assert os.listdir(tmp_path) == ["guestbook.db"]


def test_sigint_ends_it_with_0_too(app: App) -> None:
    assert app.end(signal.SIGINT) == 0


def test_what_is_written_is_read_back_exactly(app: App) -> None:
    name, message = " Zoë 'O\"Neil' ", "two\r\nlines; DROP TABLE entries; -- 日本語 \U0001f600\t"
    written = app.post("/api/entries", {"name": name, "message": message})

    assert written.status == 201
    entry = written.json()
    assert (entry["id"], entry["name"], entry["message"]) == (1, name, message)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["written_at"])
    assert app.entries() == {"entries": [entry], "count": 1}


def test_entries_come_in_pages_and_the_count_is_of_all(app: App) -> None:
    for number in range(1, 6):
        app.post("/api/entries", {"name": "n", "message": str(number)})

    page = app.entries("?after=2&limit=2")

    assert ([entry["id"] for entry in page["entries"]], page["count"]) == ([3, 4], 5)
    assert app.entries("?after=5") == {"entries": [], "count": 5}


def test_a_form_is_accepted_and_its_markup_is_shown_as_text(app: App) -> None:
    """No character of a visitor's becomes markup, neither in the list nor in the form that is shown again."""
    evil = "<script>alert(1)</script>\"'&</textarea>"

    accepted = app.request("POST", "/", urlencode({"name": evil, "message": evil}), FORM)
    refused = app.request("POST", "/", urlencode({"name": "", "message": evil}), FORM)
    page = app.request("GET", "/")

    assert (accepted.status, accepted.headers["Location"]) == (303, "/")
    assert (refused.status, page.status) == (400, 200)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for html in (page.body.decode(), refused.body.decode()):
        assert "<script" not in html
        assert html.count("</textarea>") == 1
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in html
    assert "Not signed: name is empty." in refused.body.decode()


def test_the_page_asks_nothing_of_anybody_else(app: App) -> None:
    html = app.request("GET", "/").body.decode()
    assert "<script" not in html
    assert re.findall(r"(?:src|href|action)=\"(?!/|data:|\")([^\"]*)\"", html) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        ("[" * 60_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "are required"),
        ('{"name": 1, "message": "m"}', "are required"),
        ('{"name": " ", "message": "m"}', "name is empty"),
        ('{"name": "n", "message": "\\n"}', "message is empty"),
        (json.dumps({"name": "n" * 81, "message": "m"}), "81 characters"),
        (json.dumps({"name": "n", "message": "m" * 2001}), "2001 characters"),
        ('{"name": "\\ud800", "message": "m"}', "not text"),
        ('{"name": "a\\u0000b", "message": "m"}', "not text"),
    ],
)
def test_bad_entries_are_refused(app_of_module: App, body: str | bytes, why: str) -> None:
    reply = app_of_module.request("POST", "/api/entries", body)

    assert reply.status == 400
    assert why in reply.json()["error"]
    assert app_of_module.entries()["count"] == 0


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "after=-1", f"after={2**63}", "after=1_0"]
)
def test_bad_queries_are_refused(app_of_module: App, query: str) -> None:
    reply = app_of_module.request("GET", f"/api/entries?{query}")

    assert reply.status == 400
    assert query.split("=")[0] in reply.json()["error"]


def test_other_refusals_are_json_too(app_of_module: App) -> None:
    assert app_of_module.request("GET", "/api/nothing").json() == {"error": "Not Found"}
    too_large = app_of_module.request("POST", "/api/entries", "x" * 100_000)
    assert (too_large.status, list(too_large.json())) == (413, ["error"])
    wrong_method = app_of_module.request("DELETE", "/api/entries")
    assert (wrong_method.status, wrong_method.headers["Allow"]) == (405, "GET,HEAD,POST")
    assert app_of_module.request("POST", "/", "x", {"Content-Type": "multipart/form-data; boundary=x"}).status == 400


def test_a_stop_asks_for_the_status_it_was_given(tmp_path: Path) -> None:
    with guestbook(tmp_path, GUESTBOOK_EXIT_STATUS="7") as app:
        assert app.end(signal.SIGTERM) == 7


def test_it_can_ignore_sigterm(tmp_path: Path) -> None:
    """Steps: SIGTERM; it still answers and writes; SIGINT. Result: only the SIGINT ended it."""
    with guestbook(tmp_path, GUESTBOOK_IGNORE_SIGTERM="1") as app:
        app.process.send_signal(signal.SIGTERM)
        assert app.post("/api/entries", {"name": "n", "message": "still here"}).status == 201
        assert app.process.poll() is None
        assert app.end(signal.SIGINT) == 0


@pytest.mark.parametrize(("asked", "status"), [(3, 3), (-signal.SIGKILL, -9), (-signal.SIGTERM, -15)])
def test_it_exits_by_itself_when_asked(tmp_path: Path, asked: int, status: int) -> None:
    with guestbook(tmp_path, GUESTBOOK_ALLOW_EXIT="1") as app:
        reply = app.post("/api/exit", {"status": asked})
        assert (reply.status, reply.json()) == (202, {"status": asked})
        assert app.process.wait(SECONDS) == status


def test_an_exit_must_be_allowed_and_make_sense(app_of_module: App, tmp_path: Path) -> None:
    assert app_of_module.post("/api/exit", {"status": 0}).status == 404
    with guestbook(tmp_path, GUESTBOOK_ALLOW_EXIT="1") as app:
        for nonsense in (256, -1000, "1", True, None):
            assert app.post("/api/exit", {"status": nonsense}).status == 400
        assert app.process.poll() is None


def test_every_acknowledged_entry_survives_a_kill(tmp_path: Path) -> None:
    """Steps: eight writers at once; SIGKILL while they write. Result: what was answered 201 is in the file."""
    acknowledged: dict[int, str] = {}

    def write(app: App, writer: int) -> None:
        for number in range(1_000):
            text = f"writer {writer}, entry {number}"
            try:
                reply = app.post("/api/entries", {"name": "n", "message": text})
            except (OSError, http.client.HTTPException):
                return
            acknowledged[reply.json()["id"]] = text
            if len(acknowledged) >= 200:
                app.process.kill()

    with guestbook(tmp_path, GUESTBOOK_DB="guests.db") as app, ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [app] * 8, range(8)))

    with closing(sqlite3.connect(tmp_path / "guests.db")) as connection:
        stored = dict(connection.execute("SELECT id, message FROM entries"))
    assert len(acknowledged) >= 200
    assert acknowledged.items() <= stored.items()


def test_a_write_waits_for_whoever_holds_the_lock(app: App, tmp_path: Path) -> None:
    """Steps: another process holds the write lock for a moment. Result: the entry is late, not refused."""
    with (
        closing(sqlite3.connect(tmp_path / "guestbook.db", isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        write = pool.submit(app.post, "/api/entries", {"name": "n", "message": "m"})
        with pytest.raises(TimeoutError):
            write.result(0.2)
        other.execute("ROLLBACK")
        assert write.result(SECONDS).status == 201


def test_a_write_that_the_database_refuses_is_not_acknowledged(app: App, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "guestbook.db", isolation_level=None)) as other:
        other.execute("ALTER TABLE entries RENAME TO elsewhere")
        refused = app.post("/api/entries", {"name": "n", "message": "m"})
        other.execute("ALTER TABLE elsewhere RENAME TO entries")

    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert "no such table" in refused.json()["error"]
    assert app.entries()["count"] == 0


def test_it_says_in_one_line_why_it_cannot_start(app_of_module: App, tmp_path: Path) -> None:
    for settings, why in [
        ({"GUESTBOOK_PORT": "http"}, "GUESTBOOK_PORT must be a whole number from 0 to 65535"),
        ({"GUESTBOOK_PORT": str(app_of_module.port)}, "address already in use"),
        ({"GUESTBOOK_DB": "nowhere/guestbook.db"}, "unable to open database file"),
    ]:
        status, out, err = refused_to_start(tmp_path, **settings)
        assert (status, out) == (1, "")
        assert why in err
        assert len(err.splitlines()) == 1
