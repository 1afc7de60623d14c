"""The key layout.

<database>/20261120T145503.123Z.sqlite3.zst                     a restore point
diverged/<database>/20261120T145503.123Z-<holder>.sqlite3.zst   a state that lost a conflict
stream/<database>/<stream>/<last>-<first>-<ms>.zst              a segment: commits `first` to `last`, 16 digits each,
                                                                the last of them at `ms`, Unix time in milliseconds
<stream> = 20261120T145503.123Z-<epoch, 10 digits>-<holder>     when it began, and which machine wrote it
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from sidecar.lease import KEY as LEASE_KEY
from sidecar.model import ObjectInfo, RestorePoint, Timestamp
from sidecar.repository.history import SegmentInfo

SUFFIX = ".sqlite3.zst"
DIVERGED = "diverged"
STREAM = "stream"
RESERVED_NAMES = frozenset({DIVERGED, STREAM, LEASE_KEY, ".sidecar", "expiring", "held"})
_SEGMENT = re.compile(r"(\d{16})-(\d{16})-(\d{13,})\.zst", re.ASCII)
_LIKE_POINT = re.compile(r"\d{8}T\d{6}\.\d{3}Z\.", re.ASCII)
_LEFTOVERS = (".part", ".bak", ".tmp", ".old", ".orig", "~")  # what people and their tools leave behind
_LIKE_SEGMENT = re.compile(r"\d{16}-\d{16}-\d+\.", re.ASCII)
_LIKE_STREAM = re.compile(r"\d{8}T\d{6}\.\d{3}Z-", re.ASCII)
_STREAM = re.compile(r"([^-]*)-(\d{10})-(.+)", re.ASCII)


def folder_of(database: str, *, diverged: bool = False) -> str:
    """The prefix of a database's restore points, with its slash."""
    return f"{DIVERGED}/{quote(database, safe='')}/" if diverged else f"{quote(database, safe='')}/"


def key_of(database: str, timestamp: Timestamp) -> str:
    """The key of a restore point."""
    return f"{folder_of(database)}{timestamp}{SUFFIX}"


def diverged_key_of(database: str, timestamp: Timestamp, holder: str) -> str:
    """The key of a state that lost a conflict."""
    return f"{folder_of(database, diverged=True)}{timestamp}-{quote(holder, safe='')}{SUFFIX}"


def timestamp_of(key: str) -> Timestamp:
    """The timestamp in the key of a restore point. Raises ValueError."""
    return Timestamp(key.rpartition("/")[2].removesuffix(SUFFIX))


def point_of(info: ObjectInfo) -> RestorePoint | None:
    """The restore point behind an object, or None if its key is not that of a restore point."""
    folder, _, name = info.key.rpartition("/")
    stem, suffix = name[: -len(SUFFIX)], name[-len(SUFFIX) :]
    text, _, holder = stem.partition("-")
    diverged = folder.startswith(f"{DIVERGED}/")
    if suffix != SUFFIX or bool(holder) != diverged:
        return None
    try:
        timestamp = Timestamp(text)
    except ValueError:
        return None
    database = unquote(folder.removeprefix(f"{DIVERGED}/") if diverged else folder)
    ours = diverged_key_of(database, timestamp, unquote(holder)) if diverged else key_of(database, timestamp)
    if not database or info.key != ours:  # a foreign object: deeper folders, another encoding
        return None
    return RestorePoint(info.key, database, timestamp, info.size, info.etag, info.metadata, unquote(holder) or None)


def is_point_of_the_future(key: str, database: str) -> bool:
    """Whether a key in a database's folder may be that of a restore point in a form that a newer version gave it."""
    name = key.removeprefix(folder_of(database))
    return (
        "/" not in name
        and bool(_LIKE_POINT.match(name))
        and not name.endswith(SUFFIX)
        and not name.endswith(_LEFTOVERS)
    )


@dataclass(frozen=True, slots=True, order=True)
class StreamName:
    """The name of a stream: when it began, by the store's clock, and the epoch and machine that wrote it.

    >>> str(StreamName(Timestamp("20261120T145503.123Z"), 7, "web 1"))
    '20261120T145503.123Z-0000000007-web%201'
    """

    start: Timestamp
    epoch: int
    holder: str

    @classmethod
    def of(cls, text: str) -> "StreamName":
        """Parse the name of a stream. Raises ValueError."""
        match = _STREAM.fullmatch(text)
        if not match:
            raise ValueError(f"not the name of a stream: {text!r}")
        name = cls(Timestamp(match[1]), int(match[2]), unquote(match[3]))
        if str(name) != text:
            raise ValueError(f"not the name of a stream: {text!r}")
        return name

    def __str__(self) -> str:
        return f"{self.start}-{self.epoch:010d}-{quote(self.holder, safe='')}"


def stream_folder_of(database: str, stream: str = "") -> str:
    """The prefix of a database's streams, or of one stream's segments, with its slash."""
    return f"{STREAM}/{quote(database, safe='')}/" + (f"{stream}/" if stream else "")


def segment_key_of(database: str, stream: str, first: int, last: int, ms: int) -> str:
    """The key of the segment with commits `first` to `last`; `ms` is the time of the last one (Unix, milliseconds)."""
    return f"{stream_folder_of(database, stream)}{last:016d}-{first:016d}-{ms:013d}.zst"


def segments_after(database: str, stream: str, commit: int) -> str:
    """The key to start a listing after, to get exactly the segments with commits after `commit`."""
    return f"{stream_folder_of(database, stream)}{commit + 1:016d}"


def stream_of(key: str) -> tuple[str, str] | None:
    """The database and the stream that a key belongs to, or None if it is not a key inside a stream's folder."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != STREAM:
        return None
    try:
        StreamName.of(parts[2])
    except ValueError:
        return None
    database = unquote(parts[1])
    return (database, parts[2]) if database and quote(database, safe="") == parts[1] else None


def is_of_the_future(key: str) -> bool:
    """Whether a key in the folder of streams looks like one that a newer version wrote: similar to ours, but not ours."""
    parts = key.split("/")
    known = _SEGMENT.fullmatch(parts[-1]) and stream_of(key)
    return bool(
        len(parts) >= 4
        and parts[0] == STREAM
        and not known
        and _LIKE_STREAM.match(parts[2])
        and _LIKE_SEGMENT.match(parts[-1])
    )


def segment_of(info: ObjectInfo) -> SegmentInfo | None:
    """The segment behind an object, or None if its key is not that of a segment."""
    match = _SEGMENT.fullmatch(info.key.rpartition("/")[2])
    if not match or not stream_of(info.key):
        return None
    last, first, ms = map(int, match.groups())
    return SegmentInfo(info.key, first, last, ms, info.size, info.etag) if 1 <= first <= last else None
