"""Checks whether the programs that use a database lock it as SQLite does by default, with POSIX locks.

Some do not: the VFS `unix-dotfile`, builds for WebAssembly, `nolock`. They do not see our locks, and we do not see theirs.
SQLite would then take their live journal for that of a crash and roll it back, and a copy would be torn. So the check runs
before the database is opened, and without opening it.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.database.naming import require_own_name
from sidecar.database.signature import signature_of
from sidecar.documentation import ANOTHER_NAME, OTHER_LOCKS
from sidecar.errors import DatabaseBusy, OtherLocks
from sidecar.host import Creation, Identity, Opener, OpenFile, identity_of, shows_locks
from sidecar.host.openers import openers
from sidecar.model import FileStamp

LOOKS = 6
BETWEEN_LOOKS = 0.01
AGREEING = 2  # looks that must agree, because a file may be opened, unlocked or closed during one


@dataclass(frozen=True, slots=True)
class Files:
    """A database and the files beside it at one moment. `hot` describes a journal that SQLite would roll back."""

    path: Path
    folder: Identity | None
    database: Identity | None
    wal: Identity | None
    shm: Identity | None
    journal: Identity | None = None
    hot: tuple[int, int] | None = None

    @classmethod
    def of(cls, path: Path) -> "Files":
        """Inspect the files. Only the journal is opened, because SQLite holds no locks on it."""
        journal = Path(f"{path}-journal")
        return cls(
            path,
            identity_of(path.parent),
            identity_of(path),
            identity_of(f"{path}-wal"),
            identity_of(f"{path}-shm"),
            identity_of(journal),
            _hot(journal),
        )

    @property
    def opened(self) -> set[Identity]:
        """The files that a program has open as long as it uses the database, or writes to it."""
        return {each for each in (self.database, self.journal) if each}

    @property
    def locked(self) -> set[Identity]:
        """The files that SQLite locks."""
        return {each for each in (self.database, self.shm) if each}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a process does to a database, and the page about it. A `lasting` suspicion stands until sidecar restarts."""

    what: str
    page: str
    lasting: bool = False


def _hot(journal: Path) -> tuple[int, int] | None:
    """Size and change time of a journal that has content, see https://sqlite.org/lockingv3.html#hot_journals; else None."""
    with suppress(OSError):
        file = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if os.pread(file, 1, 0) not in {b"", b"\0"}:
                return status.st_size, status.st_ctime_ns
        finally:
            os.close(file)
    return None


def suspects(before: Files, seen: Sequence[Opener], after: Files) -> dict[int, Suspicion]:
    """The processes that use the database without POSIX locks. `seen` was collected between `before` and `after`.

    A descriptor inherited through fork(2) has no locks, so nobody is suspected while some process holds one. Nor is a
    process with the shared memory open, which programs without POSIX locks do not use (sqlite.org/wal.html#noshm).
    """
    written = any(each.holds(before.locked, "WRITE") for each in seen)
    locked = written or any(each.holds(before.locked) for each in seen)
    live = None if written or before.hot != after.hot or not before.hot else before.journal
    wal = None if locked or before.wal != after.wal else before.wal
    found = {}
    for each in (each for each in seen if each.pid != os.getpid()):
        identities = {file.identity for file in each.files}
        if other := next(filter(None, (_other_wal(each, file, before) for file in each.files)), None):
            found[each.pid] = Suspicion(f"has it open with its WAL in {other}", ANOTHER_NAME, lasting=True)
        elif live in identities:
            found[each.pid] = Suspicion("is writing to it without a POSIX lock", OTHER_LOCKS, lasting=True)
        elif wal in identities and not _shares_memory(each, before):
            found[each.pid] = Suspicion("has its WAL open without a POSIX lock", OTHER_LOCKS)
    return found


def _shares_memory(opener: Opener, ours: Files) -> bool:
    shm = f"{ours.path.name}-shm"
    names = {os.path.basename(each.name) for each in opener.files}
    return not names.isdisjoint({shm, f"{shm} (deleted)"})


def _other_wal(opener: Opener, file: OpenFile, ours: Files) -> str | None:
    """The WAL of a process that opened the database under a name other than ours, or whose WAL has been deleted.

    A deleted WAL counts only if the process holds a lock. Otherwise its descriptors were inherited from a process that has
    since closed the database.
    """
    if file.identity != ours.database:
        return None
    names = {each.name for each in opener.files}
    known = file.folder is not None and ours.folder is not None
    same = os.path.basename(file.name) == ours.path.name and file.folder == ours.folder
    deleted = [f"{file.name}-wal (deleted)"] if opener.holds({file.identity}) else []
    candidates = [*deleted, *([f"{file.name}-wal"] if known and not same else [])]
    return next((each for each in candidates if each in names), None)


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look at the processes that have a database open. `locked`: one of them holds a POSIX lock."""

    suspects: dict[int, Suspicion]
    locked: bool


def look_at(path: Path, pids: set[int]) -> Look:
    """Look once, at these processes only: a short look leaves little time for changes."""
    before = Files.of(path)
    seen = openers(before.opened, pids)
    locked = any(each.holds(before.locked) for each in seen if each.pid != os.getpid())
    return Look(suspects(before, seen, Files.of(path)), locked)


def find_suspect(look: Callable[[], Look]) -> tuple[tuple[int, Suspicion] | None, bool]:
    """The first process that two looks agree on, if any, and whether any had a lock, which alone ends the search."""
    times: Counter[tuple[int, Suspicion]] = Counter()
    locked = False
    for _ in range(LOOKS):
        seen = look()
        locked = locked or seen.locked
        times.update(seen.suspects.items())
        if (most := times.most_common(1)) and most[0][1] >= AGREEING:
            return most[0][0], locked
        if locked and not times:
            break
        time.sleep(BETWEEN_LOOKS)
    return None, locked


@dataclass(slots=True)
class _Watch:
    """What is known about a database since its directory is watched. `before` are the stamps of its files at that time."""

    directory: Identity
    lock_file: Creation
    before: tuple[FileStamp | None, ...]


class LockGuard:
    """Makes sure, for the databases of one process, that the programs that use them take POSIX locks."""

    def __init__(self) -> None:
        self._watches: dict[Path, _Watch] = {}
        self._doubts: dict[Path, OtherLocks] = {}  # kept for good: the program may only be between two transactions
        self._trusted: set[Path] = set()
        self._in_use: set[Path] = set()

    def watch(self, path: Path) -> None:
        """Start to watch for a lock file, if the directory exists."""
        directory = identity_of(path.parent)
        known = self._watches.get(path)
        if directory and (known is None or known.directory != directory):
            with suppress(OSError):
                self._watches[path] = _Watch(directory, Creation(_lock_of(path)), _stamps(path))

    def require(self, path: Path) -> None:
        """Raise `OtherLocks` on any doubt, without opening the database."""
        self.watch(path)
        if doubt := self._doubts.get(path):
            raise doubt
        require_own_name(path)
        self.require_no_lock_file(path)
        self._require_locks(path)

    def require_no_lock_file(self, path: Path) -> None:
        """Raise `OtherLocks` if a lock file exists beside the database, or existed at any time since the watch began."""
        lock, watch = _lock_of(path), self._watches.get(path)
        if os.path.lexists(lock):
            raise self._doubt(path, _lock_file(path, lock))
        if watch and watch.lock_file.seen():
            raise self._doubt(path, _lock_was_there(path, lock))

    def wrote(self, path: Path) -> None:
        """Record that the last writes were our own."""
        if watch := self._watches.get(path):
            watch.before = _stamps(path)

    def may_switch(self, path: Path) -> bool:
        """Whether the app is known to use POSIX locks, which WAL requires.

        A process was seen to hold one; or nobody has the database open, and it was written without a lock file appearing
        since the watch began. Where the system cannot show this, SQLite's default is assumed.
        """
        watch = self._watches.get(path)
        if path in self._trusted or watch is None or not shows_locks():
            return True
        return path not in self._in_use and _stamps(path) != watch.before

    def _require_locks(self, path: Path) -> None:
        pids = {each.pid for each in openers(Files.of(path).opened)} if shows_locks() else set()
        self._in_use.discard(path)
        if pids <= {os.getpid()}:
            return
        self._in_use.add(path)
        suspect, locked = find_suspect(lambda: look_at(path, pids))
        if suspect:
            pid, suspicion = suspect
            message = (
                f"process {pid} {suspicion.what}: {path} is not copied, because the copy could be torn or incomplete"
            )
            error = OtherLocks(message, f"what to do: {suspicion.page}")
            raise self._doubt(path, error) if suspicion.lasting else error
        if locked:
            self._trusted.add(path)

    def _doubt(self, path: Path, error: OtherLocks) -> OtherLocks:
        return self._doubts.setdefault(path, error)


def _lock_of(path: Path) -> Path:
    return Path(f"{path}.lock")


def _stamps(path: Path) -> tuple[FileStamp | None, ...]:
    signature = signature_of(path)
    return (signature.database, signature.wal) if signature else (None, None)


def require_posix_locks(path: Path) -> None:
    """Raise `OtherLocks` on any doubt at this moment."""
    LockGuard().require(path)


def _lock_file(path: Path, lock: Path) -> OtherLocks:
    database = identity_of(path)
    users = [each for each in openers({database}) if each.pid != os.getpid()] if database else []
    is_directory = lock.is_dir() and not lock.is_symlink()
    kind, remove = ("directory", "rmdir") if is_directory else ("file", "rm")
    if users:
        return OtherLocks(
            f"{lock} exists, and process {users[0].pid} has the database open: it seems to lock with that {kind} instead of "
            f"POSIX locks, so {path} cannot be copied safely",
            f"open it with SQLite's default VFS in the app; see {OTHER_LOCKS}",
        )
    return OtherLocks(
        f"{lock} exists: a program locks {path} with that {kind} instead of POSIX locks, or left it behind when it was killed",
        f"if no program uses the database, remove it with `{remove} {lock}`, and open it with SQLite's default VFS; see {OTHER_LOCKS}",
    )


def _lock_was_there(path: Path, lock: Path) -> OtherLocks:
    return OtherLocks(
        f"{lock} was created since sidecar started: a program locks {path} with it instead of POSIX locks, so it cannot be copied safely",
        f"open it with SQLite's default VFS in the app, and start again; see {OTHER_LOCKS}",
    )


def require_abandoned(path: Path) -> None:
    """Raise `DatabaseBusy` if a process has the journal open: it may still be writing, so we must not roll it back."""
    journal = identity_of(f"{path}-journal")
    users = [each.pid for each in openers({journal}) if each.pid != os.getpid()] if journal else []
    if users:
        raise DatabaseBusy(f"process {users[0]} is writing {path}, or rolling it back", "sidecar tries again by itself")


def written_while_locked(path: Path) -> OtherLocks:
    """The error for a database that was written while we had a lock on it."""
    return OtherLocks(
        f"{path} was written while sidecar had it locked for reading: some program does not use POSIX locks, so the copy is discarded",
        f"see {OTHER_LOCKS}",
    )
