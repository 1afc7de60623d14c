"""Streams for tests and benchmarks: segments as the daemon publishes them, without a database behind them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import anyio

from sidecar.model import Commit, IfAbsent, Origin, Timestamp
from sidecar.repository.format.folding import split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, encode, first_prev
from sidecar.repository.keys import StreamName, segment_key_of
from sidecar.storage import ObjectStore
from sidecar.storage.file.layout import path_of

PAGE = 512
SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Made:
    """A segment and its key."""

    key: str
    data: bytes
    commits: tuple[Commit, ...]


@dataclass(slots=True)
class StreamMaker:
    """Makes the segments of one stream in order, correctly linked. `commits` counts the commits so far."""

    name: StreamName
    database: str = "app.db"
    after: Origin | None = None
    page_size: int = PAGE
    commits: int = 0
    pages: int = 4
    prev: str = field(default="")

    @property
    def began(self) -> int:
        """When the stream began, in microseconds since the epoch."""
        return int(self.name.start.instant.timestamp() * 1000) * 1000

    def commit(self, number: int, pages: Sequence[int] = (1,), *, time: int | None = None) -> Commit:
        """A commit, one second after the previous one, whose page images contain its number."""
        image = number.to_bytes(8, "little") * (self.page_size // 8)
        at = self.began + number * SECOND if time is None else time
        return Commit(number, at, self.pages, dict.fromkeys(pages, image))

    def segment(self, count: int = 1) -> Made:
        """The next segment, of `count` new commits."""
        numbers = range(self.commits + 1, self.commits + count + 1)
        (made,) = self.segments([self.commit(number) for number in numbers])
        return made

    def segments(self, commits: Sequence[Commit], limit: int = 64 << 20) -> list[Made]:
        """The next segments with these commits: one, or several if they have more than `limit` bytes."""
        return [
            self._made(portion.commits, portion.first, portion.last, portion.time)
            for portion in split(commits, self.commits + 1, limit)
        ]

    def many(self, count: int) -> Iterator[Made]:
        """The next `count` segments, one a second with one commit each."""
        return (self.segment() for _ in range(count))

    def _made(self, commits: tuple[Commit, ...], first: int, last: int, ms: int) -> Made:
        header = SegmentHeader(
            database=self.database,
            stream=str(self.name),
            first=first,
            last=last,
            page_size=self.page_size,
            prev=self.prev or first_prev(str(self.name)),
            holder=self.name.holder,
            epoch=self.name.epoch,
            sqlite="3.53.4",
            clock=ClockAnchor(self.began, self.began),
            after=self.after,
        )
        encoded = encode(header, commits)
        self.prev, self.commits = encoded.digest, last
        return Made(segment_key_of(self.database, str(self.name), first, last, ms), encoded.data, commits)


def stream_name(start: Timestamp, *, later: float = 0.0, epoch: int = 1, holder: str = "web") -> StreamName:
    """The name of a stream that began `later` seconds after `start`."""
    return StreamName(Timestamp.of(start.instant + timedelta(seconds=later)), epoch, holder)


async def fill(store: ObjectStore, segments: Iterator[Made], at_once: int = 24) -> int:
    """Publish segments with several concurrent requests. Returns their number."""
    count = 0

    async def worker() -> None:
        nonlocal count
        for made in segments:
            await store.put(made.key, made.data, condition=IfAbsent(), tags={"sidecar-tier": "stream"})
            count += 1

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(worker)
    return count


def fill_directory(root: Path, segments: Iterator[Made]) -> int:
    """Write segments as a `file://` store does, without waiting for the disk. Returns their number."""
    count = 0
    for made in segments:
        path = root / path_of(made.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.data)
        count += 1
    return count
