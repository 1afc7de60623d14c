"""The history of a database: the one path through restore points and streams that the main line is. Pure.

What lies beside that path is a side line: of a machine that was fenced, or that a later machine did not continue from.
"""

from dataclasses import dataclass

from sidecar.model import Origin, Timestamp


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment as its key describes it: commits `first` to `last`, the last of them at `time` (store's clock, ms)."""

    key: str
    first: int
    last: int
    time: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream: when it began, the epoch and the machine it belongs to, and the segments that are known of it, in order.

    `after` is the position that its first commit continues, where that was proved; None is entered only through a
    restore point that names the stream.
    """

    name: str
    start: Timestamp
    epoch: int
    holder: str
    after: Origin | None
    segments: tuple[SegmentInfo, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """The part of a path that is in one stream: the commits `after` + 1 to `upto`, in these segments, in order.

    The first and the last segment may hold further commits, which do not belong to the path.
    """

    stream: StreamInfo
    after: int
    upto: int
    segments: tuple[SegmentInfo, ...]


@dataclass(frozen=True, slots=True)
class SideLine:
    """Commits beside the path: those of `stream` after the commit `after`, 0 for all of it, and why they are no part of it."""

    stream: StreamInfo
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Path:
    """The history from `start` to `end`. `stopped` says why there is no more where there should be, else it is empty."""

    start: Origin
    legs: tuple[Leg, ...]
    end: Origin
    side_lines: tuple[SideLine, ...] = ()
    stopped: str = ""

    @property
    def segments(self) -> tuple[SegmentInfo, ...]:
        """All segments to read, in order."""
        return tuple(segment for leg in self.legs for segment in leg.segments)
