"""The app's own metrics behind ours: whatever the app answers, `/metrics` stays complete and fast."""

import gzip
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import anyio
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from sidecar.daemon.sockets import listen
from sidecar.errors import ConfigurationError
from sidecar.host.clock import SystemClock
from sidecar.monitoring import app_metrics
from sidecar.monitoring.app_metrics import AppMetrics
from sidecar.monitoring.http import HttpInterface, serving
from sidecar.monitoring.metrics import acceptable
from sidecar.status.model import Status
from tests.harness.ports import LOOPBACK, free_port

pytestmark = pytest.mark.anyio

OURS = b"# HELP sidecar_ready 1\n# TYPE sidecar_ready gauge\nsidecar_ready 1.0\n"
GOOD = b'# TYPE hits_total counter\nhits_total{path="/a b"} 3\n'


def answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer of the app."""
    return web.Response(body=body, status=status, headers=headers)


GZIP = {"Content-Encoding": "gzip"}
REPLIES = {
    "error": answer(GOOD, 500),
    "redirect": answer(b"", 302, {"Location": "/good"}),
    "html": answer(b"<html><body>hello</body></html>"),
    "half a line": answer(GOOD + b'hits_total{path="/b'),
    "no number": answer(b"hits_total many\n"),
    "binary": answer(bytes(range(256))),
    "latin": answer("# HELP h café\nh 1\n".encode("latin-1")),
    "huge": answer(b"hits_total 1\n" * 700_000),
    "ours": answer(b"# TYPE sidecar_ready gauge\nsidecar_ready 0\n"),
    "ours without type": answer(GOOD + b"sidecar_backups_total 9\n"),
    "ours inside another family": answer(b"# TYPE up gauge\nup 1\nsidecar_lease_held 1\n"),
    "broken gzip": answer(b"not gzip", headers=GZIP),
    "bomb": answer(gzip.compress(b"0" * (64 << 20)), headers=GZIP),
}


@pytest.fixture
async def app_port() -> AsyncIterator[int]:
    """An app with one path for each kind of broken answer."""
    application = web.Application(client_max_size=1 << 30)

    async def reply(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name == "good":
            return answer(GOOD)
        if name == "without newline":
            return answer(GOOD.rstrip())
        if name == "slow":
            await anyio.sleep(60)
        if name == "trickle":
            stream = web.StreamResponse()
            await stream.prepare(request)
            while True:
                await stream.write(b"# slowly\n")
                await anyio.sleep(0.02)
        found = REPLIES[name]
        return web.Response(body=found.body, status=found.status, headers=found.headers)

    application.router.add_get("/{name}", reply)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def scrape(url: str) -> bytes:
    """Our `/metrics` with an app at this URL; AssertionError unless it is complete and fast."""
    status = Status((), "file:///x", "0", SystemClock().now)
    served = HttpInterface(status, lambda: OURS, lambda: None, AppMetrics(url, acceptable))
    async with AsyncExitStack() as stack:
        sockets = await listen(LOOPBACK, 0)
        port = sockets[0].getsockname()[1]
        await stack.enter_async_context(serving([(served.application(), sockets)]))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        started = time.monotonic()
        async with session.get(f"http://{LOOPBACK}:{port}/metrics") as reply:
            assert reply.status == 200
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            body = await reply.read()
        assert time.monotonic() - started < 10
    assert body.startswith(OURS)
    list(text_string_to_metric_families(body.decode()))
    return body


@pytest.mark.parametrize("name", ["good", "without newline"])
async def test_good_metrics_follow_ours(app_port: int, name: str) -> None:
    assert await scrape(f"http://{LOOPBACK}:{app_port}/{name}") == OURS + GOOD


@pytest.mark.parametrize("name", REPLIES)
async def test_bad_metrics_cost_only_themselves(app_port: int, name: str) -> None:
    assert await scrape(f"http://{LOOPBACK}:{app_port}/{name}") == OURS


@pytest.mark.parametrize("name", ["slow", "trickle"])
async def test_slow_app_is_not_waited_for(app_port: int, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(app_metrics, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    started = time.monotonic()
    assert await scrape(f"http://{LOOPBACK}:{app_port}/{name}") == OURS
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("garbage", [b"", b"\0\1\2 what\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_app_that_speaks_no_http_costs_only_itself(garbage: bytes) -> None:
    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            if garbage:
                await stream.send(garbage)

    async with await anyio.create_tcp_listener(local_host=LOOPBACK) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django
        assert await scrape(f"http://{LOOPBACK}:{port}/metrics") == OURS
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    "where",
    [f"{LOOPBACK}:{free_port()}", "no.such.host.invalid", f"{LOOPBACK}:99999"],
    ids=["refused", "unknown", "impossible"],
)
async def test_app_that_is_not_there_costs_only_itself(where: str) -> None:
    assert await scrape(f"http://{where}/metrics") == OURS


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/", "http://[::1", "/metrics"])
def test_unusable_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="app_metrics_url"):
        AppMetrics(url, acceptable)


async def test_a_crowd_of_scrapers_costs_as_much_as_two() -> None:
    """Each answer may have 2 MiB and is parsed in a worker thread, which backups need too."""
    calls, gate = 0, anyio.Event()

    async def reply(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        await gate.wait()
        return answer(f"calls_total {calls}\n".encode())

    application = web.Application()
    application.router.add_get("/", reply)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    metrics, heard = AppMetrics(f"http://{LOOPBACK}:{runner.addresses[0][1]}/", acceptable), []

    async def scrape() -> None:
        heard.append(await metrics.fetch())

    try:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(scrape)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert sorted(set(heard)) == ["calls_total 1\n", "calls_total 2\n"]
        assert len(heard) == 50
        assert await metrics.fetch() == "calls_total 3\n", "never an old answer"
    finally:
        await runner.cleanup()
