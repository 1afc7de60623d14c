"""Verifies streams: reads every segment, checks its digest, and checks that it continues the previous one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.concurrency import gathered
from sidecar.errors import DamagedSegment, UnsupportedSegment
from sidecar.repository.format.increment import first_prev
from sidecar.repository.history import SegmentInfo, StreamInfo
from sidecar.repository.increments import Increments

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class VerifiedStream:
    """A stream, how many of its segments were read, and one line for each that is damaged or missing."""

    database: str
    name: str
    segments: int
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether all segments can be restored."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Read:
    info: SegmentInfo
    digest: str = ""
    prev: str = ""
    unfinished: bool = False  # its last transaction continues in the next segment
    problem: str = ""


async def verify_streams(increments: Increments, database: str) -> tuple[VerifiedStream, ...]:
    """Verify all streams of a database, oldest first."""
    streams = await increments.streams(database)
    return tuple([await verify_stream(increments, database, stream) for stream in streams])


async def verify_stream(increments: Increments, database: str, stream: StreamInfo) -> VerifiedStream:
    """Verify all segments of a stream. Expired ones at its beginning do not count as missing."""
    infos = await increments.segments(database, stream.name)

    async def read(info: SegmentInfo) -> _Read:
        try:
            segment = await increments.read(info)
        except (DamagedSegment, UnsupportedSegment) as error:
            return _Read(info, problem=error.message)
        return _Read(info, segment.digest, segment.header.prev, segment.records[-1].continued)

    results = await gathered(infos, read, at_once=AT_ONCE)
    return VerifiedStream(database, stream.name, len(infos), tuple(_problems(stream.name, results)))


def _problems(stream: str, results: Iterable[_Read]) -> Iterator[str]:
    before: _Read | None = None
    for each in results:
        if before and each.info.first > before.info.last + 1:
            yield f"commits {before.info.last + 1} to {each.info.first - 1} of stream {stream} are missing"
        if each.problem:
            yield each.problem
        elif before and before.digest and each.info.first < before.info.last + (not before.unfinished):
            yield f"segment {each.info.key} has commits that are also in {before.info.key}"
        elif each.prev != _expected(stream, before, each):
            yield f"segment {each.info.key} does not continue the previous one"
        before = each


def _expected(stream: str, before: _Read | None, each: _Read) -> str:
    """The digest that a segment must name; its own claim if the previous one cannot be read or is missing."""
    if before is None:
        return first_prev(stream) if each.info.first == 1 else each.prev
    follows = each.info.first == before.info.last + (not before.unfinished)
    return before.digest if follows and before.digest else each.prev
