"""Snapshots: consistent copies of a live database, made with SQLite's backup API, or of the parts that are not known yet.

One idea, because all of them need the same locks, in the same order.

All work on a live database is done in one worker thread, not through aiosqlite. aiosqlite's own backup crashes the
interpreter when it is cancelled; here the thread that copies notices the cancellation itself. And the two connections
must be closed in a fixed order: closing a descriptor of the database too early drops the POSIX locks of the process.
Where the live file is opened without SQLite, its descriptor is kept until that is harmless (see `wal.descriptors`).
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import from_thread, to_thread

from sidecar.database.base import Feed, Staging
from sidecar.database.driver import Driver, default_driver, pragma, touch
from sidecar.database.errors import is_busy
from sidecar.database.followed import Place, followed
from sidecar.database.in_place import Choose, Comparison, Shown
from sidecar.database.locking import LockGuard, noticing_crash, require_abandoned, written_while_locked
from sidecar.database.partial import Known, Live, PartialCopies, Staged
from sidecar.database.signature import signature_of
from sidecar.database.staging import DESCRIPTORS, require_opened
from sidecar.database.statistics import contents_of
from sidecar.database.wal import leaving_no_log
from sidecar.database.wal_origin import WalOrigins
from sidecar.errors import DatabaseBusy, DatabaseMissing
from sidecar.host import permissions_of
from sidecar.log import log
from sidecar.model import Signature, Snapshot

if TYPE_CHECKING:
    import sqlite3


STEP_BYTES = 4 << 20
SNAPSHOT_LIMIT = 3600.0
WAL_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class _Copy:
    """A finished copy in staging, perhaps only of what is not `known`; `started` and `checkpointed` are monotonic times."""

    staged: Staged
    pages: int
    page_size: int
    signature: Signature
    started: float
    checkpointed: float
    is_wal: bool
    known: Known | None


class SqliteSnapshotter:
    """Implements `base.Snapshotter`. `driver` is the SQLite library of this process, by default the daemon's choice."""

    def __init__(
        self,
        staging: Staging,
        *,
        driver: Driver | None = None,
        switch_to_wal: bool = True,
        feeds: Mapping[Path, Feed] | None = None,
        origins: WalOrigins | None = None,
    ) -> None:
        """`feeds` are the databases that are followed: their copies say which commit they are of.

        `origins` remembers who chose WAL mode.
        """
        self._origins = origins or WalOrigins()
        self._feeds = feeds if feeds is not None else {}
        self._driver = driver or default_driver()
        self._copies = PartialCopies(self._driver, staging)
        self._switch_to_wal = switch_to_wal
        self._guard = LockGuard()
        self._logged: set[tuple[str, str]] = set()

    def sqlite_version(self) -> str:
        """See `base.Snapshotter`."""
        return self._driver.version

    def may_checkpoint(self) -> bool:
        """See `base.Snapshotter`."""
        return self._driver.may_checkpoint

    def signature(self, path: Path) -> Signature | None:
        """See `base.Snapshotter`."""
        return signature_of(path)

    async def prepare(self, path: Path) -> None:
        """See `base.Snapshotter`."""
        await to_thread.run_sync(_prepare, self._driver, self._guard, path)

    async def settle(self, path: Path) -> None:
        """See `base.Snapshotter`."""
        await to_thread.run_sync(_settle, self._driver, self._guard, path)

    @asynccontextmanager
    async def snapshot(self, path: Path, choose: Choose | None = None) -> AsyncIterator[Snapshot]:
        """See `base.Snapshotter`."""
        if self.signature(path) is None:
            raise DatabaseMissing(f"there is no database at {path} yet")
        with ExitStack() as reserved:
            async with followed(self._feeds.get(path)) as place:
                copy = await to_thread.run_sync(self._copy_live, path, reserved, place, choose)
            yield replace(await self._described(path, copy), followed=place.located)

    async def compare(self, path: Path, choose: Choose) -> Comparison | None:
        """See `base.Snapshotter`."""
        if self.signature(path) is None:
            return None
        async with followed(self._feeds.get(path)) as place:
            return await to_thread.run_sync(self._compare_live, path, place, choose)

    async def _described(self, path: Path, copy: _Copy) -> Snapshot:
        staged, known = copy.staged, copy.known
        is_partial = known is not None and known.staged is not None
        if known and is_partial:
            contents = known.contents
        else:
            with self._driver.translated(path):  # reading the schema also proves that the copy is a database
                contents = await contents_of(self._driver, staged.path, staged.file)
        page_size = copy.page_size
        return Snapshot(
            path=staged.path,
            size=page_size * copy.pages,
            live=page_size * max(0, copy.pages - contents.unused),
            page_size=page_size,
            tables=contents.tables,
            bare=page_size * contents.roots,
            rows=contents.rows,
            signature=copy.signature,
            sqlite_version=self.sqlite_version(),
            on_tmpfs=staged.on_tmpfs,
            seconds={
                "checkpoint": copy.checkpointed - copy.started,
                "snapshot": time.monotonic() - copy.checkpointed,
            },
            file=staged.file if DESCRIPTORS.is_dir() else None,
            permissions=permissions_of(path),
            posix_locks=self._guard.uses_posix_locks(path),
            wal_by=self._origins.found_wal(path) if copy.is_wal else None,
            read=known.copied if known and is_partial else None,
            compared=known.found.compared if known else frozenset(),
            written_past=known.found.differing if known else (),
        )

    def _copy_live(self, path: Path, reserved: ExitStack, place: Place, choose: Choose | None) -> _Copy:
        """Checkpoint and copy; `reserved` keeps the staged file, which outlives the connections."""
        started = time.monotonic()
        self._guard.require(path)
        driver, tends = self._driver, self.may_checkpoint() and not place.is_followed
        with driver.translated(path), leaving_no_log(path, driver, tends=tends) as (source, leftover):
            is_wal = self._is_wal(path)
            if is_wal or (self._switch_to_wal and self._may_switch(path)):
                with closing(self._driver.connect(path, "rw")) as checkpointer:
                    self._driver.load_schema(checkpointer)
                    is_wal = self._journal(checkpointer, path)
                    self._checkpoint(checkpointer, path)
                    signature, checkpointed = self._begin(source, path, place)
                # The writing connection is closed while the read-only one still holds its lock. The other way round it
                # could be the last one, and would lock everybody out to checkpoint and delete the WAL.
            else:
                signature, checkpointed = self._begin(source, path, place)
            leftover.begun()
            locked = None if is_wal else self.signature(path)  # nobody may write the file as long as we read it
            page_size, pages = pragma(source, "page_size"), pragma(source, "page_count")
            if signature is None or not pages:
                raise DatabaseMissing(f"there is no database at {path} yet")
            known = None
            if is_wal and choose and place.index and place.located:
                shown, inode = Shown(place.index, page_size, pages), signature.database.inode
                live = Live(source, path, inode, shown, place.located, checkpointed)
                known = self._copies.copied(live, choose, reserved)
            if (staged := known.staged if known else None) is None:
                staged = self._copies.stage(path, page_size * pages, reserved)
                self._backup(source, staged.path, staged.file, page_size)
            self._require_still(path, locked)
        return _Copy(staged, pages, page_size, signature, started, checkpointed, is_wal, known)

    def _compare_live(self, path: Path, place: Place, choose: Choose) -> Comparison | None:
        began = time.monotonic()
        self._guard.require(path)
        with self._driver.translated(path), closing(self._driver.connect(path, "ro")) as source:
            if not self._is_wal(path):
                return None
            signature, _ = self._begin(source, path, place)
            if signature is None or place.index is None or place.located is None:
                return None
            shown = Shown(place.index, pragma(source, "page_size"), pragma(source, "page_count"))
            live = Live(source, path, signature.database.inode, shown, place.located, began)
            return self._copies.compared(live, choose)

    def _begin(self, source: "sqlite3.Connection", path: Path, place: Place) -> tuple[Signature | None, float]:
        """Begin to read; the files as they were just before, and when."""
        checkpointed = time.monotonic()
        with noticing_crash(path, self._driver.error):
            self._driver.load_schema(source)
            while True:
                signature = self.signature(path)
                with place.noted() as note:
                    source.execute("BEGIN")
                    touch(source)
                if note.is_final:
                    from_thread.run(place.locate)
                    return signature, checkpointed
                source.execute("ROLLBACK")

    def _is_wal(self, path: Path) -> bool:
        """Read the journal mode through a connection that cannot roll back a journal, whoever wrote that."""
        try:
            return self._driver.journal_mode(path, "ro") == "wal"
        except self._driver.error as error:
            if "readonly" in str(error):
                self._recover(path)
            elif is_busy(error):
                raise
            # Of a damaged file, this one leaves no empty WAL behind.
            return self._driver.journal_mode(path, "rw") == "wal"

    def _recover(self, path: Path) -> None:
        """Roll back what a crashed process has left, unless a process still has that journal open."""
        self._guard.require(path)
        require_abandoned(path)
        self._driver.journal_mode(path, "rw")
        self._guard.wrote(path)

    def _may_switch(self, path: Path) -> bool:
        if self._guard.may_switch(path):
            return True
        self._log_once(log.info, "database not switched to WAL yet: no program was seen to lock it", path=str(path))
        return False

    def _require_still(self, path: Path, locked: Signature | None) -> None:
        """Raise `OtherLocks` when somebody has ignored our locks during the copy; `locked` are files that nobody may write."""
        self._guard.require_no_lock_file(path)
        now = self.signature(path)
        if locked and now and now.database != locked.database and now.database.inode == locked.database.inode:
            raise written_while_locked(path)

    def _backup(self, source: "sqlite3.Connection", target: Path, file: int, page_size: int) -> None:
        """Copy inside the read transaction that `source` has open, so that no write restarts the copy."""
        limit = time.monotonic() + SNAPSHOT_LIMIT
        with closing(self._driver.connect(target, "rw")) as destination:
            require_opened(target, file)
            destination.execute("PRAGMA journal_mode=OFF")
            destination.execute("PRAGMA synchronous=OFF")
            source.backup(destination, pages=max(1, STEP_BYTES // page_size), progress=partial(_on_progress, limit))

    def _journal(self, connection: "sqlite3.Connection", path: Path) -> bool:
        """Switch to WAL if asked to; True in WAL mode. A database that others use may refuse, and is copied as it is."""
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return True
        if not self._switch_to_wal:
            return False
        from_thread.run_sync(self._origins.not_chosen, path)  # before: a crash must not make it the app's choice
        connection.execute("PRAGMA busy_timeout=50")  # from here on the connection holds locks itself
        for _ in range(WAL_ATTEMPTS):
            from_thread.check_cancelled()
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except self._driver.error as error:
                if not is_busy(error):
                    raise
                time.sleep(0.05)
                continue
            if mode == "wal":
                log.info("database switched to WAL", path=str(path))
                return True
            break
        self._log_once(
            log.warning,
            "database not switched to WAL",
            path=str(path),
            hint="its writers wait while it is copied: run PRAGMA journal_mode=WAL in the app, or accept this with journal_mode=keep",
        )
        return False

    def _checkpoint(self, connection: "sqlite3.Connection", path: Path) -> None:
        """Checkpoint in mode PASSIVE, which never waits for readers or writers."""
        if self.may_checkpoint():
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        else:
            self._log_once(
                log.warning,
                "checkpoint skipped",
                path=str(path),
                sqlite=self.sqlite_version(),
                hint="this SQLite has the WAL-reset bug: install pysqlite3, or Python with SQLite 3.51.3 or newer",
            )

    def _log_once(self, write: Callable[..., object], event: str, **details: str) -> None:
        if (event, details["path"]) not in self._logged:
            self._logged.add((event, details["path"]))
            write(event, **details)


def _prepare(driver: Driver, guard: LockGuard, path: Path) -> None:
    """Recover the database after a crash. Not switched to WAL yet: the app may not use the locks that WAL requires."""
    present = signature_of(path) is not None
    guard.require(path)
    if present:
        with driver.translated(path), closing(driver.connect(path, "rw")) as connection:
            driver.load_schema(connection)
            touch(connection)
        guard.wrote(path)


def _settle(driver: Driver, guard: LockGuard, path: Path) -> None:
    guard.require(path)
    with driver.translated(path), closing(driver.connect(path, "ro&immutable=1")) as connection:
        # Opened for writing, SQLite would delete the WAL of a file that it cannot read as a database.
        connection.text_factory = bytes
        driver.load_schema(connection)
        connection.execute("SELECT * FROM sqlite_schema").fetchall()
    with driver.translated(path), closing(driver.connect(path, "rw")) as connection:
        driver.load_schema(connection)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DatabaseBusy(f"{path} is in use by another process", "stop it first")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")


def _on_progress(limit: float, _status: int, _remaining: int, _total: int) -> None:
    from_thread.check_cancelled()
    if time.monotonic() > limit:
        raise DatabaseBusy("the snapshot took more than an hour: abandoned, so that the WAL can be reset again")
