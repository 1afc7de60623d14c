"""A guestbook: a small web app on SQLite that stands in for yours. It knows nothing about sidecar.

    GET  /                        the page; POST / with its form
    GET  /api/entries             ?limit= (1 to 1000, default 100) &after= (an id, default 0)
                                  -> {"entries": [{"id", "name", "message", "written_at"}], "count": number of all entries}
    POST /api/entries             {"name", "message"} -> 201 and the entry, once it is committed and synced to disk
    GET  /healthz                 {"status": "ok"} when the database answers

Errors of the API are {"error": reason}: 400 for bad input, 503 when the database cannot take the write now, or when an entry
is not confirmed (with its "id").

Once it listens it prints one line, `guestbook listening on http://127.0.0.1:8080`. SIGTERM and SIGINT stop it: it answers
open requests, closes the database and exits with 0. Settings come from the environment:

    GUESTBOOK_DB             the database; default ./guestbook.db
    GUESTBOOK_HOST           address to listen on; default 127.0.0.1
    GUESTBOOK_PORT           port to listen on; default 8080; 0 means any free one
    GUESTBOOK_WAIT_URL       an entry is answered for only when a POST to this address is answered with 200: then it is stored
                             where the end of this machine cannot reach it. Otherwise the answer is 503, with Retry-After:
                             the entry is committed here, and may be lost with this machine. Default: nobody is asked

and three more let a test simulate an app that behaves less well:

    GUESTBOOK_EXIT_STATUS    exit with this status instead of 0 after a clean stop
    GUESTBOOK_IGNORE_SIGTERM 1: ignore SIGTERM
    GUESTBOOK_ALLOW_EXIT     1: POST /api/exit {"status": n} makes it stop by itself and exit with n; with a negative n it
                             dies by signal -n, without a clean stop
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aiohttp import web

from sidecar.demo.confirmation import Confirmation, NotConfirmed, confirmation
from sidecar.demo.guestbook import LARGEST_ID, BadInput, Draft, Entry, Guestbook, open_guestbook
from sidecar.demo.page import CONTENT_SECURITY_POLICY, render

_ENTRIES_ON_PAGE = 50
_LARGEST_BODY = 64 * 1024
# Platforms often allow five seconds between SIGTERM and SIGKILL: leave some of them for the database.
_SECONDS_FOR_OPEN_REQUESTS = 1.0

_GUESTBOOK = web.AppKey("guestbook", Guestbook)
_CONFIRMATION: web.AppKey[Confirmation | None] = web.AppKey("confirmation")
_STOP: web.AppKey[asyncio.Future[int]] = web.AppKey("stop", asyncio.Future)


class Unconfirmed(Exception):
    """An entry is committed on this machine, and it is not known to be stored anywhere else."""

    def __init__(self, number: int, why: NotConfirmed) -> None:
        super().__init__(f"entry {number} is written here, and not confirmed to be stored: {why}")
        self.number = number
        self.again = why.again


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings from the environment; see the module's docstring."""

    database: Path
    host: str
    port: int
    wait_url: str
    exit_status: int
    ignore_sigterm: bool
    allow_exit: bool

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings. Raises ValueError that names the variable."""
        return cls(
            database=Path(environment.get("GUESTBOOK_DB", "guestbook.db")),
            host=environment.get("GUESTBOOK_HOST", "127.0.0.1"),
            port=_whole_number(environment, "GUESTBOOK_PORT", default=8080, low=0, high=65535),
            wait_url=environment.get("GUESTBOOK_WAIT_URL", ""),
            exit_status=_whole_number(environment, "GUESTBOOK_EXIT_STATUS", default=0, low=0, high=255),
            ignore_sigterm=environment.get("GUESTBOOK_IGNORE_SIGTERM") == "1",
            allow_exit=environment.get("GUESTBOOK_ALLOW_EXIT") == "1",
        )


def _whole_number(values: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = values.get(name, str(default))
    # int() alone would accept "1_000" and digits of other scripts, and reject very long numbers with its own message.
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise BadInput(f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}")
    return int(text)


async def show_page(request: web.Request) -> web.Response:
    before = _whole_number(request.query, "before", default=LARGEST_ID, low=1, high=LARGEST_ID)
    return await _page(request, before=before)


async def _page(
    request: web.Request, *, before: int = LARGEST_ID, name: str = "", message: str = "", error: str = ""
) -> web.Response:
    guestbook = request.app[_GUESTBOOK]
    entries = await guestbook.newest(before=before, limit=_ENTRIES_ON_PAGE)
    html = render(entries, await guestbook.count(), name=name, message=message, error=error)
    return web.Response(text=html, content_type="text/html", status=400 if error else 200)


async def submit_form(request: web.Request) -> web.Response:
    # Only this type: the other type of form, multipart, may contain files.
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadInput("the body is not a form")
    try:
        form = await request.post()
    except (ValueError, LookupError) as error:
        raise BadInput("the form is not in its declared encoding") from error
    # Browsers send line ends as CRLF, whatever was typed.
    name, message = (str(form.get(field, "")).replace("\r\n", "\n") for field in ("name", "message"))
    try:
        draft = Draft(name, message)
    except BadInput as error:
        return await _page(request, name=name, message=message, error=f"Not signed: {error}.")
    await _sign(request, draft)
    raise web.HTTPSeeOther("/")


async def list_entries(request: web.Request) -> web.Response:
    guestbook = request.app[_GUESTBOOK]
    after = _whole_number(request.query, "after", default=0, low=0, high=LARGEST_ID)
    limit = _whole_number(request.query, "limit", default=100, low=1, high=1000)
    entries = await guestbook.oldest(after=after, limit=limit)
    return web.json_response({"entries": [asdict(entry) for entry in entries], "count": await guestbook.count()})


async def add_entry(request: web.Request) -> web.Response:
    document = await _json_object(request)
    name, message = document.get("name"), document.get("message")
    if not (isinstance(name, str) and isinstance(message, str)):
        raise BadInput("name and message are required and must be strings")
    entry = await _sign(request, Draft(name, message))
    return web.json_response(asdict(entry), status=201)


async def _sign(request: web.Request, draft: Draft) -> Entry:
    """Write an entry, and return it once it is confirmed. It is not taken back otherwise: it is committed, and may be stored yet."""
    entry = await request.app[_GUESTBOOK].sign(draft)
    if confirms := request.app[_CONFIRMATION]:
        try:
            await confirms.require()
        except NotConfirmed as error:
            raise Unconfirmed(entry.id, error) from error
    return entry


async def _json_object(request: web.Request) -> dict[str, object]:
    try:
        document = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not JSON") from error
    if not isinstance(document, dict):
        raise BadInput("the body is not a JSON object")
    return document


async def health(request: web.Request) -> web.Response:
    await request.app[_GUESTBOOK].count()
    return web.json_response({"status": "ok"})


async def exit_by_itself(request: web.Request) -> web.StreamResponse:
    status = (await _json_object(request)).get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise BadInput("status must be a whole number")
    if not (0 <= status <= 255 or -status in signal.valid_signals()):
        raise BadInput(f"{status} is neither an exit status nor a negative signal number")
    response = web.json_response({"status": status}, status=202)
    # The answer is sent first, so that a caller can tell an app that obeyed from one that was already dead.
    await response.prepare(request)
    await response.write_eof()
    if status < 0:
        _die_by(-status)
    else:
        _resolve(request.app[_STOP], status)
    return response


def _die_by(number: int) -> None:
    with suppress(OSError):  # SIGKILL and SIGSTOP have no handler to reset
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _resolve(stop: asyncio.Future[int], status: int) -> None:
    if not stop.done():
        stop.set_result(status)


@web.middleware
async def explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors with {"error": reason} in the API, and with plain text elsewhere."""
    try:
        return await handler(request)
    except BadInput as error:
        return _refusal(request, 400, str(error))
    except sqlite3.OperationalError as error:
        response = _refusal(request, 503, f"the database refused: {error}")
        response.headers["Retry-After"] = "1"
        return response
    except Unconfirmed as error:
        response = _refusal(request, 503, str(error), id=error.number)
        if error.again is not None:
            response.headers["Retry-After"] = str(error.again)
        return response
    except web.HTTPClientError as error:
        response = _refusal(request, error.status, error.reason)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _refusal(request: web.Request, status: int, why: str, **more: object) -> web.Response:
    if request.path.startswith(("/api/", "/healthz")):
        return web.json_response({"error": why, **more}, status=status)
    return web.Response(text=f"{why}\n", status=status)


async def harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"


def application(
    guestbook: Guestbook, confirms: Confirmation | None, stop: asyncio.Future[int], *, allow_exit: bool
) -> web.Application:
    """The web application. It resolves `stop` with the exit status of the process."""
    app = web.Application(middlewares=[explain_errors], client_max_size=_LARGEST_BODY)
    app[_GUESTBOOK], app[_CONFIRMATION], app[_STOP] = guestbook, confirms, stop
    app.on_response_prepare.append(harden)
    app.router.add_get("/", show_page)
    app.router.add_post("/", submit_form)
    app.router.add_get("/api/entries", list_entries)
    app.router.add_post("/api/entries", add_entry)
    app.router.add_get("/healthz", health)
    if allow_exit:
        app.router.add_post("/api/exit", exit_by_itself)
    return app


async def serve(settings: Settings) -> int:
    """Serve until a signal or `stop`; returns the exit status. Raises OSError or sqlite3.Error when it cannot start."""
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _stop_on_signals(settings, stop)
    async with open_guestbook(settings.database) as guestbook, confirmation(settings.wait_url) as confirms:
        app = application(guestbook, confirms, stop, allow_exit=settings.allow_exit)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SECONDS_FOR_OPEN_REQUESTS)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            print(f"guestbook listening on {_address(runner)}", flush=True)
            return await stop
        finally:
            await runner.cleanup()


def _stop_on_signals(settings: Settings, stop: asyncio.Future[int]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _resolve, stop, settings.exit_status)
    if settings.ignore_sigterm:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main() -> int:
    """Run the guestbook and return its exit status."""
    try:
        return asyncio.run(serve(Settings.read(os.environ)))
    except (OSError, sqlite3.Error, BadInput) as error:
        print(f"guestbook: {error}", file=sys.stderr)
        return 1
