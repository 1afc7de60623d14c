"""Faults between a client and a server, as values, and their effect on a body that passes through."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["request", "reply"]

_LOCKED = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"


@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing goes wrong."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Close the connection at once; the request never reaches the server."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Pass `after_bytes` of a body, nothing for `seconds`, then the rest.

    With 0 bytes the head is held back as well. Without a `direction`, it is the request's body if there is one, or else
    the reply's. A shorter body stalls at its end. The stall ends early when `released` is set.
    """

    seconds: float
    after_bytes: int = 0
    direction: Direction | None = None
    released: Event | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ResetMidBody:
    """Pass `after_bytes` of a body (which one: see Stall), then reset both connections (RST)."""

    after_bytes: int = 0
    direction: Direction | None = None


@dataclass(frozen=True, slots=True)
class CloseMidBody:
    """Pass the head of a request and `after_bytes` of its body, then close both connections normally.

    A client that is killed looks like this to the server.
    """

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Throttle:
    """Pass the bodies of the request and of the reply, each at this rate."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Reply in place of the server; the request never reaches it."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TruncateReply:
    """Let the server reply, pass the head and `after_bytes` of the body, then close normally."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DropReply:
    """Let the server do its work and reply, then close without passing any of the reply."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Pass the request without these headers (names in lower case), as if the server did not support them.

    If one of them is signed, `authorization` must be removed as well, and the server must accept unsigned requests.
    """

    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StripReply:
    """Pass the reply without these headers (names in lower case)."""

    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insist:
    """Refuse each PUT without `Content-MD5` or `x-amz-checksum-*`, as a bucket with Object Lock does.

    Copied parts have no body; with `copies` they are refused as well. `message` is that of the reply.
    """

    copies: bool = False
    message: str = _LOCKED

    def answer(self, method: str, headers: dict[str, str]) -> Answer | None:
        """The refusal, or None if the request passes."""
        if method != "PUT" or has_checksum(headers) or ("x-amz-copy-source" in headers and not self.copies):
            return None
        return s3_error(400, "InvalidRequest", self.message)


@dataclass(frozen=True, slots=True)
class RefuseTags:
    """Refuse each PUT of an object with tags, with this reply, as stores without tags do."""

    refusal: Answer

    def answer(self, method: str, headers: dict[str, str]) -> Answer | None:
        """The refusal, or None if the request passes."""
        return self.refusal if method == "PUT" and "x-amz-tagging" in headers else None


@dataclass(frozen=True, slots=True)
class Compress:
    """Pass the reply compressed and chunked, like a proxy that adds `Content-Encoding`, with an ETag like nginx's.

    `declared` is the encoding that the header names; the bytes are gzip's.
    """

    declared: str = "gzip"


Fault: TypeAlias = (
    Pass
    | Refuse
    | Stall
    | ResetMidBody
    | CloseMidBody
    | Throttle
    | Answer
    | TruncateReply
    | DropReply
    | Strip
    | StripReply
    | Insist
    | RefuseTags
    | Compress
)


def has_checksum(headers: dict[str, str]) -> bool:
    """Whether a request has a checksum of its content, as a header or announced as a trailer."""
    names = {*headers, *headers.get("x-amz-trailer", "").split(",")}
    return any(name == "content-md5" or name.startswith("x-amz-checksum-") for name in names)


def s3_error(status: int, code: str, message: str = "said by the proxy") -> Answer:
    """An S3 error document, such as s3_error(500, "InternalError")."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, body, (("Content-Type", "application/xml"),))


SLOW_DOWN = s3_error(503, "SlowDown", "Please reduce your request rate.")


class Cut(Exception):
    """End the exchange here, with a reset or normally."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


def aim(fault: Fault, *, has_body: bool) -> Fault:
    """The fault with its direction decided."""
    if isinstance(fault, Stall | ResetMidBody) and fault.direction is None:
        return replace(fault, direction="request" if has_body else "reply")
    return fault


async def hold_head(fault: Fault, direction: Direction, gone: Callable[[], bool]) -> None:
    """Wait for the part of a stall that comes before the head."""
    if isinstance(fault, Stall) and fault.direction == direction and fault.after_bytes == 0:
        await _stall(fault, gone)


async def shape(
    pieces: AsyncIterator[bytes], fault: Fault, direction: Direction, gone: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """A body with the fault applied. Raises Cut; `gone` tells whether the receiver has left."""
    if isinstance(fault, Throttle):
        pieces = _slowly(pieces, fault.bytes_per_second)
    limit = _limit(fault, direction)
    passed = 0
    async for piece in pieces:
        if limit is not None and passed + len(piece) > limit:
            before, piece = piece[: limit - passed], piece[limit - passed :]
            if before:
                yield before
            limit = None
            await _act(fault, gone)
        passed += len(piece)
        yield piece
    if limit is not None:
        await _act(fault, gone)


def _limit(fault: Fault, direction: Direction) -> int | None:
    """The number of bytes of this body after which the fault occurs; None for never."""
    match fault:
        case Stall(_, after_bytes, aimed) if aimed == direction and after_bytes > 0:
            return after_bytes
        case ResetMidBody(after_bytes, aimed) if aimed == direction:
            return after_bytes
        case CloseMidBody(after_bytes) if direction == "request":
            return after_bytes
        case TruncateReply(after_bytes) if direction == "reply":
            return after_bytes
    return None


async def _act(fault: Fault, gone: Callable[[], bool]) -> None:
    if isinstance(fault, Stall):
        await _stall(fault, gone)
    else:
        raise Cut(reset=isinstance(fault, ResetMidBody))


async def _stall(fault: Stall, gone: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + fault.seconds
    while (left := until - loop.time()) > 0 and not (fault.released and fault.released.is_set()):
        await asyncio.sleep(min(left, 0.05))
        if gone():
            raise Cut(reset=False)


async def _slowly(pieces: AsyncIterator[bytes], rate: float) -> AsyncIterator[bytes]:
    step = max(1, int(rate / 20))
    async for piece in pieces:
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            await asyncio.sleep(len(part) / rate)
            yield part
