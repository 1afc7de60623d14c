"""The daemon's HTTP: the page at /, /livez /readyz /metrics /status, read-only; and the control socket, for its owner alone."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import aiohttp
import anyio
import structlog
from aiohttp import web
from anyio import to_thread

from sidecar.errors import ConfigurationError
from sidecar.status.health import overall
from sidecar.status.model import Status
from sidecar.status.serialize import as_json

log = structlog.get_logger()

APP_METRICS_TIMEOUT = aiohttp.ClientTimeout(total=3)
APP_METRICS_LIMIT = 2 << 20
ANSWER_SECONDS = 10.0
PROGRESS_SECONDS = 0.25
IDLE_SECONDS = 75.0  # aiohttp's own is an hour: clients that vanished, or never ask, would use up the files we may open
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGES = Path(__file__).parent / "page"
AT = "%Y-%m-%d %H:%M:%S UTC"
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# Nothing inline and nothing from elsewhere: markup that slipped through could do nothing, and nobody can frame it.
PAGE_HEADERS = {
    **NO_STORE,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PAGE = {
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/parts.js": ("parts.js", "text/javascript"),
}


class AppMetrics:
    """The app's metrics endpoint. Whatever is wrong with it costs its own samples and nothing else."""

    def __init__(self, url: str, acceptable: Callable[[str], bool]) -> None:
        """Raises `ConfigurationError` for a URL that is none."""
        if not _is_http(url):
            raise ConfigurationError(
                f"app_metrics_url: {url!r} is no http URL", "for example http://127.0.0.1:8000/metrics"
            )
        self._url = url
        self._acceptable = acceptable
        self._complaint = ""
        self._one = anyio.Lock(fast_acquire=True)
        self._asked = 0
        self._fetched = (0, "")

    async def fetch(self) -> str:
        """Their text in Prometheus' exposition format, or nothing; a change for the worse is logged once.

        However many ask at once, the app is asked and its text parsed once at a time; who waited shares what came.
        """
        self._asked += 1
        mine = self._asked
        async with self._one:
            if self._fetched[0] < mine:
                self._fetched = (self._asked, await self._fetch())
            return self._fetched[1]

    async def _fetch(self) -> str:
        try:
            text, complaint = await self._get()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            text, complaint = "", str(error) or type(error).__name__
        if complaint and not self._complaint:
            log.warning(
                "the app's metrics are left out", url=self._url.rpartition("@")[2].partition("?")[0], error=complaint
            )
        self._complaint = complaint
        return text

    async def _get(self) -> tuple[str, str]:
        async with aiohttp.ClientSession(timeout=APP_METRICS_TIMEOUT) as session:
            headers = {"Accept": "text/plain;version=0.0.4"}
            async with session.get(self._url, headers=headers, allow_redirects=False) as reply:
                body = await reply.content.read(APP_METRICS_LIMIT + 1)
                while len(body) <= APP_METRICS_LIMIT and (more := await reply.content.read(APP_METRICS_LIMIT)):
                    body += more
        if reply.status != 200 or len(body) > APP_METRICS_LIMIT:
            return "", f"status {reply.status}, {len(body)} bytes"
        text = body.decode()
        good = await to_thread.run_sync(self._acceptable, text)  # parsing takes 0.4 s a megabyte
        return (text, "") if good else ("", "not Prometheus text, or it uses our names")


class Http:
    """What is served over HTTP. `observe` refreshes the read-model before it is shown."""

    def __init__(
        self, status: Status, render: Callable[[], bytes], observe: Callable[[], None], app: AppMetrics | None
    ) -> None:
        self._status = status
        self._render = render
        self._observe = observe
        self._app = app
        self._index = Template(
            (PAGES / "index.html").read_text()
        )  # now: a volume that fails later does not take it away

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve on a TCP port and yield it. Raises `ConfigurationError` when the port is taken."""
        async with _running(self._application()) as runner:
            site = web.TCPSite(runner, host, port)
            try:
                await site.start()
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}",
                    "set `listen` to a free port, or to off",
                ) from error
            yield runner.addresses[0][1]

    @asynccontextmanager
    async def controlled(self, path: Path, backup: Callable[[], Awaitable[dict[str, object]]]) -> AsyncIterator[None]:
        """Serve the control socket: `/status`, and POST `/backup`. Only the owner of the process may connect."""

        async def on_backup(request: web.Request) -> web.StreamResponse:
            """How far it is, a line of JSON each, and at last the answer. Who asked may vanish, or never read."""
            reply = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            try:
                await reply.prepare(request)
            except ConnectionError:
                return reply
            async with anyio.create_task_group() as group:
                group.start_soon(self._tell_progress, reply)
                answer = await backup()
                group.cancel_scope.cancel()
            with anyio.move_on_after(ANSWER_SECONDS), suppress(ConnectionError):
                await reply.write(json.dumps({"answer": answer}).encode() + b"\n")
                await reply.write_eof()
            return reply

        application = self._application()
        application.router.add_post("/backup", on_backup)
        async with _running(application) as runner:
            await _listen_privately(runner, path)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    async def _tell_progress(self, reply: web.StreamResponse) -> None:
        told = (0, 0)
        with suppress(ConnectionError):
            while True:
                await anyio.sleep(PROGRESS_SECONDS)
                done, total = (sum(each) for each in zip((0, 0), *self._status.publishing.values(), strict=True))
                if total and (done, total) != told:
                    told = (done, total)
                    await reply.write(json.dumps({"done": done, "total": total}).encode() + b"\n")

    def _application(self) -> web.Application:
        application = web.Application()
        for path, (name, kind) in PAGE.items():
            application.router.add_get(path, _file(PAGES / name, kind))
        application.router.add_get("/", self._page)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/status", self._show_status)
        return application

    async def _page(self, _request: web.Request) -> web.Response:
        """With the verdict in it, for whoever has no JavaScript; with it, until the first answer to its own question."""
        self._observe()
        verdict = overall(self._status)
        said = {
            "level": verdict.level.value,
            "title": verdict.title,
            "since": f"since {verdict.since:{AT}}" if verdict.since else "",
            "reason": verdict.reason,
            "hint": verdict.hint,
            "now": f"{self._status.now():{AT}}",
        }
        body = self._index.substitute({name: escape(text) for name, text in said.items()})
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


async def _listen_privately(runner: web.AppRunner, path: Path) -> None:
    """A unix socket that only its owner can reach. Raises `ConfigurationError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise ConfigurationError(f"{path.parent} belongs to somebody else", "set control_socket to another path")
        path.unlink(missing_ok=True)
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on the control socket {path}: {error}", "set control_socket to a short path, or to off"
        ) from error


def _file(path: Path, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Serve one of our own files, read now: a volume that fails later does not take the page away."""
    body, headers = path.read_bytes(), {**PAGE_HEADERS, "Content-Type": f"{kind}; charset=utf-8"}

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    return serve


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


@asynccontextmanager
async def _running(application: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS
    )
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()
