"""What happens to one database before the app starts: decide, then carry the decision out."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.database.lineage import Lineage, Marker
from sidecar.errors import (
    ConfigurationError,
    DamagedDatabase,
    DamagedRestorePoint,
    DatabaseBusy,
    NothingToRestore,
    SidecarError,
)
from sidecar.host.files import Swap, aside, local_errors, require_unused, require_writable, swap
from sidecar.model import Database, RestorePoint, Timestamp
from sidecar.policies import OnConflict, OnEmptyStore
from sidecar.progress import Progress
from sidecar.repository.catalog import OTHERS, Catalog
from sidecar.repository.reader import Reader, Restored
from sidecar.repository.reuse import Parent
from sidecar.restore.boot_report import BootNotices
from sidecar.restore.decision import Decision, decide

log = structlog.get_logger()

OTHERS_SECONDS = 3.0  # only to say what else the store has


@dataclass(frozen=True, slots=True)
class Booted:
    """How a boot ended, and how backups begin: at once or after the interval, publishing whatever happens or not.

    `newest` is the key of the newest restore point that the boot found.
    """

    outcome: str
    at_once: bool = False
    force: bool = False
    newest: str | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """What a boot found."""

    database: Database
    lineage: Lineage
    marker: Marker | None
    newest: RestorePoint | None
    progress: Progress | None
    tell: BootNotices


class Boot:
    """Carries out the boot table for one database after the other."""

    def __init__(
        self,
        catalog: Catalog,
        reader: Reader,
        tools: Tools,
        *,
        durable: Callable[[Path], bool],
        on_empty: OnEmptyStore,
        on_conflict: OnConflict,
        alone: bool,
    ) -> None:
        self._catalog = catalog
        self._reader = reader
        self._snapshotter = tools.snapshotter
        self._status = tools.status
        self._clock = tools.clock
        self._fence = tools.fence
        self._durable = durable
        self._on_empty = on_empty
        self._on_conflict = on_conflict
        self._alone = alone

    async def boot(self, backup: Backup, lineage: Lineage, progress: Progress | None = None) -> Booted:
        """Bring the database of `backup` to where the app may start. Raises what makes a start impossible."""
        database, started = backup.database, self._clock.monotonic()
        require_writable(database.path)
        local = self._snapshotter.signature(database.path) is not None
        newest = await self._catalog.newest(database.name)
        marker = lineage.read() if local else None
        decision = decide(
            newest.key if newest else None,
            local=local,
            marker=marker,
            on_empty=self._on_empty,
            on_conflict=self._on_conflict,
        )
        tell = BootNotices(database, self._catalog.store.url, self._status)
        booted, restored = await self._carry_out(decision, _Case(database, lineage, marker, newest, progress, tell))
        unfinished = self._fence.unfinished
        if unfinished and not (local and unfinished == self._status.lease.holder):  # its own disk: nothing is missing
            tell.was_unfinished(unfinished, restored.point if restored else newest)
        seconds = self._clock.monotonic() - started
        await self._prepare(database)
        if restored:
            root, at = restored.contents.index.root, restored.point.timestamp
            backup.descends_from(restored.point.key, at, root, unchanged=True)
            backup.reuses(Parent(restored.info, restored.contents))
        if booted.force:
            backup.must_publish()
        if newest:
            backup.continues(newest, None if restored else marker)
        self._tell(database, decision, booted, restored, seconds)
        return replace(booted, newest=newest.key if newest else None)

    async def _carry_out(self, decision: Decision, what: "_Case") -> tuple[Booted, Restored | None]:
        newest = what.newest.key if what.newest else ""
        if refusal := refused(decision, what.database, self._catalog.store.url, newest):
            raise refusal
        match decision:
            case Decision.START_EMPTY:
                what.tell.started_empty(await self._others())
                return Booted("started_empty"), None
            case Decision.PUBLISH_LOCAL | Decision.CONFLICT_LOCAL:
                what.tell.from_elsewhere(what.lineage.elsewhere())
                if decision is Decision.PUBLISH_LOCAL:
                    what.tell.lost_from_store(what.marker)
                else:
                    what.tell.local_won(newest)
                return Booted("kept_local", at_once=True, force=True), None
            case Decision.KEEP_LOCAL:
                what.lineage.refresh()
                return Booted("kept_local", at_once=True), None
        return await self._restore(what)

    async def _others(self) -> tuple[str, ...]:
        """Databases that the store has: a misspelt name is found out by them."""
        with suppress(SidecarError), anyio.move_on_after(OTHERS_SECONDS):
            return await self._catalog.names(OTHERS)
        return ()

    async def _restore(self, case: "_Case") -> tuple[Booted, Restored | None]:
        """Restore the newest good point; whatever is in its place is kept aside first, at the last moment."""
        database = case.database
        with local_errors(database.path):
            database.path.parent.mkdir(parents=True, exist_ok=True)
        was_there = case.lineage.left_behind() is not None
        found = await self._newest_good(case)
        if found is None:
            case.tell.kept_below_damaged(case.newest)
            return Booted("kept_local", at_once=True, force=True), None
        restored, staged = found
        try:
            with local_errors(database.path):
                await self._put_in_place(case, restored, staged)
        finally:
            staged.unlink(missing_ok=True)
        if was_there:
            case.tell.was_missing(case.lineage.path, restored.point)
        fell_back = case.newest is None or restored.point.key != case.newest.key
        if fell_back:
            case.tell.fell_back(case.newest, restored.point)
        return Booted("fell_back" if fell_back else "restored", fell_back, fell_back), restored

    async def _newest_good(self, case: "_Case") -> tuple[Restored, Path] | None:
        """Download the newest restore point that is not damaged; None when the local database descends from it.

        Raises `DamagedRestorePoint` when none is good.
        """
        first: DamagedRestorePoint | None = None
        async for point in self._newest_first(case):
            if case.marker and case.marker.names(point.key):
                return None
            try:
                return await self._reader.stage(point, case.database, case.progress)
            except DamagedRestorePoint as damage:
                first = first or damage
                case.tell.skipped(damage)
        raise none_good(case.database, first.message if first else "none")

    async def _newest_first(self, case: "_Case") -> AsyncIterator[RestorePoint]:
        if case.newest is None:
            return
        yield case.newest
        older = [point async for point in self._catalog.points(case.database.name) if point.key < case.newest.key]
        for point in reversed(older):
            yield point

    async def _put_in_place(self, case: _Case, restored: Restored, staged: Path) -> None:
        """Move what lies at the database's path aside, and the restored file in its place."""
        database, lineage = case.database, case.lineage
        at = Timestamp.of(await self._catalog.store.now())
        newer = self._written(database.path) > restored.point.timestamp.instant.timestamp() + 1
        origin = lineage.elsewhere()
        kept = await self._way_out(database, at)
        # Before the rename: a crash in between must not make a conflict of what was just restored.
        mark = partial(lineage.descends, restored.point.key, restored.contents.index.root)
        what = Swap(staged, database.path, kept, at, self._durable(database.path), mark)
        for orphan in await to_thread.run_sync(swap, what):
            log.warning("a WAL or journal without its database was kept aside", path=str(orphan))
        if kept:
            case.tell.remote_won(kept, newer=newer, origin=origin)

    def _written(self, path: Path) -> float:
        """When a local database was last written, in seconds by this machine's clock; 0 when there is none."""
        signature = self._snapshotter.signature(path)
        files = (signature.database, signature.wal) if signature else ()
        return max((each.mtime_ns for each in files if each), default=0) / 1e9

    async def _way_out(self, database: Database, at: Timestamp) -> Path | None:
        """Where the local database is to be kept, made whole in one file; None when there is none."""
        if self._snapshotter.signature(database.path) is None:
            return None
        if not self._alone:
            raise ConfigurationError(
                f"{database.path} does not descend from the newest restore point, and another container may have it open",
                "stop that one and run `sidecar restore --force`, or keep the local file with on_conflict=local",
            )
        require_unused(database.path)
        try:
            await self._snapshotter.settle(database.path)
        except DamagedDatabase as error:
            log.warning("the local database is damaged; it is kept as it is", error=error.message)
        return aside(database.path, "diverged", at)

    async def _prepare(self, database: Database) -> None:
        try:
            await self._snapshotter.prepare(database.path)
        except DatabaseBusy as error:
            log.warning("the database is in use before the app started", database=database.name, error=error.message)

    def _tell(
        self, database: Database, decision: Decision, booted: Booted, restored: Restored | None, seconds: float
    ) -> None:
        size = restored.contents.index.database_size if restored else 0
        source = restored.point.key if restored else None
        self._status.restored(database.name, booted.outcome, seconds, size, source)
        log.info(
            "database ready",
            database=database.name,
            decision=decision.value,
            outcome=booted.outcome,
            key=source,
            database_bytes=size,
            downloaded_bytes=restored.downloaded if restored else 0,
            seconds=round(seconds, 3),
        )


def refused(decision: Decision, database: Database, store: str, newest: str) -> SidecarError | None:
    """Why a boot that came to this decision would not start the app; None when it would."""
    if decision is Decision.NOTHING_TO_RESTORE:
        return NothingToRestore(
            f"{store} has no restore point of {database.name}, and on_empty_store=fail",
            "check `store` and the database's name, or set on_empty_store=start for the first start",
        )
    if decision is Decision.CONFLICT_FAIL:
        return ConfigurationError(
            f"{database.path} does not descend from the newest restore point {newest}, and on_conflict=fail",
            "move the file away to restore, or set on_conflict to remote or local",
        )
    return None


def none_good(database: Database, newest: str) -> DamagedRestorePoint:
    """Why a boot does not start the app where a restore point is needed; `newest` is what is wrong with the newest."""
    return DamagedRestorePoint(
        f"no restore point of {database.name} is good; the newest: {newest}",
        "nothing was changed; look with `sidecar verify --all`; a file put in place by hand starts with on_conflict=local; "
        "if all were deleted on purpose, delete lease.json too",
    )
