"""Splits an object that is being written into numbered parts, some of which the store copies from another object."""

import mmap
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from anyio.streams.memory import MemoryObjectSendStream

from sidecar.concurrency import Pool
from sidecar.errors import NotFound, PreconditionFailed, ReuseFailed
from sidecar.model import Bytes, ObjectInfo, Span
from sidecar.repository.reuse import NO_COPIES, PartLimits
from sidecar.storage import ObjectStore, PartCopy

MARGIN = 1.15  # an object may exceed its database: frames, index and seek table are added to incompressible data
WORTH_COPYING = 4  # equal parts: up to two of them are uploaded around each copy, so that it ends where parts do


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
    """Bytes of an uploaded part, and how many to hold back so that the last part before a copy is not too small.

    With `equal`, copied parts have that size as well, and nothing is held back.
    """

    part: int
    reserve: int = 0
    equal: bool = False


def limits_of(store: ObjectStore, part_size: int, database_size: int) -> PartLimits:
    """The store's limits for copies. In very large objects, small copies would use up the allowed number of parts.

    If parts must be equal, a copy is worth its requests only if it is several parts long; `PartAssembler` cuts it.
    """
    if store.traits.part_copy is PartCopy.NO:
        return NO_COPIES
    if store.traits.equal_parts:
        least = WORTH_COPYING * part_size_for(store, part_size, database_size)
        return PartLimits(least, copy_limit=sys.maxsize, any_upload=True)
    return PartLimits(
        max(store.traits.minimum_part, int(database_size * MARGIN) // max(1, store.traits.maximum_parts // 8))
    )


def part_size_for(store: ObjectStore, part_size: int, database_size: int, *, copies: bool = False) -> int:
    """The part size for an object of about this size: `part_size`, or more if there would be too many parts.

    With `copies`, half of the allowed number is reserved for them.
    """
    parts = store.traits.maximum_parts // 2 if copies else store.traits.maximum_parts
    return max(part_size, store.traits.minimum_part, int(database_size * MARGIN) // parts + 1)


def sizes_of(store: ObjectStore, part_size: int, database_size: int, *, copies: bool) -> PartSizes:
    """The sizes of an object's parts; `copies` says whether some of them are copied."""
    if store.traits.equal_parts or not copies:
        return PartSizes(part_size_for(store, part_size, database_size), equal=store.traits.equal_parts)
    reserve = limits_of(store, part_size, database_size).minimum_part
    return PartSizes(part_size_for(store, part_size, database_size, copies=True), reserve)


Fetch = Callable[[ObjectInfo, Span], Awaitable[Bytes]]
"""Reads bytes of an object, of this version only. Raises `ReuseFailed`."""


def fetch_from(store: ObjectStore) -> Fetch:
    """Reads from this store."""

    async def fetch(source: ObjectInfo, span: Span) -> Bytes:
        try:
            data = (await store.get(source.key, span=span, if_match=source.etag)).data
        except (NotFound, PreconditionFailed) as error:
            raise ReuseFailed(f"{source.key} cannot be read from: {error.message}") from error
        if len(data) != (span.end or 0) - span.start:
            raise ReuseFailed(f"{source.key} is shorter than expected")
        return data

    return fetch


def _buffer(size: int) -> mmap.mmap:
    """Memory that costs nothing before it is written to, as most of it never is for a small database."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class PartAssembler:
    """Splits written bytes into numbered parts, with copied parts in between. Holds little more than one part.

    With equal parts, a copy seldom begins and ends where parts do. What is around it is read and uploaded with its
    neighbours: reading is cheap for a machine that sends more than it receives.
    """

    def __init__(self, send: MemoryObjectSendStream[Part], sizes: PartSizes, fetch: Fetch | None = None) -> None:
        """`fetch` is needed for copies among equal parts."""
        self._send = send
        self._fetch = fetch
        self._sizes = sizes
        self._capacity = sizes.part + sizes.reserve
        self._buffers = Pool(partial(_buffer, self._capacity))
        self._buffer: mmap.mmap | None = None
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
            self._buffer = self._buffer or self._buffers.take()
            memoryview(self._buffer)[self._filled : self._filled + count] = rest[:count]
            self._filled, rest = self._filled + count, rest[count:]
            if self._filled == self._capacity:
                await self._emit(self._sizes.part)

    async def copy(self, source: ObjectInfo, span: Span) -> None:
        """Append bytes of another object. Raises `ReuseFailed` if the bytes written before are too few for a part."""
        if self._sizes.equal:
            await self._copy_equal(source, span.start, source.size if span.end is None else span.end)
            return
        if 0 < self._filled < self._sizes.reserve:
            raise ReuseFailed(f"only {self._filled} bytes to upload between two copies")
        await self.flush()
        await self._send_copy(source, span)

    async def _copy_equal(self, source: ObjectInfo, start: int, end: int) -> None:
        """Copy what fills whole parts, at any offset of the source, and write the bytes before and after it."""
        part, lead = self._sizes.part, -self._filled % self._sizes.part
        count = max(0, end - start - lead) // part
        if count:
            await self._write_from(source, start, start + lead)
            start += lead
        for _ in range(count):
            await self._send_copy(source, Span(start, start + part))
            start += part
        await self._write_from(source, start, end)

    async def _write_from(self, source: ObjectInfo, start: int, end: int) -> None:
        """Write bytes of another object, at most a part at once."""
        if self._fetch is None:
            raise ValueError("copies among equal parts need a way to read")
        while start < end:
            stop = min(end, start + self._sizes.part)
            await self.write(memoryview(await self._fetch(source, Span(start, stop))))
            start = stop

    async def _send_copy(self, source: ObjectInfo, span: Span) -> None:
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
        if full is None:
            raise ValueError("nothing was written")
        self._buffer, self._filled = None, left
        if left:
            self._buffer = self._buffers.take()
            memoryview(self._buffer)[:left] = memoryview(full)[size : size + left]
        self._number += 1
        offset, self._offset, self.uploaded = self._offset, self._offset + size, self.uploaded + size
        release = partial(self._buffers.give, full)
        await self._send.send(UploadPart(self._number, offset, memoryview(full)[:size], release))
