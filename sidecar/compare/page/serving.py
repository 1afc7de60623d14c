"""Serves the page on this machine alone, until nobody has looked at it for a while."""

import asyncio
import logging
import socket
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from sidecar.compare.page.access import HEADERS, Gate, Refused, require_local
from sidecar.compare.page.history import History
from sidecar.compare.page.jobs import Jobs
from sidecar.compare.page.pages import Pages
from sidecar.compare.page.restore_screen import RestoreScreen
from sidecar.compare.page.restoring import Restorer, Returner
from sidecar.compare.page.screens import Screens
from sidecar.compare.page.source import Source
from sidecar.database import Driver
from sidecar.errors import UsageError
from sidecar.log import log

HERE = Path(__file__).parent
FILES = {
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
LONGEST_BODY = 64 << 10


async def serve(
    source: Source,
    driver: Driver,
    store: str,
    returner: Returner | None,
    *,
    port: int,
    idle: timedelta,
    announce: Callable[[str], None],
) -> None:
    """Serve the page of a database. Returns when nobody has opened a page for as long as `idle`.

    Without a `returner` it only reads. `announce` is called with the link, which opens it in one browser. Raises `UsageError` if the port is taken.
    """
    with listening(port) as listener, tempfile.TemporaryDirectory(prefix="sidecar-browse-") as directory:
        gate = Gate(listener.getsockname()[1])
        async with anyio.create_task_group() as group:
            history = History(source, group, _now)
            jobs = Jobs(source, Path(directory), group, _now)
            pages = Pages(source.database.name, store, history, gate, changes=returner is not None)
            routes = Screens(source, driver, history, jobs, pages).routes()
            if returner is not None:
                routes += RestoreScreen(pages, Restorer(returner, group, _now), history, jobs).routes()
            last = _LastLook()
            logger = logging.getLogger("aiohttp.server")
            logger.addFilter(_is_worth_a_line)
            site = application(routes, pages, gate, last.note)
            runner = web.AppRunner(site, access_log=None, logger=logger, handle_signals=False, shutdown_timeout=1.0)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                announce(f"http://127.0.0.1:{listener.getsockname()[1]}{gate.link}")
                group.start_soon(history.run)
                await last.wait_idle(idle.total_seconds())
            finally:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await runner.cleanup()


def listening(port: int) -> socket.socket:
    """A socket that only this machine can connect to. Raises `UsageError`."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f"port {port} cannot be used: {error}", "choose another port, or 0 for a free one") from error
    return listener


def application(routes: Sequence[web.RouteDef], pages: Pages, gate: Gate, look: Callable[[], None]) -> web.Application:
    """All routes. `look` is called for each page that a person opens."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path in FILES and request.method == "GET":
                require_local(request)
                answer = await handler(request)
            else:
                answer = await gate.check(request, handler)
                if request.headers.get("Sec-Fetch-Dest", "document") != "empty":  # what a script asks for
                    look()
        except Refused as refused:
            answer = pages.message(refused)
        except web.HTTPException as error:
            answer = pages.message(Refused(HTTPStatus(error.status), f"{error.reason}."))
        except Exception as error:  # the boundary of a request
            log.exception("page failed", path=request.path)
            told = "The lines on the terminal help to find it. Please report them."
            answer = pages.message(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"This is a bug: {error!r}", told))
        answer.headers.update(HEADERS)
        return answer

    made = web.Application(middlewares=[guard], client_max_size=LONGEST_BODY)
    made.add_routes(routes)
    for path, (name, kind) in FILES.items():
        made.router.add_get(path, _file(name, kind))
    return made


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Not what others sent that is no HTTP: it is refused, and says nothing of us."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _file(name: str, kind: str) -> Handler:
    body = (HERE / "static" / name).read_bytes()

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer


class _LastLook:
    """When a person last opened a page, in seconds of the event loop."""

    def __init__(self) -> None:
        self._at = asyncio.get_running_loop().time()

    def note(self) -> None:
        self._at = asyncio.get_running_loop().time()

    async def wait_idle(self, seconds: float) -> None:
        while (left := self._at + seconds - asyncio.get_running_loop().time()) > 0:
            await anyio.sleep(left)


def _now() -> datetime:
    return datetime.now(UTC)
