"""Verifies streams: reads every segment, checks its digest, that it continues the previous one, and what changed in its pages.

Pages are kept in an unnamed file, which takes as much room as the pages that a stream has written.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import DamagedSegment, UnsupportedSegment
from sidecar.host import local_errors
from sidecar.model import Bytes
from sidecar.repository.format.increment import Segment, first_prev
from sidecar.repository.history import SegmentInfo, StreamInfo
from sidecar.repository.increments import Increments, segment_in
from sidecar.restore.fetching import Fetched, use_in_order


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


async def verify_streams(increments: Increments, database: str, directory: Path) -> tuple[VerifiedStream, ...]:
    """Verify all streams of a database, oldest first. Raises `NoRoom` if the directory has too little of it."""
    streams = await increments.streams(database)
    return tuple([await verify_stream(increments, database, stream, directory) for stream in streams])


async def verify_stream(increments: Increments, database: str, stream: StreamInfo, directory: Path) -> VerifiedStream:
    """Verify all segments of a stream. Expired ones at its beginning do not count as missing."""
    infos = await increments.segments(database, stream.name)

    async def fetch(info: SegmentInfo) -> Bytes:
        return (await increments.store.get(info.key)).data

    with local_errors(directory), tempfile.TemporaryFile(dir=directory) as file:
        examination = _Examination(stream.name, _Pages(file.fileno()))
        await use_in_order(infos, fetch, examination.take)
    return VerifiedStream(database, stream.name, len(infos), tuple(examination.problems))


class _Examination:
    """Takes the segments of a stream in order and collects what is wrong with them. Used by one thread at a time."""

    def __init__(self, stream: str, pages: "_Pages") -> None:
        self.problems: list[str] = []
        self._stream = stream
        self._pages = pages
        self._before: _Read | None = None

    def take(self, fetched: list[Fetched]) -> bool:
        """Look at these segments; True, because all of them are wanted. Raises OSError."""
        for info, data in fetched:
            each = self._look(info, data)
            self.problems += _problems(self._stream, self._before, each)
            self._before = each
        return True

    def _look(self, info: SegmentInfo, data: Bytes | None) -> _Read:
        try:
            segment = segment_in(data, info)
        except (DamagedSegment, UnsupportedSegment) as error:
            self._pages.forget()
            return _Read(info, problem=error.message)
        header, before = segment.header, self._before
        if header.prev != (before.digest if before else first_prev(header.stream)):
            self._pages.forget()  # the ones before have expired, or are missing
        unfinished, problem = segment.records[-1].continued, self._pages.apply(segment)
        return _Read(info, segment.digest, header.prev, unfinished, problem)


class _Pages:
    """The last images of a stream's pages, in a file. `complete`: nothing is missing from the beginning of the stream on."""

    def __init__(self, file: int) -> None:
        self.complete = True
        self._file = file
        self._known: set[int] = set()
        self._size = 0

    def forget(self) -> None:
        """Note that something is missing."""
        self.complete = False
        self._known.clear()

    def apply(self, segment: Segment) -> str:
        """Apply a segment, as far as what precedes it is known. What is wrong with it, or an empty string. Raises OSError."""
        self._size, problem = segment.header.page_size, ""
        for record in segment.records:
            images = record.images
            if self.complete or record.differences.keys() <= self._known:
                try:
                    images = record.commit(self._image).images
                except DamagedSegment as damage:
                    self.complete, problem = False, problem or damage.message
            self._known -= record.differences.keys()
            for page, image in images.items():
                os.pwrite(self._file, image, (page - 1) * self._size)
            self._known |= images.keys()
        return problem

    def _image(self, page: int) -> Bytes | None:
        return os.pread(self._file, self._size, (page - 1) * self._size) if page in self._known else None


def _problems(stream: str, before: _Read | None, each: _Read) -> Iterator[str]:
    """What is wrong with a segment and with its place after the one before."""
    if before and each.info.first > before.info.last + 1:
        yield f"commits {before.info.last + 1} to {each.info.first - 1} of stream {stream} are missing"
    if each.problem:
        yield each.problem
    elif before and before.digest and each.info.first < before.info.last + (not before.unfinished):
        yield f"segment {each.info.key} has commits that are also in {before.info.key}"
    elif each.prev != _expected(stream, before, each):
        yield f"segment {each.info.key} does not continue the previous one"


def _expected(stream: str, before: _Read | None, each: _Read) -> str:
    """The digest that a segment must name; its own claim if the previous one cannot be read or is missing."""
    if before is None:
        return first_prev(stream) if each.info.first == 1 else each.prev
    follows = each.info.first == before.info.last + (not before.unfinished)
    return before.digest if follows and before.digest else each.prev
