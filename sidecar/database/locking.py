"""Checks whether the programs that use a database lock it as SQLite does by default, with POSIX locks.

Some do not: the VFS `unix-dotfile`, builds for WebAssembly, `nolock`. They do not see our locks, and we do not see theirs.
SQLite would then take their live journal for that of a crash and roll it back, and a copy would be torn. So the check runs
before the database is opened, and without opening it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sidecar.database.evidence import Files, find_suspect, look_at, openers_of
from sidecar.database.lineage import posix_locks_seen
from sidecar.database.lock_file import Kind, kind_of, kind_seen, lock_exists, lock_of, lock_was_there
from sidecar.database.naming import require_own_name
from sidecar.database.signature import signature_of
from sidecar.errors import DatabaseBusy, OtherLocks
from sidecar.host import Creation, Identity, identity_of, shows_locks
from sidecar.host.openers import locks_exclude, shows_locks_in
from sidecar.log import log
from sidecar.model import FileStamp
from sidecar.status.documentation import OTHER_LOCKS


@dataclass(slots=True)
class _Watch:
    """What is known of a database since we watch its directory; `before` are its files as they were then.

    `shows_locks`: the locks of other programs can be seen there.
    """

    directory: Identity
    lock_file: Creation | None
    before: tuple[FileStamp | None, ...]
    shows_locks: bool


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
            self._watches[path] = _Watch(directory, _creation(path), _stamps(path), self._shows_locks(path))

    def require(self, path: Path) -> None:
        """Raise `OtherLocks` on any doubt, without opening the database, or `DatabaseBusy` if there may be one."""
        self.watch(path)
        if doubt := self._doubts.get(path):
            raise doubt
        require_own_name(path)
        if kind_of(lock_of(path)) == "directory":
            raise self._doubt(path, lock_exists(path, "directory"))
        self._require_locks(path)
        self.require_no_lock_file(path)

    def require_no_lock_file(self, path: Path) -> None:
        """Raise `OtherLocks` when there is a lock beside the database, or ever was since we watch.

        A directory is one in any case. A file is none once a program was seen to use POSIX locks.
        """
        watch = self._watches.get(path)
        seen = watch.lock_file.seen() if watch and watch.lock_file else None
        there = kind_of(lock_of(path))
        was_there = kind_seen(seen) if seen else None
        if "directory" in {there, was_there}:
            error = lock_exists(path, "directory") if there == "directory" else lock_was_there(path, "directory")
            raise self._doubt(path, error)
        if self.uses_posix_locks(path):
            self._log_ignored(path, there or was_there)
        elif there or was_there:
            raise lock_exists(path, "file") if there else lock_was_there(path, "file")
        elif seen and seen.lost:
            seen.lost = False
            raise DatabaseBusy(
                f"more files were created beside {path} than the kernel reports: whether a lock was among them is not known",
                "keep the database in a directory of its own; sidecar tries again by itself",
            )

    def uses_posix_locks(self, path: Path) -> bool:
        """Whether a program was seen to lock the database as SQLite does by default: by us, or by a sidecar before us."""
        return path in self._trusted or posix_locks_seen(path)

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
        if path in self._trusted or watch is None or watch.lock_file is None or not watch.shows_locks:
            return True
        seen = watch.lock_file.seen()
        if kind_of(lock_of(path)) or kind_seen(
            seen
        ):  # a file that was taken for harmless for what is known from before
            return False
        return path not in self._in_use and _stamps(path) != watch.before

    def _require_locks(self, path: Path) -> None:
        watch = self._watches.get(path)
        shown = watch.shows_locks if watch else shows_locks()
        pids = {each.pid for each in openers_of(Files.of(path).opened, None, path)} if shown else set()
        self._in_use.discard(path)
        if not pids:
            return
        self._in_use.add(path)
        suspect, locked = find_suspect(lambda: look_at(path, {*pids, os.getpid()}))
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

    def _shows_locks(self, path: Path) -> bool:
        if not shows_locks():
            return False
        if shows_locks_in(path.parent):
            return True
        if not locks_exclude(path.parent):
            self._doubt(path, _locks_without_effect(path))
            return False
        hint = "whether the app uses POSIX locks, as SQLite does by default, cannot be checked here; that it does is assumed"
        _log_once("locks are not visible on this file system", path, hint=hint)
        return False

    def _log_ignored(self, path: Path, kind: Kind | None) -> None:
        if kind:
            hint = "a program was seen to use POSIX locks, so it is not the database's lock; choose another name for it"
            _log_once("lock file beside the database ignored", path, hint=hint)


@cache
def _log_once(event: str, path: Path, hint: str) -> None:
    """Once in this process: a boot asks with a guard of its own."""
    log.warning(event, path=str(path), hint=hint)


def _locks_without_effect(path: Path) -> OtherLocks:
    return OtherLocks(
        f"the file system of {path} grants a lock to two programs at once: a copy could be torn, so it is not copied",
        f"put the database on a local disk, or have the file system keep locks itself; see {OTHER_LOCKS}",
    )


def _creation(path: Path) -> Creation | None:
    try:
        return Creation(lock_of(path))
    except OSError:
        return None


def _stamps(path: Path) -> tuple[FileStamp | None, ...]:
    signature = signature_of(path)
    return (signature.database, signature.wal) if signature else (None, None)


def require_posix_locks(path: Path) -> None:
    """Raise `OtherLocks` on any doubt at this moment."""
    LockGuard().require(path)


def require_abandoned(path: Path) -> None:
    """Raise `DatabaseBusy` if a process has the journal open: it may still be writing, so we must not roll it back."""
    journal = identity_of(f"{path}-journal")
    users = openers_of({journal}, None, path) if journal else []
    if users:
        raise DatabaseBusy(
            f"process {users[0].pid} is writing {path}, or rolling it back", "sidecar tries again by itself"
        )


@contextmanager
def noticing_crash(path: Path, sqlite_error: type[Exception]) -> Iterator[None]:
    """Begin to read through a connection that cannot roll back a journal.

    Raises `DatabaseBusy` when there is one to be rolled back: its writer has died since we looked, and the next attempt
    finds it.
    """
    try:
        yield
    except sqlite_error as error:
        if "readonly" not in str(error):
            raise
        raise DatabaseBusy(
            f"a process died while it was writing {path}",
            "sidecar tries again by itself, and rolls that transaction back",
        ) from error


def written_while_locked(path: Path) -> OtherLocks:
    """The error for a database that was written while we had a lock on it."""
    return OtherLocks(
        f"{path} was written while sidecar had it locked for reading: some program does not use POSIX locks, so the copy is discarded",
        f"see {OTHER_LOCKS}",
    )
