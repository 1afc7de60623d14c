"""The streams of a database for people: a list that shows where each belongs, and the way to the end of a given one.

Restore points name streams in their metadata, and streams name what they continue. Both together show which streams the
main line went through. The others, and all commits after the one at which the main line left a stream, are side lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sidecar.concurrency import gathered
from sidecar.errors import NotFound, NothingToRestore
from sidecar.model import AtRestorePoint, Origin, Position, RestorePoint
from sidecar.repository.catalog import Catalog
from sidecar.repository.history import Leg, Path, StreamInfo, is_side_line
from sidecar.repository.increments import Increments
from sidecar.repository.keys import point_of

AT_ONCE = 8
LATE = timedelta(hours=6)  # a restore point may be published long after its snapshot was taken


@dataclass(frozen=True, slots=True)
class ListedStream:
    """A stream with the segments that are left of it. `end` is the time of its last commit, by the store's clock.

    `first` is the number of the first commit that is left, 1 until segments expire, and `begin` its time. Where segments have
    expired, `begin` is that of the last commit in the first segment left: names of segments have no other.

    `main_line`: the database's history went through it. `left_at` is the commit at which the next stream continued, after
    which everything is a side line; None means that no stream is known to have continued it.
    """

    stream: StreamInfo
    first: int
    begin: datetime
    end: datetime
    commits: int
    size: int
    main_line: bool
    left_at: int | None

    def as_dict(self) -> dict[str, object]:
        """The JSON of `list --streams --json`."""
        stream = self.stream
        return {
            "name": stream.name,
            "start": stream.start.instant.isoformat(),
            "end": self.end.isoformat(),
            "first": self.first,
            "first_at": self.begin.isoformat(),
            "commits": self.commits,
            "segments": len(stream.segments),
            "size": self.size,
            "holder": stream.holder,
            "epoch": stream.epoch,
            "main_line": self.main_line,
            "left_at": self.left_at,
            "after": _origin_as_dict(stream.after),
        }


class Streams:
    """The streams in a store."""

    def __init__(self, catalog: Catalog, increments: Increments) -> None:
        self._catalog = catalog
        self._increments = increments

    async def listing(self, database: str) -> tuple[ListedStream, ...]:
        """All streams, oldest first. Takes one request for each restore point and for each thousand segments."""
        streams = await self._all(database)
        if not streams:
            return ()
        points = [point async for point in self._catalog.points(database)]
        positions = await gathered(points, self._catalog.position, at_once=AT_ONCE)
        ends = await self._catalog.ends()
        named = (each for each in positions if each and not is_side_line(each, _later(streams, each), ends))
        main = _main_line(streams, named)
        return tuple(_listed(each, main) for each in streams)

    async def enter(self, database: str, name: str) -> tuple[RestorePoint, Path]:
        """A restore point, and the path from it to the end of a stream. Raises `NothingToRestore`."""
        streams = {each.name: each for each in await self._all(database)}
        if name not in streams:
            raise NothingToRestore(
                f"{self._catalog.store.url} has no stream {name} of {database}", "see `sidecar list --streams`"
            )
        legs: list[Leg] = []
        upto = streams[name].segments[-1].last
        while True:
            stream = streams[name]
            found = await self._newest_within(stream, database, upto)
            after = found[1].commit if found else 0
            segments = tuple(each for each in stream.segments if each.last > after and each.first <= upto)
            legs.insert(0, Leg(stream, after, upto, segments))
            if found:
                return found[0], _path(found[1], legs)
            match stream.after:
                case AtRestorePoint(key):
                    return await self._point(key, stream), _path(stream.after, legs)
                case Position(before, commit) if before in streams and before not in {leg.stream.name for leg in legs}:
                    name, upto = before, commit
                case _:
                    raise NothingToRestore(
                        f"no remaining restore point or stream leads to stream {stream.name}",
                        "it was not proved what it continues, or that has expired; see `sidecar list --streams`",
                    )

    async def _all(self, database: str) -> list[StreamInfo]:
        found = await self._increments.streams(database, "")

        async def whole(stream: StreamInfo) -> StreamInfo:
            return replace(stream, segments=tuple(await self._increments.segments(database, stream.name, 0)))

        return [each for each in await gathered(found, whole, at_once=AT_ONCE) if each.segments]

    async def _newest_within(
        self, stream: StreamInfo, database: str, upto: int
    ) -> tuple[RestorePoint, Position] | None:
        """The newest restore point that names this stream, at a commit that is on the path."""
        until = _instant(stream.segments[-1].time) + LATE
        points = [
            point
            async for point in self._catalog.points(database, after=stream.start)
            if point.timestamp.instant <= until
        ]
        positions = await gathered(points, self._catalog.position, at_once=AT_ONCE)
        named = [
            (point, position)
            for point, position in zip(points, positions, strict=True)
            if position and position.stream == stream.name and position.commit <= upto
        ]
        return max(named, key=lambda each: (each[1].commit, each[0].timestamp), default=None)

    async def _point(self, key: str, stream: StreamInfo) -> RestorePoint:
        try:
            point = point_of(await self._catalog.store.head(key))
        except NotFound:
            point = None
        if point is None:
            raise NothingToRestore(
                f"stream {stream.name} continues {key}, which is gone from the store", "see `sidecar list`"
            )
        return point


def _later(streams: Iterable[StreamInfo], position: Position) -> Iterable[StreamInfo]:
    return (each for each in streams if each.name > position.stream)


def _path(start: Origin, legs: Sequence[Leg]) -> Path:
    legs = [each for each in legs if each.upto > each.after]
    end = Position(legs[-1].stream.name, legs[-1].upto) if legs else start
    return Path(start, tuple(legs), end)


def _main_line(streams: Iterable[StreamInfo], named: Iterable[Position]) -> Mapping[str, int | None]:
    """The streams of the main line, with the commit at which each was left."""
    by_name = {each.name: each for each in streams}
    main: dict[str, int | None] = {}
    waiting = [each.stream for each in named]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in main:
            main[name] = None
            if isinstance(after := by_name[name].after, Position):
                waiting.append(after.stream)
    for name in main:
        if isinstance(after := by_name[name].after, Position) and after.stream in main:
            main[after.stream] = after.commit
    return main


def _listed(stream: StreamInfo, main: Mapping[str, int | None]) -> ListedStream:
    size = sum(each.size for each in stream.segments)
    first, last = stream.segments[0], stream.segments[-1]
    begin = stream.start.instant if first.first == 1 else _instant(first.time)
    main_line, left_at = stream.name in main, main.get(stream.name)
    return ListedStream(stream, first.first, begin, _instant(last.time), last.last, size, main_line, left_at)


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)


def _origin_as_dict(origin: Origin | None) -> dict[str, object] | None:
    match origin:
        case Position(stream, commit):
            return {"stream": stream, "commit": commit}
        case AtRestorePoint(key):
            return {"key": key}
    return None
