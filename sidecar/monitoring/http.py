"""The read-only HTTP interface: the status page at /, and /livez, /readyz, /metrics and /status."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.monitoring.app_metrics import AppMetrics
from sidecar.monitoring.html import PAGE, PageTemplate
from sidecar.status import Status, as_json

# aiohttp's default is an hour: clients that vanished would use up the files that this process may open.
IDLE_SECONDS = 75.0
# Anybody may connect and say nothing. Each connection is an open file, and without files there are neither backups nor a lease.
FEWEST_CLIENTS, MOST_CLIENTS = 64, 1024
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# Nothing inline and nothing from elsewhere: injected markup could do nothing, and no other site can frame the page.
PAGE_HEADERS = {
    **NO_STORE,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PAGE_FILES = {
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/parts.js": ("parts.js", "text/javascript"),
}


class HttpInterface:
    """The read-model over HTTP. `observe` refreshes the read-model before it is shown."""

    def __init__(
        self, status: Status, render: Callable[[], bytes], observe: Callable[[], None], app: AppMetrics | None
    ) -> None:
        self._status = status
        self._render = render
        self._observe = observe
        self._app = app
        self._template = PageTemplate()

    def application(self) -> web.Application:
        """A new application with every read-only route; the one of the control socket gets more."""
        application = web.Application()
        for path, (name, kind) in PAGE_FILES.items():
            application.router.add_get(path, _file(PAGE / name, kind))
        application.router.add_get("/", self._page)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/status", self._show_status)
        return application

    async def _page(self, _request: web.Request) -> web.Response:
        self._observe()
        body = self._template.render(self._status)
        return web.Response(text=body, content_type="text/html", charset="utf-8", headers=PAGE_HEADERS)

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._status.ready:
            return web.Response(text="ready\n")
        other = self._status.lease.waiting_for
        waits = other and self._status.phase in {"starting", "restoring"}
        waiting = f", waiting for the lease of {other}" if waits else ""
        return web.Response(status=503, text=f"{self._status.phase}{waiting}\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        self._observe()
        body = self._render()
        if self._app:
            theirs = await self._app.fetch()
            body += theirs.encode() + (b"" if theirs.endswith("\n") or not theirs else b"\n")
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})

    async def _show_status(self, _request: web.Request) -> web.Response:
        self._observe()
        return web.json_response(as_json(self._status), headers=NO_STORE)


@asynccontextmanager
async def serving(sites: Sequence[tuple[web.Application, Sequence[socket.socket]]]) -> AsyncIterator[None]:
    """Serve applications on sockets that listen already, until the block ends, and close these."""
    async with AsyncExitStack() as stack:
        for application, sockets in sites:
            busy: set[web.RequestHandler] = set()
            application.middlewares.append(_noting(busy))
            runner = web.AppRunner(
                application, access_log=None, handle_signals=False, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS
            )
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            connect = _limited(cast("web.Server", runner.server), busy)  # which there is after the setup
            for each in sockets:
                listening = await asyncio.get_running_loop().create_server(connect, sock=each)
                stack.callback(listening.close)
        yield


def most_clients() -> int:
    """How many connections there may be: a quarter of the files that this process may open, within bounds."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CLIENTS if soft == resource.RLIM_INFINITY else min(MOST_CLIENTS, max(FEWEST_CLIENTS, soft // 4))


def _limited(server: web.Server, busy: Collection[web.RequestHandler]) -> Callable[[], asyncio.Protocol]:
    """Takes one more client, and closes connections if there are too many: those that say nothing first, and the oldest."""
    most, loop = most_clients(), asyncio.get_running_loop()

    def make_room() -> None:
        connections = server.connections
        if (excess := len(connections) + 1 - most) > 0:
            for each in sorted(connections, key=lambda each: each in busy)[:excess]:
                each.force_close()

    def connect() -> asyncio.Protocol:
        loop.call_soon(make_room)  # not now: who came at the same moment is not counted yet
        return server()

    return connect


def _noting(busy: set[web.RequestHandler]) -> Middleware:
    """Notes which connections wait for an answer."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            busy.discard(request.protocol)

    return note


def _file(path: Path, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Serve one of the page's files, read at the start: a volume that fails later does not take it away."""
    body, headers = path.read_bytes(), {**PAGE_HEADERS, "Content-Type": f"{kind}; charset=utf-8"}

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    return serve
