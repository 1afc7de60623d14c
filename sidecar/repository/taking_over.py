"""Which chunks of a live database must be read for the next restore point, if the store copies the others from a parent. Pure.

A chunk keeps its digest unread only if the store copies its frame: what is uploaded was read, and what was read is hashed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sidecar.errors import ReuseFailed
from sidecar.model import Position
from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE, Index
from sidecar.repository.reuse import ChunkRun, NewChunks, Parent, PartLimits, plan_reuse

_UNKNOWN = bytes(DIGEST_SIZE)  # no chunk has it: of a chunk that is yet to be read


def must_read(before: int, now: int, wrote: Callable[[int], bool], part: int = CHUNK_SIZE) -> list[int]:
    """The parts of a database of `now` bytes that may differ from those of one of `before` bytes, from which it came.

    `wrote` says of a part whether a commit in between wrote there. The first and the last one are always read: the first
    has what all depends on, and the last one may end elsewhere.
    """
    count = -(-now // part)

    def is_unknown(number: int) -> bool:
        start = number * part
        return number in {0, count - 1} or min(part, before - start) != min(part, now - start) or wrote(number)

    return [number for number in range(count) if is_unknown(number)]


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A restore point for which only the chunks in `read` are read; the store copies the others from `parent`, as in `runs`."""

    parent: Parent
    size: int
    runs: tuple[ChunkRun, ...]
    read: frozenset[int]

    @property
    def chunks(self) -> int:
        """How many chunks the database has."""
        return -(-self.size // CHUNK_SIZE)

    @property
    def untouched(self) -> list[int]:
        """The chunks that are not read."""
        return [number for number in range(self.chunks) if number not in self.read]

    def digests(self, read: Mapping[int, bytes]) -> bytes:
        """The digests of all chunks, with those of the chunks that were `read`."""
        index = self.parent.contents.index
        return b"".join(read[each] if each in self.read else index.digest(each) for each in range(self.chunks))

    def require_same_stream(self, position: Position | None) -> None:
        """Raise `ReuseFailed` unless a copy is of a place in the stream that the parent is in, at or after it."""
        before = self.parent.contents.index.position
        if before is None or position is None or position.stream != before.stream or position.commit < before.commit:
            raise ReuseFailed("the stream was cut while the database was read")

    def runs_of(self, index: Index, limits: PartLimits) -> list[ChunkRun]:
        """The plan with the digests of what was read, some of which may be those of the parent; it uploads no more than that."""
        runs = plan_reuse(index, self.parent.contents, limits)
        return runs if uploaded(runs) <= self.read else list(self.runs)


def take_over(
    parent: Parent, size: int, page_size: int, wrote: Callable[[int], bool], limits: PartLimits
) -> TakeOver | None:
    """Plan a restore point of a database of `size` bytes. None if everything is to be read.

    `wrote` says of a chunk whether a commit after the parent's wrote there.
    """
    before = parent.contents.index
    if before.page_size != page_size:
        return None
    unknown = frozenset(must_read(before.database_size, size, wrote))
    chunks = range(-(-size // CHUNK_SIZE))
    digests = b"".join(_UNKNOWN if each in unknown else before.digest(each) for each in chunks)
    runs = plan_reuse(Index("", "", page_size, size, digests), parent.contents, limits)
    read = uploaded(runs)
    return TakeOver(parent, size, tuple(runs), read) if len(read) < len(chunks) else None


def require_read(read: frozenset[int] | None, runs: Iterable[ChunkRun]) -> None:
    """Raise RuntimeError if a chunk is to be uploaded that the copy does not have; None: it has all."""
    if read is not None and (missing := uploaded(runs) - read):
        raise RuntimeError(f"chunk {min(missing)} would be uploaded without having been read")


def uploaded(runs: Iterable[ChunkRun]) -> frozenset[int]:
    """The chunks whose frames are uploaded."""
    return frozenset(number for run in runs if isinstance(run, NewChunks) for number in run.chunks)
