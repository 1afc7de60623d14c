"""One request through the proxy, with one fault."""

import asyncio
import contextlib
import gzip
import re
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from tests.harness.faults import (
    Answer,
    Compress,
    Cut,
    DropReply,
    Fault,
    Pass,
    Refuse,
    Strip,
    StripReply,
    aim,
    hold_head,
    shape,
)
from tests.harness.http1 import Head, read_body, read_head, reply_framing, request_framing


@dataclass(slots=True)
class Seen:
    """A request that the proxy saw. `status` is the reply of the server or of the proxy, once there is one."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    fault: Fault = field(default_factory=Pass)
    status: int | None = None

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query without the question mark."""
        return self.target.partition("?")[2]

    @property
    def outcome(self) -> str:
        """The name of the fault, else the status, else `pending`."""
        return type(self.fault).__name__ if self.fault != Pass() else str(self.status or "pending")


class Wire:
    """Both halves of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def gone(self) -> bool:
        """True once the peer has closed or reset the connection."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    async def send(self, data: bytes) -> None:
        """Write, waiting while the peer does not read."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST: data in transit to the peer is lost."""
        connection = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection normally."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Exchange:
    """Passes one request to the server and its reply back."""

    def __init__(self, client: Wire, upstream: tuple[str, int], request: Head, seen: Seen) -> None:
        self._client = client
        self._upstream = upstream
        self._request = request.without(seen.fault.headers) if isinstance(seen.fault, Strip) else request
        self._seen = seen
        self._framing = request_framing(request)
        self._fault = aim(seen.fault, has_body=self._framing != 0)

    async def run(self) -> bool:
        """Pass one request; True if the client's connection can take another. OSError or IncompleteReadError if a peer left."""
        if isinstance(self._fault, Refuse):
            return False
        if isinstance(self._fault, Answer):
            return await self._answer(self._fault)
        try:
            await hold_head(self._fault, "request", self._client.gone)
        except Cut:  # the client did not wait
            return False
        server = Wire(*await asyncio.open_connection(*self._upstream))
        try:
            return await self._forward(server)
        except Cut as cut:
            if cut.reset:
                server.reset()
                self._client.reset()
            return False
        finally:
            await server.close()

    async def _answer(self, answer: Answer) -> bool:
        keep = not self._request.expects_continue and not self._request.closes
        if keep:
            async for _ in read_body(self._client.reader, self._framing):
                pass
        self._seen.status = answer.status
        await self._client.send(_reply(answer, self._request.method, keep=keep))
        return keep

    async def _forward(self, server: Wire) -> bool:
        """Pass both directions at once: a server may reply before it has read the whole request."""
        sending = asyncio.create_task(self._send_request(server))
        replying = asyncio.create_task(self._pass_reply(server))
        try:
            await asyncio.wait({sending, replying}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
            keep = await replying
            sent, _ = await asyncio.wait({sending}, timeout=1.0)
            return keep and bool(sent) and await sending
        finally:
            sending.cancel()
            replying.cancel()
            await asyncio.gather(sending, replying, return_exceptions=True)

    async def _send_request(self, server: Wire) -> bool:
        """Pass the request's body; False if the server stopped reading before the end."""
        whole = await _deliver(server, self._request.raw)
        async for piece in self._shaped_request():
            whole = whole and await _deliver(server, piece)
        return whole

    def _shaped_request(self) -> AsyncIterator[bytes]:
        return shape(read_body(self._client.reader, self._framing), self._fault, "request", self._client.gone)

    async def _pass_reply(self, server: Wire) -> bool:
        """Pass interim and final reply; False if the connection ends with it."""
        head = await self._final_head(server)
        if head is None:
            return False
        framing = reply_framing(head, self._request.method)
        body = read_body(server.reader, framing)
        if isinstance(self._fault, DropReply):
            async for _ in body:
                pass
            self._seen.status = head.status
            return False
        await hold_head(self._fault, "reply", self._client.gone)
        self._seen.status = head.status  # before the client gets it: a test may check at once
        if isinstance(self._fault, Compress) and framing:
            return await self._pass_compressed(head, body, self._fault)
        if isinstance(self._fault, StripReply):
            head = head.without(self._fault.headers)
        await self._client.send(head.raw)
        async for piece in shape(body, self._fault, "reply", self._client.gone):
            await self._client.send(piece)
        return not (head.closes or self._request.closes or framing == "close")

    async def _pass_compressed(self, head: Head, body: AsyncIterator[bytes], fault: Compress) -> bool:
        """Pass the whole body at once, because the replies are small, and close the connection, which ends the body."""
        packed = gzip.compress(b"".join([piece async for piece in body]))
        changed = head.without(("content-length", "transfer-encoding", "connection")).raw.rstrip(b"\r\n")
        changed = re.sub(rb'(?i)^(etag: )"', rb'\1W/"', changed, flags=re.MULTILINE)
        added = f"\r\nContent-Encoding: {fault.declared}\r\nConnection: close\r\n\r\n"
        await self._client.send(changed + added.encode() + packed)
        return False

    async def _final_head(self, server: Wire) -> Head | None:
        """Return the head of the final reply; `100 Continue` is passed on at once."""
        while (head := await read_head(server.reader)) and head.status < 200:
            await self._client.send(head.raw)
        return head


async def _deliver(server: Wire, data: bytes) -> bool:
    try:
        await server.send(data)
    except ConnectionError:
        return False
    return True


def _reply(answer: Answer, method: str, *, keep: bool) -> bytes:
    body = answer.body.encode()
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Length": str(len(body)),
        "Connection": "keep-alive" if keep else "close",
        **dict(answer.headers),
    }
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if method == "HEAD" else body)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
