"""Whether the programs that use a database lock it as SQLite does by default, with POSIX locks.

Others (the VFS `unix-dotfile`, builds for WebAssembly, `nolock`) do not see our locks, nor we theirs: SQLite would take
their live journal for that of a crash and roll it back, and a copy would be torn. So this is asked before each first open,
from what can be seen without opening the database.
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
AGREEING = 2  # looks that must agree: a file may be opened, unlocked or closed while we look


@dataclass(frozen=True, slots=True)
class Files:
    """A database and its companions as they are now. `hot` describes a journal that would be rolled back."""

    path: Path
    folder: Identity | None
    database: Identity | None
    wal: Identity | None
    shm: Identity | None
    journal: Identity | None = None
    hot: tuple[int, int] | None = None

    @classmethod
    def of(cls, path: Path) -> "Files":
        """Look at the files. Only the journal is opened, on which SQLite has no locks."""
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
    """What a process does to a database, and the page about it. A `lasting` one counts until sidecar is started again."""

    what: str
    page: str
    lasting: bool = False


def _hot(journal: Path) -> tuple[int, int] | None:
    """Size and time of change of a journal that has content; see https://sqlite.org/lockingv3.html#hot_journals."""
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
    """Processes that break the rules of POSIX locks; `seen` was looked at between `before` and `after`.

    A descriptor that was inherited over a fork(2) has no locks: nobody is suspected while somebody has the lock, nor for a
    WAL beside the shared memory, which programs without POSIX locks do not have (sqlite.org/wal.html#noshm).
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
    """The WAL of a process that has the database open under another name than ours, or whose WAL was deleted.

    Without a lock, the descriptors of a deleted one were inherited from a process that has closed the database since.
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
    """What a look at the processes that have a database open has found; `locked`: one of them holds a POSIX lock."""

    suspects: dict[int, Suspicion]
    locked: bool


def look_at(path: Path, pids: set[int]) -> Look:
    """Look once, at these processes only, so that little can change meanwhile."""
    before = Files.of(path)
    seen = openers(before.opened, pids)
    locked = any(each.holds(before.locked) for each in seen if each.pid != os.getpid())
    return Look(suspects(before, seen, Files.of(path)), locked)


def find_suspect(look: Callable[[], Look]) -> tuple[tuple[int, Suspicion] | None, bool]:
    """The first process that was suspect in two looks, if any, and whether one had a lock. A lock alone ends the search."""
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
    """What is known of a database since we watch its directory; `before` are its files as they were then."""

    directory: Identity
    lock_file: Creation
    before: tuple[FileStamp | None, ...]


class LockGuard:
    """Asks, for the databases of one process, whether POSIX locks are what their programs use."""

    def __init__(self) -> None:
        self._watches: dict[Path, _Watch] = {}
        self._doubts: dict[Path, OtherLocks] = {}  # for good: the program may be between two transactions now
        self._trusted: set[Path] = set()
        self._in_use: set[Path] = set()

    def watch(self, path: Path) -> None:
        """Begin to watch for a lock file, if the directory is there."""
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
        """Raise `OtherLocks` when there is a lock file beside the database, or ever was since we watch."""
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
        """Whether it is known that the app uses POSIX locks, as WAL requires.

        That is when it was seen to hold one, or, if nobody has the database open, when it was written without a lock file
        since we watch. Where the system cannot tell, SQLite's default is assumed.
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
    """Raise `OtherLocks` when there is a doubt now."""
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
        f"{lock} exists: a program locks {path} with that {kind} instead of POSIX locks, or was killed while it did",
        f"if no program uses the database, remove it with `{remove} {lock}`, and open it with SQLite's default VFS; see {OTHER_LOCKS}",
    )


def _lock_was_there(path: Path, lock: Path) -> OtherLocks:
    return OtherLocks(
        f"{lock} was created since sidecar started: a program locks {path} with it instead of POSIX locks, so it cannot be copied safely",
        f"open it with SQLite's default VFS in the app, and start again; see {OTHER_LOCKS}",
    )


def require_abandoned(path: Path) -> None:
    """Raise `DatabaseBusy` when a process has the journal open: it may be writing, so it is not ours to roll back."""
    journal = identity_of(f"{path}-journal")
    users = [each.pid for each in openers({journal}) if each.pid != os.getpid()] if journal else []
    if users:
        raise DatabaseBusy(
            f"{path} is being written, or rolled back, by process {users[0]}", "sidecar tries again by itself"
        )


def written_while_locked(path: Path) -> OtherLocks:
    """The error for a database that was written while we had a lock on it."""
    return OtherLocks(
        f"{path} was written while sidecar had it locked for reading: some program does not use POSIX locks on it, and the copy is not used",
        f"see {OTHER_LOCKS}",
    )
