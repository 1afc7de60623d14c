"""The HTTP server is loaded with its first client or when the app runs, never before, and its failure ends nothing else."""

import resource
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web

from sidecar.daemon.server import Server
from sidecar.daemon.sockets import listen, listen_privately
from sidecar.errors import ConfigurationError
from sidecar.host import SystemClock
from sidecar.monitoring import http
from sidecar.monitoring.http import FEWEST_CLIENTS, MOST_CLIENTS, most_clients, serving
from sidecar.status import Status
from tests.harness.ports import LOOPBACK, free_port

pytestmark = pytest.mark.anyio
Sockets = Sequence[socket.socket]


def status_of_nothing() -> Status:
    return Status((), "file:///x", "0", SystemClock().now)


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def load(public: Sockets, private: Sockets) -> AbstractAsyncContextManager[None]:
    application = web.Application()
    application.router.add_get("/", hello)
    return serving([(application, [*public, *private])])


async def ask(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{port}/") as reply:
        return await reply.text()


async def test_the_first_client_loads_the_server_and_is_answered() -> None:
    sockets = await listen(LOOPBACK, 0)
    port = sockets[0].getsockname()[1]
    async with Server(load, status_of_nothing()).running(sockets, []):
        assert await ask(port) == "hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port)).close()


async def test_a_client_of_the_control_socket_loads_the_server(tmp_path: Path) -> None:
    path = tmp_path / "private" / "control.sock"
    private = listen_privately(path)
    async with (
        Server(load, status_of_nothing()).running([], [private]),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://x/") as reply,
    ):
        assert await reply.text() == "hello"


async def test_the_server_is_loaded_without_a_client_only_when_the_app_runs() -> None:
    serves, events = anyio.Event(), list[str]()

    def loads(_public: Sockets, _private: Sockets) -> AbstractAsyncContextManager[None]:
        events.append("loaded")
        return announced()

    @asynccontextmanager
    async def announced() -> AsyncIterator[None]:
        serves.set()
        yield

    server = Server(loads, status_of_nothing())
    async with server.running(await listen(LOOPBACK, 0), []):
        await anyio.wait_all_tasks_blocked()
        events.append("app runs")
        await server.load()
        with anyio.fail_after(10):
            await serves.wait()
    assert events == ["app runs", "loaded"]


async def test_a_server_that_cannot_be_loaded_is_told_and_ends_nothing_else() -> None:
    status, told, reported = status_of_nothing(), list[str](), anyio.Event()

    def broken(_public: Sockets, _private: Sockets) -> AbstractAsyncContextManager[None]:
        raise ImportError("no such library")

    def note(event: object) -> None:
        told.append(str(event))
        reported.set()

    status.listener = note
    server = Server(broken, status)
    async with server.running(await listen(LOOPBACK, 0), []):
        await server.load()
        with anyio.fail_after(10):
            await reported.wait()
        await anyio.lowlevel.checkpoint()  # would raise if this block were cancelled
    assert "no such library" in told[0]


@pytest.mark.parametrize(
    ("soft", "most"),
    [(100, FEWEST_CLIENTS), (1024, 256), (1 << 20, MOST_CLIENTS), (resource.RLIM_INFINITY, MOST_CLIENTS)],
)
def test_how_many_clients_there_may_be(monkeypatch: pytest.MonkeyPatch, soft: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, resource.RLIM_INFINITY))
    assert most_clients() == most


async def test_clients_that_say_nothing_do_not_use_up_the_files_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest connections are closed; otherwise nothing could be opened any more, neither the database nor the store."""
    monkeypatch.setattr(http, "MOST_CLIENTS", FEWEST_CLIENTS)
    sockets = await listen(LOOPBACK, 0)
    port = sockets[0].getsockname()[1]
    async with load(sockets, []):
        silent = [socket.create_connection((LOOPBACK, port)) for _ in range(FEWEST_CLIENTS)]
        try:
            assert await ask(port) == "hello"
            with anyio.fail_after(10):
                await anyio.wait_readable(silent[0])
            assert silent[0].recv(1) == b""
        finally:
            for each in silent:
                each.close()


async def test_a_name_is_listened_on_at_all_its_addresses_that_exist_here() -> None:
    sockets = await listen("localhost", 0)
    try:
        assert {each.getsockname()[0] for each in sockets} <= {"127.0.0.1", "::1"}
        assert sockets
    finally:
        for each in sockets:
            each.close()


async def test_an_address_that_a_name_has_twice_is_listened_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where two lines of /etc/hosts name it: a resolver is the one thing that a test cannot have a real one of."""
    port = free_port()
    found = socket.getaddrinfo(LOOPBACK, port, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*found, *found])
    sockets = await listen("app.internal", port)
    for each in sockets:
        each.close()
    assert len(sockets) == 1


async def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(ConfigurationError, match="cannot listen on"):
        await listen(LOOPBACK, taken.getsockname()[1])
