"""Bodies of S3 requests and replies, sent and received without a copy of all bytes."""

import io
from typing import Any

from aiobotocore.httpchecksum import StreamingChecksumBody

from sidecar.model import Bytes

PIECE = 128 << 10
LARGEST_UNANNOUNCED = 64 << 20  # of a body of unknown length


class Body(io.BytesIO):
    """Bytes that the SDK hashes and aiohttp sends in small pieces, without a copy of all of them.

    It derives from BytesIO only so that both treat it as one; the bytes are not copied into it. If it were plain bytes,
    asyncio would copy them again; and each piece of one MiB, as the SDK requests, would be newly allocated memory.
    """

    def __init__(self, data: Bytes) -> None:
        super().__init__()
        self._data = memoryview(data)
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """The rest, or `size` bytes of it, but at most `PIECE`."""
        wanted = len(self._data) if size is None or size < 0 else min(size, PIECE)
        piece = bytes(self._data[self._at : self._at + wanted])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.BytesIO`."""
        self._at = max(0, offset + (0, self._at, len(self._data))[whence])
        return self._at

    def tell(self) -> int:
        """See `io.BytesIO`."""
        return self._at

    def getbuffer(self) -> memoryview:
        """See `io.BytesIO`."""
        return memoryview(self._data)


async def read_body(body: Any, length: int | None, into: memoryview | None) -> Bytes:
    """The whole body in one buffer. The SDK's own `read` would hold it twice, and its iterator yields 1 KiB at a time.

    Without a `length`, because a proxy changed how the body is sent, it ends with the chunks or the connection.
    """
    if length is None or isinstance(body, StreamingChecksumBody):  # the SDK verifies the latter as it is read
        return _placed(await _read_small(body), length, into)
    data: Bytes = bytearray(length) if into is None or length > len(into) else into[:length]
    room = memoryview(data)  # assigning to a slice of a bytearray would copy the block again
    filled = 0
    async for block in body.content.iter_any():
        if filled + len(block) > length:
            break
        room[filled : filled + len(block)] = block
        filled += len(block)
    if filled != length:
        raise ConnectionError(f"the reply's body has {filled} bytes, {length} were announced")
    return data


async def _read_small(body: Any) -> bytes:
    if isinstance(body, StreamingChecksumBody):
        return bytes(await body.read())
    data = b""
    async for block in body.content.iter_any():
        data += block
        if len(data) > LARGEST_UNANNOUNCED:
            raise ConnectionError(
                f"the reply's body has more than {LARGEST_UNANNOUNCED} bytes, and does not say how many"
            )
    return data


def _placed(data: bytes, length: int | None, into: memoryview | None) -> Bytes:
    if length is not None and len(data) != length:
        raise ConnectionError(f"the reply's body has {len(data)} bytes, {length} were announced")
    if into is None or len(data) > len(into):
        return data
    into[: len(data)] = data
    return into[: len(data)]
