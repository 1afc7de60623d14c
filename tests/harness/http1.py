"""The part of HTTP/1.1 that a proxy needs: finding the end of a message. Bytes are passed on unchanged."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

PIECE = 64 * 1024

# How a body is delimited: by its length, by chunks, or by the end of the connection (replies only).
Framing: TypeAlias = int | Literal["chunked", "close"]


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers (names in lower case), and their original bytes."""

    raw: bytes
    first: str
    headers: dict[str, str]

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.first.split(" ")[0]

    @property
    def target(self) -> str:
        """Path and query of a request, as sent."""
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        """The status of a reply."""
        return int(self.first.split(" ")[1])

    def without(self, names: tuple[str, ...]) -> "Head":
        """The same head without these headers."""
        first, *lines = self.raw.split(b"\r\n")
        kept = [line for line in lines if line.split(b":")[0].decode("latin-1").strip().lower() not in names]
        headers = {name: value for name, value in self.headers.items() if name not in names}
        return Head(b"\r\n".join([first, *kept]), self.first, headers)

    @property
    def expects_continue(self) -> bool:
        """True if the client waits for `100 Continue` before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        """True if the connection ends with this message."""
        return self.headers.get("connection", "").lower() == "close" or "HTTP/1.0" in self.first


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head, or None if the connection ends instead."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, first, {name.strip().lower(): value.strip() for name, _, value in pairs})


def request_framing(head: Head) -> Framing:
    """How the body of a request is delimited; 0 means none."""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return "chunked"
    return int(head.headers.get("content-length", "0"))


def reply_framing(head: Head, method: str) -> Framing:
    """How the body of a reply to `method` is delimited; HEAD, 1xx, 204 and 304 have none."""
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return 0
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return "chunked"
    return int(head.headers["content-length"]) if "content-length" in head.headers else "close"


async def read_body(reader: asyncio.StreamReader, framing: Framing) -> AsyncIterator[bytes]:
    """The raw bytes of a body, chunk sizes included, as they arrive. IncompleteReadError if it ends too early."""
    if framing == "chunked":
        async for piece in _chunks(reader):
            yield piece
    elif framing == "close":
        while piece := await reader.read(PIECE):
            yield piece
    else:
        async for piece in _exactly(reader, framing):
            yield piece


async def _exactly(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length > 0:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        async for piece in _exactly(reader, size + 2):
            yield piece
    while line != b"\r\n":  # trailers, and the empty line that ends them
        line = await reader.readuntil(b"\r\n")
        yield line
