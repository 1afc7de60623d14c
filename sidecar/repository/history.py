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
