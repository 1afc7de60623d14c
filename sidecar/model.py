"""Values that all packages share. No I/O, no clock, no dependency.

One file, so that every package knows where they are.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Self

_TIMESTAMP = re.compile(r"\d{8}T\d{6}\.\d{3}Z", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """The name of a restore point: a UTC instant with millisecond precision, whose text sorts as time does.

    >>> str(Timestamp.of(datetime(2026, 11, 20, 14, 55, 3, 123456, UTC)))
    '20261120T145503.123Z'
    """

    text: str

    def __post_init__(self) -> None:
        """Raise ValueError unless the text is of the form 20261120T145503.123Z and a real date."""
        if not _TIMESTAMP.fullmatch(self.text):
            raise ValueError(f"not a timestamp like 20261120T145503.123Z: {self.text!r}")
        _ = self.instant

    @classmethod
    def of(cls, instant: datetime) -> Self:
        """The timestamp of an aware datetime, cut (not rounded) to milliseconds."""
        utc = instant.astimezone(UTC)
        return cls(f"{utc.year:04d}{utc:%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z")

    @property
    def instant(self) -> datetime:
        """The aware UTC datetime of this timestamp."""
        return datetime.fromisoformat(self.text)  # strptime takes many times as long

    def next(self) -> "Timestamp":
        """The smallest timestamp above this one."""
        return Timestamp.of(self.instant + timedelta(milliseconds=1))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Database:
    """A database to protect: its name in the store and its absolute path here."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A published snapshot, as the store lists it.

    `size` is that of the object in bytes; the database's own size is in the object's index.
    """

    key: str
    database: str
    timestamp: Timestamp
    size: int
    etag: str
    metadata: dict[str, str] = field(default_factory=dict, compare=False)
    diverged_holder: str | None = None

    @property
    def gone(self) -> bool:
        """Whether only the key is known: the lease object names it as the newest, and the store does not have it."""
        return not self.etag and not self.size


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What stat reports of one file: enough to detect that it was written or replaced."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = field(default=0, compare=False)  # also changes with rights and names, but nobody can set it


@dataclass(frozen=True, slots=True)
class Signature:
    """What stat reports of a database and its WAL, and whether that may be trusted.

    `racy` means that a file was touched within the last second before the stat, so that a later write could leave the
    same stamps behind: git's "racy" rule (https://git-scm.com/docs/racy-git).
    """

    database: FileStamp
    wal: FileStamp | None
    racy: bool

    def proves_unchanged_since(self, earlier: "Signature | None") -> bool:
        """Whether certainly nothing was written between the two, not even by a program that sets the time of the last write."""
        if earlier is None or earlier.racy:
            return False
        same = (self.database, self.wal) == (earlier.database, earlier.wal)
        return same and self.database.ctime_ns == earlier.database.ctime_ns


class WalBy(StrEnum):
    """Who chose WAL mode for a database. Where sidecar did, the app may yet set another mode when it opens the database."""

    APP = "app"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Owner, group and mode of a database file. `mode` has the nine permission bits alone."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class Followed:
    """What a follower of the WAL knows of a snapshot: it has everything up to this commit of this run, and no more.

    `wrote` says of a MiB of the file, from 0 on, whether a later commit than the given one wrote there."""

    run: int
    commit: int
    wrote: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent copy of a database in a local file, private to us.

    `size`, `live` and `bare` are bytes: of the file, of its pages in use, and of those that its schema needs without any
    row. `rows` counts the rows of all tables if the database is small enough. `signature` is the live database's, read
    before the copy began, so a difference from it means newer writes. `permissions` are the live database's as well. `file`
    is the copy's descriptor, open for as long as the snapshot exists. `posix_locks`: a program was seen to use them. `followed`
    is its place in what is streamed, if it is. `wal_by` is None unless the live database is in WAL mode. `suspicion` is
    why the content may be wrong although it is consistent, or empty.

    `read` are the MiB of the file, from 0 on, that the copy has; None: all, else it is no database. The others in `compared`
    were compared with what was known of them. `written_past` are those that differed although no commit wrote there.
    """

    path: Path
    size: int
    live: int
    page_size: int
    tables: int
    signature: Signature
    sqlite_version: str
    on_tmpfs: bool
    seconds: dict[str, float] = field(default_factory=dict)
    file: int | None = None
    bare: int | None = None
    rows: int | None = None
    permissions: Permissions | None = None
    posix_locks: bool = False
    followed: Followed | None = None
    wal_by: WalBy | None = None
    suspicion: str = ""
    read: frozenset[int] | None = None
    compared: frozenset[int] = frozenset()
    written_past: tuple[int, ...] = ()

    @property
    def content(self) -> Path:
        """The path to read from: it leads to this very file, even if another one has its name by now."""
        return self.path if self.file is None else Path(f"/proc/self/fd/{self.file}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store reports of one object. `last_modified` is by the store's clock."""

    key: str
    size: int
    etag: str
    last_modified: datetime
    metadata: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in key order; `more` means that further keys follow."""

    objects: tuple[ObjectInfo, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` (inclusive) to `end` (exclusive) of an object; a negative `start` counts from its end."""

    start: int
    end: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a span that is empty or mixes the two forms."""
        if self.end is not None and not 0 <= self.start < self.end:
            raise ValueError(f"empty or negative span {self.start}..{self.end}")


Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of an object (all or a span), and what the store reports of the whole object."""

    data: Bytes
    info: ObjectInfo


@dataclass(frozen=True, slots=True)
class Token:
    """A web-identity token (a JWT, RFC 7519): the secret and its claims, which only the token service verifies."""

    text: str = field(repr=False)
    issuer: str
    audience: str
    subject: str
    expires: datetime | None

    def __str__(self) -> str:
        """The claims that decide whether the role is granted; never the token itself."""
        expires = self.expires.isoformat() if self.expires else "never"
        return f"iss={self.issuer} aud={self.audience} sub={self.subject} exp={expires}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, as setuid(2) and setgroups(2) want it. `home` is None when it has no account entry."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str | None = None


@dataclass(frozen=True, slots=True)
class IfAbsent:
    """Write only if the key does not exist (If-None-Match: *)."""


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Write only over exactly this version (If-Match)."""

    etag: str


Condition = IfAbsent | IfMatch | None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream: after the commit of this number. Commits are counted from 1; 0 is before the first."""

    stream: str
    commit: int


@dataclass(frozen=True, slots=True)
class AtRestorePoint:
    """The state of a restore point that names no stream, by its key."""

    key: str


Origin = Position | AtRestorePoint


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The last frame of a WAL that was read: the log's salts (8 bytes), the frame's number from 1, and its checksum.

    Frame 0 is before the first; its checksum is (0, 0) then. See https://sqlite.org/fileformat2.html#walformat.
    """

    salts: bytes
    frame: int
    checksum: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed transaction of a stream: the new images of the pages that it changed.

    `time` is in microseconds since the epoch, by the store's clock, and never decreases within a stream. `pages` is the
    size of the database afterwards. `images` maps page numbers, from 1, to whole pages. A `folded` one stands for
    several commits, of which `number` is the last, with the last image of each page. A `continued` one goes on in the
    next segment, under the same number.
    """

    number: int
    time: int
    pages: int
    images: Mapping[int, Bytes]
    folded: bool = False
    continued: bool = False
