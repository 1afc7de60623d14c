"""Our own descriptors of a database's files, and the locks that can be seen through them.

close(2) of any descriptor of a database or its `-shm` drops all locks that this process has on that file, those of every
connection (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_). So
they are closed only when no connection of this process has the database open, and kept until then. The log has no locks.
"""

import fcntl
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.database.driver import OPENING
from sidecar.database.wal.pin import Pin

SUFFIXES = ("-wal", "-shm")
# https://sqlite.org/src/file/src/os.h: every connection has a lock in these bytes, in WAL mode for as long as it is open.
_SHARED_FIRST, _SHARED_BYTES = 0x40000000, 512
_PENDING, _READERS, _READERS_BYTES = (
    0x40000000,
    0x40000002,
    510,
)  # an exclusive lock takes the first byte, then the others
_CHECKPOINTER, _BACKFILLER = 121, 123  # of -shm, https://sqlite.org/walformat.html#wal_locks
_DARWIN = sys.platform == "darwin"
_FLOCK = struct.Struct("qqihh" if _DARWIN else "hhqqi4x")
Inode = tuple[int, int]  # device and number

_own: set[int] = set()
_kept: list[tuple[Inode | None, Sequence[int]]] = []  # the database, and descriptors of its files


@dataclass(frozen=True, slots=True)
class Stamps:
    """The stat(2) of a database: device, inode, size, and times of the last write and change in nanoseconds."""

    inode: Inode
    size: int
    written: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> "Stamps":
        """Raises OSError."""
        status = os.stat(path)
        return cls((status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(eq=False, slots=True)
class Descriptors:
    """The three files of one database, open for reading."""

    database: int
    wal: int
    shm: int
    inodes: tuple[Inode, ...] = field(init=False)
    pin: Pin = field(init=False)

    def __post_init__(self) -> None:
        self.pin = Pin(self.shm)
        self.inodes = tuple(_inode(each) for each in (self.database, self.wal, self.shm))
        _own.update((self.database, self.wal, self.shm))

    @classmethod
    def open(cls, path: Path) -> "Descriptors":
        """Open the files of a database that a connection of this process has open already. Raises OSError."""
        opened: list[int] = []
        try:
            opened.extend(os.open(f"{path}{suffix}", os.O_RDONLY | os.O_CLOEXEC) for suffix in ("-wal", "-shm", ""))
        except OSError:
            _keep(_inode(str(path)) if len(opened) > 1 else None, opened)
            raise
        wal, shm, database = opened
        return cls(database, wal, shm)

    def in_place(self, path: Path) -> Stamps | None:
        """The stamps of the database, if the three names still lead to these files."""
        try:
            stamps = Stamps.of(path)
            others = tuple(_inode(f"{path}{suffix}") for suffix in SUFFIXES)
        except OSError:
            return None
        return stamps if (stamps.inode, *others) == self.inodes else None

    def others(self) -> bool:
        """Whether another process has a connection to the database."""
        return is_used_by_others(self.database)

    def checkpointing(self) -> bool:
        """Whether another process checkpoints, or waits in a checkpoint until readers have gone."""
        return _is_locked(self.shm, _CHECKPOINTER, 1)

    def backfilling(self) -> bool:
        """Whether another process copies the log into the database at this moment, with readers of that alone kept out."""
        return _is_locked(self.shm, _BACKFILLER, 1)

    def wanted(self) -> bool:
        """Whether another process is waiting to lock the database exclusively."""
        return _is_locked(self.database, _PENDING, 1, fcntl.F_RDLCK)

    def sync(self) -> None:
        """Have the disk hold what was written into the database. Raises OSError."""
        (os.fsync if _DARWIN else os.fdatasync)(self.database)

    def close(self) -> None:
        """Close them as soon as no connection of this process is open."""
        self.pin.release()
        _keep(self.inodes[0], (self.wal, self.database, self.shm))


@contextmanager
def borrowed(path: Path) -> Iterator[int]:
    """A descriptor of a database for a moment, for reading without SQLite and without its locks. Raises OSError."""
    with OPENING:  # nothing is closed meanwhile
        inode = _inode(str(path))
        kept = next((files[0] for database, files in _kept if database == inode and len(files) == 1), None)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK) if kept is None else kept
        _own.add(file)
        try:
            yield file
        finally:
            if kept is None:
                _kept.append((_inode(file), (file,)))
    close_kept()


def is_used_by_others(file: int) -> bool:
    """Whether another process has a connection to the database that this is a descriptor of."""
    return _is_locked(file, _SHARED_FIRST, _SHARED_BYTES)


def is_exclusive(file: int) -> bool:
    """Whether another process has locked that database exclusively."""
    return _is_locked(file, _READERS, _READERS_BYTES, fcntl.F_RDLCK)


def close_kept() -> None:
    """Close kept descriptors that no connection of this process needs any more."""
    if not _kept:
        return
    with OPENING:
        for database, files in list(_kept):
            if database is None or not _is_used(database):
                for each in files:
                    _own.discard(each)
                    os.close(each)
                _kept.remove((database, files))


def _keep(database: Inode | None, files: Sequence[int]) -> None:
    _own.update(files)
    _kept.append((database, files))
    close_kept()


def _inode(file: int | str) -> Inode:
    status = os.stat(file)
    return status.st_dev, status.st_ino


def _is_used(inode: Inode) -> bool:
    """Whether this process has a descriptor of a file that is not one of ours here: one of SQLite's."""
    for name in os.listdir("/dev/fd"):
        if int(name) not in _own:
            with suppress(OSError):
                if _inode(int(name)) == inode:
                    return True
    return False


def _is_locked(file: int, first: int, count: int, against: int = fcntl.F_WRLCK) -> bool:
    """Whether another process has a lock on these bytes (fcntl(2), F_GETLK); our own do not count.

    `against`: any lock, or with F_RDLCK only one that keeps readers out.
    """
    asked = (first, count, 0, against, 0) if _DARWIN else (against, 0, first, count, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, _FLOCK.pack(*asked)))
    return bool(answer[3 if _DARWIN else 0] != fcntl.F_UNLCK)
