"""The history of a database: the main line, which is a single path through restore points and streams. Pure.

Everything off that path is a side line: from a machine that was fenced, or that no later machine continued from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sidecar.model import AtRestorePoint, Origin, Position, Timestamp


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment as its key describes it: commits `first` to `last`; `time` is that of the last one (store's clock, ms)."""

    key: str
    first: int
    last: int
    time: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream: when it began, the epoch and machine that wrote it, and its known segments, in order.

    `after` is the position that its first commit continues, if that was proved. Without one, the stream can only be
    entered through a restore point that names it.
    """

    name: str
    start: Timestamp
    epoch: int
    holder: str
    after: Origin | None
    segments: tuple[SegmentInfo, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """The part of a path that runs through one stream: commits `after` + 1 to `upto`, in these segments, in order.

    The first and the last segment may hold other commits as well, which are not part of the path.
    """

    stream: StreamInfo
    after: int
    upto: int
    segments: tuple[SegmentInfo, ...]


@dataclass(frozen=True, slots=True)
class SideLine:
    """Commits off the path: those of `stream` after commit `after` (0 for the whole stream), and why they are off it."""

    stream: StreamInfo
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Path:
    """The history from `start` to `end`. `stopped` is the reason if it ends too early, else empty."""

    start: Origin
    legs: tuple[Leg, ...]
    end: Origin
    side_lines: tuple[SideLine, ...] = ()
    stopped: str = ""

    @property
    def segments(self) -> tuple[SegmentInfo, ...]:
        """All segments to read, in order."""
        return tuple(segment for leg in self.legs for segment in leg.segments)


def format_side_line(side: SideLine) -> tuple[str, str]:
    """A side line for people, and what they can do about it."""
    name = side.stream.name
    return (
        f"stream {name} of {side.stream.holder} has commits that are not in this database: {side.reason}",
        f"`sidecar restore --stream {name} --output PATH` restores them to another file",
    )


def is_beyond_end(position: Position | None, ends: Mapping[str, int]) -> bool:
    """Whether this position is after the recorded end of its stream, so that a fenced machine wrote it."""
    return position is not None and position.commit > ends.get(position.stream, position.commit)


def is_side_line(position: Position, later: Iterable[StreamInfo], ends: Mapping[str, int]) -> bool:
    """Whether the main line certainly does not go through this position, so that a fenced machine wrote what is there.

    `later` are the streams whose names sort after the position's stream, `ends` the recorded ends, which only the last
    boot wrote. What a stream of the main line continues shows the rest: that it left a stream, or passed it by.
    """
    if is_beyond_end(position, ends):
        return True
    passing = passing_by(position.stream, later, ends)
    if passing and isinstance(passing.after, Position) and passing.after.stream == position.stream:
        return position.commit > passing.after.commit
    return passing is not None


def passing_by(place: str, later: Iterable[StreamInfo], ends: Mapping[str, int]) -> StreamInfo | None:
    """The stream of the main line that began after `place` and continues something from there, or from before.

    `place` is the name of a stream, or of a restore point's file; `later` are the streams whose names sort after it. None
    if they do not show that there is one.
    """
    waiting = {each.name: each for each in later if _agrees(each.after, ends)}
    while waiting:
        stream = max(waiting.values(), key=lambda each: (each.epoch, each.start))
        while stream.after is not None:
            began = began_of(stream.after)
            if began <= place:
                return stream
            if began >= stream.name:
                return None
            stream = waiting.get(began) or StreamInfo(began, stream.start, stream.epoch, "", None, ())
        waiting = {name: each for name, each in waiting.items() if name < stream.name}
    return None


def _agrees(after: Origin | None, ends: Mapping[str, int]) -> bool:
    return not isinstance(after, Position) or ends.get(after.stream, after.commit) == after.commit


def began_of(origin: Origin) -> str:
    """What sorts before the names of all streams that began later."""
    return origin.stream if isinstance(origin, Position) else origin.key.rpartition("/")[2]


def trace(start: Origin, streams: Iterable[StreamInfo], ends: Mapping[str, int], until: int | None = None) -> Path:
    """The history from `start`, the state of a restore point, through these streams; `ends` are recorded ends by stream name.

    If several later streams continue a stream, the path takes the one that leads to the highest epoch, then the one with
    the latest start: the last holder of the lease knew which of them was the main line, and continued it.
    The path leaves a stream that has a recorded end exactly there. It stops before commits that are missing or duplicated.
    With `until`, microseconds by the store's clock, it ends with the first segment that extends past that instant.
    """
    if isinstance(start, Position) and is_beyond_end(start, ends):
        recorded = ends[start.stream]
        why = f"a fenced machine wrote commit {start.commit} of stream {start.stream}, which ended at commit {recorded}"
        return Path(start, (), start, stopped=why)
    route = _Route({stream.name: stream for stream in streams}, ends)
    steps = list(route.steps(start))
    legs, end, stopped = [], start, ""
    for stream, after, upto in steps:
        leg, stopped = _leg(stream, after, upto, until)
        if leg.upto > after:
            legs.append(leg)
            end = Position(stream.name, leg.upto)
        if stopped or (leg.segments and _is_late(leg.segments[-1], until)):
            break
    return Path(start, tuple(legs), end, tuple(route.side_lines(start, steps)), stopped)


_UNKNOWN = Timestamp("19700101T000000.000Z")  # when a stream began of which nothing is left

Step = tuple[StreamInfo, int, int | None]
"""A stream, the commit after which the path enters it, and the last commit before it leaves, or None for all of them."""


class _Route:
    """The streams that a path goes through, whether or not their segments exist."""

    def __init__(self, streams: Mapping[str, StreamInfo], ends: Mapping[str, int]) -> None:
        self._streams = streams
        self._ends = ends
        self._ranks: dict[str, tuple[int, Timestamp]] = {}
        for name in sorted(streams, reverse=True):  # a stream's name sorts after those that it continues
            ranks = [self._ranks[each.name] for each in self._successors(Position(name, 0))]
            self._ranks[name] = max([(streams[name].epoch, streams[name].start), *ranks])

    def steps(self, start: Origin) -> Iterable[Step]:
        """The streams of the path, in order."""
        origin: Origin | None = start
        while origin:
            chosen = max(self._successors(origin), key=lambda each: self._ranks[each.name], default=None)
            if isinstance(origin, Position):
                after = chosen.after if chosen else None
                upto = after.commit if isinstance(after, Position) else self._ends.get(origin.stream)
                if stream := self._streams.get(origin.stream) or self._lost(origin, upto):
                    yield stream, origin.commit, upto
            origin = Position(chosen.name, 0) if chosen else None

    @staticmethod
    def _lost(origin: Position, upto: int | None) -> StreamInfo | None:
        """A stream of which nothing is left after a position, although the path leads on to `upto`; None if it does not."""
        if upto is None or upto <= origin.commit:
            return None
        return StreamInfo(origin.stream, _UNKNOWN, 0, "", None, ())

    def side_lines(self, start: Origin, steps: list[Step]) -> Iterable[SideLine]:
        """Everything that is later than the start and not on the path."""
        names = {stream.name for stream, _, _ in steps}
        for stream, _, upto in steps:
            if upto is not None and any(segment.last > upto for segment in stream.segments):
                yield SideLine(stream, upto, f"the main line left this stream at commit {upto}")
        began = began_of(start)
        for name in sorted(self._streams):
            if name > began and name not in names:
                yield SideLine(self._streams[name], 0, self._reason(self._streams[name]))

    def _reason(self, stream: StreamInfo) -> str:
        match stream.after:
            case None:
                return "it does not record what it continues, and no restore point of the main line names it"
            case Position(name, commit) if name in self._streams:
                return f"it continues commit {commit} of stream {name}, which the main line does not"
        return "what it continues is not on the main line"

    def _successors(self, origin: Origin) -> list[StreamInfo]:
        """The streams that may follow `origin`. For a position, those that continue its stream at that commit or later."""
        found = [each for each in self._streams.values() if each.after is not None]
        if isinstance(origin, AtRestorePoint):
            return [each for each in found if each.after == origin]
        end = self._ends.get(origin.stream)
        return [
            each
            for each in found
            if isinstance(each.after, Position)
            and each.after.stream == origin.stream
            and each.name > origin.stream
            and each.after.commit >= origin.commit
            and end in {None, each.after.commit}
        ]


def _is_late(segment: SegmentInfo, until: int | None) -> bool:
    """Whether the last commit of a segment is later than `until`."""
    return until is not None and segment.time * 1000 > until


def _leg(stream: StreamInfo, after: int, target: int | None, until: int | None) -> tuple[Leg, str]:
    """The segments with the commits after `after` up to `target`, or to the last; and why they end before that.

    Ending with the first segment that is later than `until` is not a problem.
    """
    chosen: list[SegmentInfo] = []
    upto, problem = after, ""
    for segment in sorted(stream.segments, key=lambda each: (each.last, each.first, each.time)):
        if segment.last <= after:
            continue
        if target is not None and upto >= target and segment.first > target:
            break
        if problem := _misfit(chosen, segment, upto, stream.name):
            break
        chosen.append(segment)
        upto = segment.last
        if _is_late(segment, until):
            break
    if target is not None and upto < target and not problem and not (chosen and _is_late(chosen[-1], until)):
        problem = f"commits {upto + 1} to {target} of stream {stream.name} are missing"
    if target is not None and upto >= target:
        upto, problem = target, ""
    return Leg(stream, after, upto, tuple(chosen)), problem


def _misfit(chosen: list[SegmentInfo], segment: SegmentInfo, upto: int, stream: str) -> str:
    """Why a segment does not follow the previous ones. A giant transaction spans several segments with the same number."""
    if segment.first > upto + 1:
        return f"commits {upto + 1} to {segment.first - 1} of stream {stream} are missing"
    if segment.first == upto + 1 or not chosen or segment.first == chosen[-1].last:
        return ""
    return f"two segments of stream {stream} hold commit {segment.first}"
