"""A store that is far away: a proxy that adds 30 ms to each request, and passes 25 MB/s each way on each connection.

    python tests/benchmarks/far_store.py PORT UPSTREAM_PORT

It is a process of its own, so that it shares no interpreter with who measures; it takes processor time on the same machine.
Requests pass unchanged, including Host, so signatures stay valid.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from tests.benchmarks.measure import start
from tests.harness.environment import ROOT, clean_environment
from tests.harness.eventually import eventually
from tests.harness.http1 import Head, read_body, read_head, reply_framing, request_framing
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.processes import Child

DELAY = 0.03
RATE = 25_000_000

_SHORTEST = 0.005  # seconds: sleeping for less is not worth its processor time
_LATEST = 0.1  # seconds that are made up for: as much as the buffers of such a connection hold on the way
_BUFFER = 1 << 18


class FarStore:
    """The proxy in front of a server on this machine. A context manager."""

    def __init__(self, directory: Path, upstream_port: int) -> None:
        self._directory, self._upstream_port = directory, upstream_port
        self._port = free_port()
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        """The URL that clients use instead of the server's."""
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True)
        argv = (sys.executable, "-m", "tests.benchmarks.far_store", str(self._port), str(self._upstream_port))
        env = clean_environment(self._directory) | {"PYTHONPATH": str(ROOT)}
        self._child = start(argv, env, self._directory / "log")
        eventually(self._listens, 30.0, "the proxy listens")
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._child.kill()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self._port)):
            return True
        return False


class _Pace:
    """One direction of one connection."""

    def __init__(self) -> None:
        self._due = 0.0

    async def passed(self, count: int) -> None:
        """Wait until so many more bytes are through at the rate. Who is woken late makes up for it."""
        now = time.monotonic()
        self._due = max(self._due, now - _LATEST) + count / RATE
        if self._due - now >= _SHORTEST:
            await asyncio.sleep(self._due - now)


async def _serve(port: int, upstream_port: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream = await asyncio.open_connection(LOOPBACK, upstream_port, limit=_BUFFER)
            try:
                await _pass(reader, writer, *upstream)
            finally:
                upstream[1].close()
        writer.close()

    server = await asyncio.start_server(accept, LOOPBACK, port, limit=_BUFFER)
    await server.serve_forever()


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    """All requests of one connection, each to the server over a connection that only it uses."""
    up, down = _Pace(), _Pace()
    while request := await read_head(reader):
        await asyncio.sleep(DELAY)
        upstream_writer.write(request.raw)
        sending = asyncio.create_task(_copy(read_body(reader, request_framing(request)), upstream_writer, up))
        try:
            reply = await _final(upstream_reader, writer)
            if reply is None:
                return
            writer.write(reply.raw)
            framing = reply_framing(reply, request.method)
            await _copy(read_body(upstream_reader, framing), writer, down)
            await sending
        finally:
            sending.cancel()
        if request.closes or reply.closes or framing == "close":
            return


async def _final(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Head | None:
    """The head of the final reply; `100 Continue` is passed on at once."""
    while (head := await read_head(reader)) and head.status < 200:
        writer.write(head.raw)
    return head


async def _copy(pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter, pace: _Pace) -> None:
    async for piece in pieces:
        await pace.passed(len(piece))
        writer.write(piece)
        await writer.drain()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(*map(int, sys.argv[1:])))
