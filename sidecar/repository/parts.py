"""Splits an object that is being written into numbered parts, some of which the store copies from another object."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from anyio.streams.memory import MemoryObjectSendStream

from sidecar.concurrency import Pool
from sidecar.errors import ReuseFailed
from sidecar.model import ObjectInfo, Span
from sidecar.repository.reuse import PartLimits
from sidecar.storage import ObjectStore

MARGIN = 1.15  # an object may exceed its database: frames, index and seek table are added to incompressible data


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A part to be uploaded: its number, from 1, its offset in the object, its bytes.

    Call `release` once it was sent, and only then: the memory is reused for another part.
    """

    number: int
    offset: int
    data: memoryview
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class CopyPart:
    """A part that the store copies from another object."""

    number: int
    offset: int
    source: ObjectInfo
    span: Span


Part = UploadPart | CopyPart


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Bytes of an uploaded part, and how many to hold back so that the last part before a copy is not too small."""

    part: int
    reserve: int = 0


def limits_of(store: ObjectStore, database_size: int) -> PartLimits:
    """The store's limits for copies. In very large objects, small copies would use up the allowed number of parts."""
    return PartLimits(max(store.traits.minimum_part, int(database_size * MARGIN) // (store.traits.maximum_parts // 8)))


def part_size_for(store: ObjectStore, part_size: int, database_size: int, *, copies: bool = False) -> int:
    """The part size for an object of about this size: `part_size`, or more if there would be too many parts.

    With `copies`, half of the allowed number is reserved for them.
    """
    parts = store.traits.maximum_parts // 2 if copies else store.traits.maximum_parts
    return max(part_size, store.traits.minimum_part, int(database_size * MARGIN) // parts + 1)


class PartAssembler:
    """Splits written bytes into numbered parts, with copied parts in between. Holds little more than one part."""

    def __init__(self, send: MemoryObjectSendStream[Part], sizes: PartSizes) -> None:
        self._send = send
        self._sizes = sizes
        self._capacity = sizes.part + sizes.reserve
        self._buffers = Pool(partial(bytearray, self._capacity))
        self._buffer = self._buffers.take()
        self._filled = 0
        self._number = 0
        self._offset = 0
        self.uploaded = 0
        self.reused = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Append bytes to be uploaded; `data` can be reused afterwards."""
        rest = memoryview(data)
        while rest:
            count = min(len(rest), self._capacity - self._filled)
            memoryview(self._buffer)[self._filled : self._filled + count] = rest[:count]
            self._filled, rest = self._filled + count, rest[count:]
            if self._filled == self._capacity:
                await self._emit(self._sizes.part)

    async def copy(self, source: ObjectInfo, span: Span) -> None:
        """Append bytes of another object. Raises `ReuseFailed` if the bytes written before are too few for a part."""
        if 0 < self._filled < self._sizes.reserve:
            raise ReuseFailed(f"only {self._filled} bytes to upload between two copies")
        await self.flush()
        size = (span.end or source.size) - span.start
        self._number += 1
        offset, self._offset, self.reused = self._offset, self._offset + size, self.reused + size
        await self._send.send(CopyPart(self._number, offset, source, span))

    async def flush(self) -> None:
        """Send the remaining bytes as a part, at the object's end or before a copy. Only the last part may be small."""
        if self._filled:
            await self._emit(self._filled)

    async def _emit(self, size: int) -> None:
        """Send the first `size` bytes of the buffer; the rest moves to another buffer."""
        full, left = self._buffer, self._filled - size
        self._buffer, self._filled = self._buffers.take(), left
        memoryview(self._buffer)[:left] = memoryview(full)[size : size + left]
        self._number += 1
        offset, self._offset, self.uploaded = self._offset, self._offset + size, self.uploaded + size
        release = partial(self._buffers.give, full)
        await self._send.send(UploadPart(self._number, offset, memoryview(full)[:size], release))
