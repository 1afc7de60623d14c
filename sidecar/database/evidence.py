"""What processes do to a database, and whether that breaks the rules of POSIX locks: seen without opening it."""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import DatabaseBusy
from sidecar.host import Identity, Opener, OpenFile, identity_of
from sidecar.host.openers import openers
from sidecar.status.documentation import ANOTHER_NAME, OTHER_LOCKS

LOOKS = 6
BETWEEN_LOOKS = 0.01
LOCK_BYTES = range(0x40000000, 0x40000000 + 512)  # of the database: https://sqlite.org/src/file/src/os.h, PENDING_BYTE
WAL_LOCK_BYTES = range(120, 129)  # of the shared memory: https://sqlite.org/walformat.html#locks
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
    def all(self) -> set[Identity]:
        """All of them that exist."""
        return {each for each in (self.database, self.wal, self.shm, self.journal) if each}

    def are_locked_by(self, opener: Opener) -> bool:
        """Whether a process has a lock as SQLite takes them: by default, and on the bytes that it uses."""
        return any(
            (file.identity == self.database and not file.locked.isdisjoint(LOCK_BYTES))
            or (file.identity == self.shm and not file.locked.isdisjoint(WAL_LOCK_BYTES))
            for file in opener.files
            if file.identity
        )

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
        identities = {file.identity for file in each.files if file.identity}
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
    if file.identity is None or file.identity != ours.database:
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
    seen = [each for each in openers_of(before.all, pids, path) if any(f.identity in before.opened for f in each.files)]
    locked = any(before.are_locked_by(each) for each in seen if each.pid != os.getpid())
    return Look(suspects(before, seen, Files.of(path)), locked)


def openers_of(identities: set[Identity], pids: set[int] | None, path: Path) -> list[Opener]:
    try:
        return openers(identities, pids, path.name)
    except TimeoutError as error:
        raise DatabaseBusy(
            f"which processes have {path} open cannot be told: {error}",
            "look for a hung mount, such as NFS (`mount`); sidecar tries again by itself",
        ) from error


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
