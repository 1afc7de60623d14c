"""A state of a database as pages, and the pages in which two states differ. Pure.

The digests of chunks are known before the chunks are there, so equal ones are never read.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from sidecar.repository.format.index import CHUNK_SIZE

AT_ONCE = 64  # chunks that are fetched before they are compared


class State(Protocol):
    """A database as it was at one moment. `size` is that of its file, in bytes."""

    @property
    def size(self) -> int:
        """The size of the database, in bytes."""
        ...

    @property
    def chunks(self) -> int:
        """The number of its chunks of 1 MiB."""
        ...

    def digest(self, chunk: int) -> bytes:
        """The SHA-256 of a chunk."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, inside one chunk. Raises what its source raises."""
        ...

    def fetch(self, chunks: Iterable[int]) -> None:
        """Have these chunks ready for `read`, many at a time. Without it each one is fetched when it is read."""
        ...


class PageSet:
    """Numbers of pages, in one bit for each page of the database."""

    def __init__(self, pages: int) -> None:
        self._bits = bytearray(pages // 8 + 1)
        self._count = 0

    def add(self, page: int) -> None:
        """Add a page."""
        at, bit = page >> 3, 1 << (page & 7)
        if not self._bits[at] & bit:
            self._bits[at] |= bit
            self._count += 1

    def __contains__(self, page: int) -> bool:
        at = page >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (page & 7) & 1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bits):
            if byte:
                yield from (at << 3 | bit for bit in range(8) if byte >> bit & 1)


def differing_chunks(one: State, other: State) -> list[int]:
    """The chunks that are not the same in both; those beyond the end of one are not."""
    both = min(one.chunks, other.chunks)
    return [
        chunk
        for chunk in range(max(one.chunks, other.chunks))
        if chunk >= both or one.digest(chunk) != other.digest(chunk)
    ]


def differing_pages(
    one: State, other: State, page_size: int, limit: int, tick: Callable[[int, int], None]
) -> PageSet | None:
    """The pages that are not the same in both; None as soon as there are more than `limit`.

    `tick` is called with (chunks compared, chunks to compare), and may raise to end the work.
    """
    found = PageSet(max(one.size, other.size) // page_size + 1)
    chunks = differing_chunks(one, other)
    for start in range(0, len(chunks), AT_ONCE):
        group = chunks[start : start + AT_ONCE]
        one.fetch(chunk for chunk in group if chunk < one.chunks)
        other.fetch(chunk for chunk in group if chunk < other.chunks)
        for done, chunk in enumerate(group, start):
            tick(done, len(chunks))
            _compare_chunk(one, other, chunk, page_size, found)
            if len(found) > limit:
                return None
    return found


def _compare_chunk(one: State, other: State, chunk: int, page_size: int, found: PageSet) -> None:
    left, right = (each.read(chunk * CHUNK_SIZE, CHUNK_SIZE) for each in (one, other))
    first = chunk * (CHUNK_SIZE // page_size) + 1
    for number, at in enumerate(range(0, max(len(left), len(right)), page_size), first):
        if left[at : at + page_size] != right[at : at + page_size]:
            found.add(number)
