"""POST /wait over real sockets: who may ask, what is answered, and clients that hang up, flood or never read."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web

from sidecar.daemon import control
from sidecar.daemon.control import add_wait, is_local
from sidecar.daemon.sockets import listen
from sidecar.errors import UsageError
from sidecar.monitoring import http
from sidecar.monitoring.http import serving
from tests.harness.ports import LOOPBACK

pytestmark = pytest.mark.anyio


@dataclass
class Stream:
    """Answers once `stored` is set. `asked` are the arguments of each wait, `waiting` who waits."""

    stored: anyio.Event = field(default_factory=anyio.Event)
    asked: list[tuple[str | None, float]] = field(default_factory=list)
    waiting: int = 0
    answer: dict[str, object] = field(default_factory=lambda: {"stored": True, "seconds": 0.1, "databases": {}})

    async def confirm(self, name: str | None, timeout: float) -> dict[str, object]:
        self.asked.append((name, timeout))
        if name == "other.db":
            raise UsageError("other.db is not one of the databases", "it is app.db")
        self.waiting += 1
        try:
            await self.stored.wait()
        finally:
            self.waiting -= 1
        return self.answer


@asynccontextmanager
async def served(stream: Stream) -> AsyncIterator[int]:
    """The port."""
    application = web.Application()
    sockets = await listen(LOOPBACK, 0)
    async with serving([(add_wait(application, stream.confirm), sockets)]):
        yield sockets[0].getsockname()[1]


async def post(port: int, query: str = "") -> tuple[int, dict[str, Any], str | None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://{LOOPBACK}:{port}/wait{query}") as reply,
    ):
        return reply.status, await reply.json(), reply.headers.get("Retry-After")


async def until(stream: Stream, waiting: int) -> None:
    with anyio.fail_after(30):
        while stream.waiting != waiting:
            await anyio.sleep(0.01)


async def silent(port: int, count: int, stack: ExitStack, request: bytes = b"") -> list[socket.socket]:
    """Clients that send this, and read nothing."""

    def connect() -> list[socket.socket]:
        clients = [stack.enter_context(socket.create_connection((LOOPBACK, port))) for _ in range(count)]
        for each in clients:
            with suppress(ConnectionError):  # one that is closed already
                each.sendall(request)
        return clients

    return await anyio.to_thread.run_sync(connect)


ASKS = b"POST /wait?timeout=1m HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def test_answers() -> None:
    stream = Stream()
    stream.stored.set()
    async with served(stream) as port:
        assert await post(port) == (200, stream.answer, None)
        assert await post(port, "?timeout=250ms&database=app.db") == (200, stream.answer, None)
        assert stream.asked == [(None, 5.0), ("app.db", 0.25)]
        stream.answer = {"stored": False, "error": "cut", "hint": "", "retry_after": 0.2}
        assert await post(port) == (503, stream.answer, "1")
        stream.answer = {"stored": False, "error": "off", "hint": "", "retry_after": None}
        assert await post(port) == (503, stream.answer, None)
        status, body, again = await post(port, "?database=other.db")
        assert (status, body["stored"], again) == (404, False, None)


@pytest.mark.parametrize("timeout", ["0", "0s", "-1s", "1y", "8760h", "11m", "9ms", "nan", "inf", "1e9s", "", "five"])
async def test_timeouts_that_are_none(timeout: str) -> None:
    stream = Stream()
    stream.stored.set()
    async with served(stream) as port:
        status, body, _ = await post(port, f"?timeout={timeout}")
    assert (status, body["stored"], stream.asked) == (400, False, [])
    assert body["hint"] == "it is a duration from 10ms to 10m, like 5s"


@dataclass
class Transport:
    """One that shows this peer."""

    peer: object

    def get_extra_info(self, name: str) -> object:
        assert name == "peername"
        return self.peer


@dataclass
class Request:
    """With what `is_local` looks at; a remote peer is what a test on one machine does not have."""

    transport: Transport | None


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 5), True),
        (("127.9.8.7", 5), True),
        (("::1", 5, 0, 0), True),
        (("::ffff:127.0.0.1", 5, 0, 0), True),
        ("", True),  # the control socket
        (("10.0.0.7", 5), False),
        (("fdaa:0:1::3", 5, 0, 0), False),
        (("fe80::1%eth0", 5, 0, 2), False),
        (("::ffff:10.0.0.7", 5, 0, 0), False),
        (("::", 5, 0, 0), False),
        (None, False),
    ],
)
def test_only_programs_on_this_machine_may_wait(peer: object, local: bool) -> None:
    assert is_local(Request(Transport(peer))) is local  # type: ignore[arg-type]


def test_one_who_has_gone_is_nobody() -> None:
    assert not is_local(Request(None))  # type: ignore[arg-type]


async def test_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "is_local", lambda _request: False)
    stream = Stream()
    stream.stored.set()
    async with served(stream) as port:
        status, body, _ = await post(port)
    assert (status, body["stored"], stream.asked) == (403, False, [])


async def test_a_client_that_hangs_up_does_not_wait_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GONE_SECONDS", 0.01)
    stream = Stream()
    async with served(stream) as port:
        with ExitStack() as stack:
            clients = await silent(port, 3, stack, ASKS)
            await until(stream, 3)
            clients.pop().close()
            await until(stream, 2)
        await until(stream, 0)


async def test_waiters_survive_a_flood_of_clients_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of those who wait for nothing are closed instead."""
    monkeypatch.setattr(http, "MOST_CLIENTS", http.FEWEST_CLIENTS)
    stream, answers = Stream(), list[int]()

    async def wait(port: int) -> None:
        answers.append((await post(port, "?timeout=1m"))[0])

    with ExitStack() as stack:
        async with served(stream) as port, anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(wait, port)
            await until(stream, 40)
            flood = await silent(port, 100, stack)
            with anyio.fail_after(10):
                await anyio.wait_readable(flood[0])
            assert flood[0].recv(1) == b""
            assert stream.waiting == 40
            stream.stored.set()
    assert answers == [200] * 40


async def test_a_thousand_that_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask and do not read: the oldest are closed, nobody waits for them, and whoever comes next is answered."""
    monkeypatch.setattr(http, "MOST_CLIENTS", 200)
    monkeypatch.setattr(control, "GONE_SECONDS", 0.2)
    stream = Stream()
    with ExitStack() as stack:
        async with served(stream) as port:
            for _ in range(10):  # fewer at once than may wait to be accepted
                await silent(port, 100, stack, ASKS)
            await until(stream, 200)
            stream.stored.set()
            await until(stream, 0)
            assert (await post(port))[0] == 200
