"""What is written, cut into numbered parts of an object, between those that the store copies."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from anyio.streams.memory import MemoryObjectSendStream

from sidecar.domain import ObjectInfo, Span
from sidecar.errors import ReuseFailed


@dataclass(frozen=True, slots=True)
class FreshPart:
    """A part that is uploaded: its number from 1, its place in the object, its bytes."""

    number: int
    offset: int
    data: bytes


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
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._number = 0
        self._offset = 0
        self.uploaded = 0
        self.reused = 0

    async def write(self, data: bytes) -> None:
        """Append bytes to be uploaded."""
        self._pieces.append(data)
        self._held += len(data)
        while self._held >= self._sizes.part + self._sizes.reserve:
            await self._emit(self._sizes.part)

    async def copy(self, source: ObjectInfo, span: Span) -> None:
        """Append bytes of another object. Raises `ReuseFailed` when what was written before is too small for a part."""
        if 0 < self._held < self._sizes.reserve:
            raise ReuseFailed(f"only {self._held} bytes to upload between two copies")
        await self._flush()
        size = (span.end or source.size) - span.start
        self._number += 1
        offset, self._offset, self.reused = self._offset, self._offset + size, self.reused + size
        await self._send.send(CopiedPart(self._number, offset, source, span))

    async def end(self) -> None:
        """The object ends here."""
        await self._flush()

    async def _flush(self) -> None:
        """Send everything held; only the object's last part may be small."""
        while self._held > self._sizes.part + self._sizes.reserve:
            await self._emit(self._sizes.part)
        if self._held:
            await self._emit(self._held)

    async def _emit(self, size: int) -> None:
        data = b"".join(self._take(size))
        self._number += 1
        offset, self._offset, self.uploaded = self._offset, self._offset + size, self.uploaded + size
        await self._send.send(FreshPart(self._number, offset, data))

    def _take(self, size: int) -> Iterator[bytes]:
        """The first `size` bytes held, which are held no longer."""
        self._held -= size
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            size -= len(piece)
            yield piece
