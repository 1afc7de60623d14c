"""Our own descriptors of a database's files, and the locks that can be seen through them.

close(2) of any descriptor of a database or its `-shm` drops all locks that this process has on that file, those of every
connection (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_). So
they are closed only when no connection of this process has the database open. Until then they are kept, for whoever opens it
next: an app in this process may have it open through any number of streams. The log has no locks.

One idea: what may be asked and closed without a lock being lost, which takes the same list of descriptors everywhere.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.database.driver import OPENING
from sidecar.database.wal.locks import asking, is_locked, is_locked_by_any, lock_of_file, share_of_file, unlock_of_file
from sidecar.database.wal.pin import Pin

# https://sqlite.org/src/file/src/os.h: every connection has a lock in these bytes, in WAL mode for as long as it is open.
_SHARED_FIRST, _SHARED_BYTES = 0x40000000, 512
_READERS, _READERS_BYTES = 0x40000002, 510  # an exclusive lock takes the byte before them, too
# Of -shm: who checkpoints, who copies, and who uses it at all (https://sqlite.org/walformat.html#wal_locks).
_CHECKPOINTER, _BACKFILLER, _ATTACHED = 121, 123, 128
Inode = tuple[int, int]  # device and number

# Of a descriptor of a database, or of its -shm. These are asked all the time, of every database.
is_wanted = asking(_SHARED_FIRST, _SHARED_BYTES, anybody=True, alone=True)
_is_open = asking(_SHARED_FIRST, _SHARED_BYTES, anybody=True)
_is_open_elsewhere = asking(_SHARED_FIRST, _SHARED_BYTES, anybody=False)
_is_checkpointed = asking(_CHECKPOINTER, 1, anybody=False)

# What is in use is found by a look at every descriptor of the process. With a thousand databases that takes milliseconds,
# and each of them is borrowed once a second: such looks take at most this part of the time.
_PART = 0.01

_own: set[int] = set()
_kept: "dict[tuple[Inode, int], list[_Kept]]" = {}  # by what they are of, and their access
_next_search = 0.0  # monotonic seconds


@dataclass(frozen=True, slots=True)
class _Kept:
    """A descriptor, and the database that nobody in this process may have open when it is closed."""

    file: int
    database: Inode


@dataclass(frozen=True, slots=True)
class Stamps:
    """The stat(2) of a database: device, inode, size, and times of the last write and change in nanoseconds."""

    inode: Inode
    size: int
    written: int
    changed: int

    @property
    def essence(self) -> tuple[Inode, int, int]:
        """What changes with every write, but not with a change of rights or names."""
        return self.inode, self.size, self.written

    @classmethod
    def of(cls, path: Path) -> "Stamps":
        """Raises OSError."""
        return cls.in_status(os.stat(path))

    @classmethod
    def in_status(cls, status: os.stat_result) -> "Stamps":
        """Those of a file whose stat(2) this is."""
        return cls((status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(eq=False, slots=True)
class Descriptors:
    """The three files of one database, open for reading; the shared memory twice more, for locks."""

    database: int
    wal: int
    shm: int
    hands: tuple[int, int]
    inodes: tuple[Inode, ...] = field(init=False)
    pin: Pin = field(init=False)

    def __post_init__(self) -> None:
        self.pin = Pin(self.shm)
        self.inodes = tuple(_inode(each) for each in (self.database, self.wal, self.shm))

    @classmethod
    def open(cls, path: Path) -> "Descriptors":
        """Open the files of a database that a connection of this process has open already. Raises OSError."""
        opened: list[int] = []
        try:
            for suffix, access in (
                ("-wal", os.O_RDONLY),
                ("-shm", os.O_RDONLY),
                ("-shm", os.O_RDWR),
                ("-shm", os.O_RDWR),
                ("", os.O_RDONLY),
            ):
                opened.append(_opened(f"{path}{suffix}", access))
        except OSError:
            _close_log(*opened[:1])
            _keep(opened[1:], path)
            raise
        wal, shm, one, two, database = opened
        return cls(database, wal, shm, (one, two))

    def in_place(self, path: Path) -> Stamps | None:
        """The stamps of the database, if the three names still lead to these files."""
        status = self.status(path)
        return Stamps.in_status(status) if status else None

    def status(self, path: Path) -> os.stat_result | None:
        """The stat(2) of the database, if the three names still lead to these files."""
        name = str(path)
        try:
            database, wal, shm = os.stat(name), os.stat(f"{name}-wal"), os.stat(f"{name}-shm")
        except OSError:
            return None
        found = ((database.st_dev, database.st_ino), (wal.st_dev, wal.st_ino), (shm.st_dev, shm.st_ino))
        return database if found == self.inodes else None

    def has_log(self, path: Path) -> bool:
        """Whether the names of the log and of the shared memory still lead to these files."""
        try:
            return (_inode(f"{path}-wal"), _inode(f"{path}-shm")) == self.inodes[1:]
        except OSError:
            return False

    def others(self) -> bool:
        """Whether another process has a connection to the database."""
        return is_used_by_others(self.database)

    def anybody(self) -> bool:
        """Whether anybody has, our own connections among them."""
        return _is_open(self.database)

    def checkpointing(self) -> bool:
        """Whether another process checkpoints, or waits in a checkpoint until readers have gone."""
        return _is_checkpointed(self.shm)

    def backfilling(self) -> bool:
        """Whether another process copies the log into the database at this moment, with readers of that alone kept out."""
        return is_locked(self.shm, _BACKFILLER, 1)

    def wanted(self) -> bool:
        """Whether another connection has locked the database exclusively, or waits to do so."""
        return is_wanted(self.database)

    def attached(self) -> bool:
        """Whether anybody uses this very shared memory, whatever its name leads to by now."""
        return is_locked_by_any(self.shm, _ATTACHED, 1)

    def shared(self) -> bool:
        """Whether another process does."""
        return is_locked(self.shm, _ATTACHED, 1)

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Whoever opens the database finds the shared memory in use, and does not make it anew from the log."""
        locked = share_of_file(self.shm, _ATTACHED)
        try:
            yield
        finally:
            if locked:
                unlock_of_file(self.shm, _ATTACHED)

    def empty_log(self, path: Path) -> None:
        """Empty the log, if nobody uses its shared memory: whoever comes next makes that anew. Raises OSError."""
        lock = self.hands[0]
        if not lock_of_file(lock, _ATTACHED):
            return
        try:
            file = os.open(f"{path}-wal", os.O_WRONLY | os.O_CLOEXEC)
            try:
                if _inode(file) == self.inodes[1]:
                    os.ftruncate(file, 0)
            finally:
                os.close(file)
        finally:
            unlock_of_file(lock, _ATTACHED)

    def removed(self) -> int | None:
        """When the log and the shared memory lost their names, in nanoseconds since 1970; None if they have not."""
        wal = os.fstat(self.wal)
        return None if wal.st_nlink or os.fstat(self.shm).st_nlink else wal.st_ctime_ns

    def sync_log(self) -> None:
        """Have the disk hold the log. Raises OSError."""
        (os.fsync if sys.platform == "darwin" else os.fdatasync)(self.wal)

    def sync(self) -> None:
        """Have the disk hold what was written into the database. Raises OSError."""
        (os.fsync if sys.platform == "darwin" else os.fdatasync)(self.database)

    def close(self) -> None:
        """Close them as soon as no connection of this process is open."""
        self.pin.release()
        _close_log(self.wal)
        _keep((self.database, self.shm, *self.hands), self.database)


@contextmanager
def borrowed(path: Path) -> Iterator[int]:
    """A descriptor of a database for reading without SQLite and without its locks. Raises OSError."""
    file = _opened(str(path), os.O_RDONLY)
    try:
        yield file
    finally:
        _keep((file,), file)


@contextmanager
def borrowed_index(path: Path, database: int) -> Iterator[int]:
    """A descriptor of the shared memory of a database that is open as `database`, for reading. Raises OSError."""
    file = _opened(f"{path}-shm", os.O_RDONLY)
    try:
        yield file
    finally:
        _keep((file,), database)


@contextmanager
def borrowed_log(path: Path) -> Iterator[int]:
    """A descriptor of the log of a database, for reading. It has no locks. Raises OSError."""
    file = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def is_used_by_others(file: int) -> bool:
    """Whether another process has a connection to the database that this is a descriptor of."""
    return _is_open_elsewhere(file)


def is_open_here(path: Path) -> bool:
    """Whether a connection of this process has the database open. Raises OSError."""
    return _inode(path) in _in_use()


def is_exclusive(file: int) -> bool:
    """Whether another process has locked that database exclusively."""
    return is_locked(file, _READERS, _READERS_BYTES, alone=True)


def close_kept() -> None:
    """Close kept descriptors that no connection of this process needs any more."""
    with OPENING:
        _close_unused()


def close_kept_in_passing() -> None:
    """The same, unless it was done so recently that it would take too much time. For what is called often."""
    with OPENING:
        if time.monotonic() >= _next_search:
            _close_unused()


def _close_unused() -> None:
    global _next_search
    if not _kept:
        return
    began = time.monotonic()
    used = _in_use()
    for what, alike in list(_kept.items()):
        needed = [each for each in alike if each.database in used]
        for each in alike:
            if each.database not in used:
                _close(each.file)
        _kept[what] = needed
        if not needed:
            del _kept[what]
    ended = time.monotonic()
    _next_search = ended + (ended - began) / _PART


def _opened(path: str, access: int) -> int:
    """A descriptor of a file; a kept one where there is one, or each stream would leave some behind. Raises OSError."""
    with OPENING:  # nothing is closed meanwhile
        what = (_inode(path), access)
        if alike := _kept.get(what):
            file = alike.pop().file
            if not alike:
                del _kept[what]
            return file
        file = os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK)
        _own.add(file)
        return file


def _close_log(*files: int) -> None:
    with OPENING:
        for each in files:
            _close(each)


def _close(file: int) -> None:
    _own.discard(file)  # before: another thread may get the number
    os.close(file)


def _keep(files: Iterable[int], database: int | Path) -> None:
    """Keep descriptors of the files of a database, of which this is a descriptor or the path."""
    with OPENING:
        for file in files:
            inode, access = _inode(file), fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
            try:
                kept = _Kept(file, _inode(database))
            except OSError:  # the database is gone
                kept = _Kept(file, inode)
            _kept.setdefault((inode, access), []).append(kept)
    close_kept_in_passing()


def _inode(file: int | str | Path) -> Inode:
    status = os.stat(file)
    return status.st_dev, status.st_ino


def _in_use() -> set[Inode]:
    """The files of which this process has a descriptor that is not one of ours here: SQLite's are among them."""
    found: set[Inode] = set()
    for name in os.listdir("/dev/fd"):
        if int(name) not in _own:
            with suppress(OSError):
                found.add(_inode(int(name)))
    return found
