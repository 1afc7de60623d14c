"""What is written, cut into numbered parts of an object, between those that the store copies."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from anyio.streams.memory import MemoryObjectSendStream

from sidecar.concurrency import Pool
from sidecar.errors import ReuseFailed
from sidecar.model import ObjectInfo, Span


@dataclass(frozen=True, slots=True)
class FreshPart:
    """A part that is uploaded: its number from 1, its place in the object, its bytes.

    `release` is called by who has sent it, and only then: the memory is used for another part.
    """

    number: int
    offset: int
    data: memoryview
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class CopiedPart:
    """A part that the store copies from another object."""

    number: int
    offset: int
    source: ObjectInfo
    span: Span


Part = FreshPart | CopiedPart


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Bytes of an uploaded part, and how many to hold back so that the last one before a copy is not too small."""

    part: int
    reserve: int = 0


class Assembly:
    """Cuts what is written into numbered parts, between those that the store copies; holds little more than one."""

    def __init__(self, send: MemoryObjectSendStream[Part], sizes: PartSizes) -> None:
        self._send = send
        self._sizes = sizes
        self._room = sizes.part + sizes.reserve
        self._spares = Pool(partial(bytearray, self._room))
        self._buffer = self._spares.take()
        self._held = 0
        self._number = 0
        self._offset = 0
        self.uploaded = 0
        self.reused = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Append bytes to be uploaded; they are copied."""
        rest = memoryview(data)
        while rest:
            count = min(len(rest), self._room - self._held)
            memoryview(self._buffer)[self._held : self._held + count] = rest[:count]
            self._held, rest = self._held + count, rest[count:]
            if self._held == self._room:
                await self._emit(self._sizes.part)

    async def copy(self, source: ObjectInfo, span: Span) -> None:
        """Append bytes of another object. Raises `ReuseFailed` when what was written before is too small for a part."""
        if 0 < self._held < self._sizes.reserve:
            raise ReuseFailed(f"only {self._held} bytes to upload between two copies")
        await self.end()
        size = (span.end or source.size) - span.start
        self._number += 1
        offset, self._offset, self.reused = self._offset, self._offset + size, self.reused + size
        await self._send.send(CopiedPart(self._number, offset, source, span))

    async def end(self) -> None:
        """The object, or what is uploaded of it before a copy, ends here. Only the object's last part may be small."""
        if self._held:
            await self._emit(self._held)

    async def _emit(self, size: int) -> None:
        """Send the first bytes held; what is held beyond them goes on in another buffer."""
        full, left = self._buffer, self._held - size
        self._buffer, self._held = self._spares.take(), left
        memoryview(self._buffer)[:left] = memoryview(full)[size : size + left]
        self._number += 1
        offset, self._offset, self.uploaded = self._offset, self._offset + size, self.uploaded + size
        release = partial(self._spares.give, full)
        await self._send.send(FreshPart(self._number, offset, memoryview(full)[:size], release))
