"""What happens to one database before the app starts: decide, then carry the decision out."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from sidecar.backup import Backup, Tools
from sidecar.domain import Database, RestorePoint, Timestamp
from sidecar.errors import (
    ConfigurationError,
    DamagedDatabase,
    DamagedRestorePoint,
    DatabaseBusy,
    NothingToRestore,
)
from sidecar.files import aside, keep_orphans, local_errors, move_aside, require_writable
from sidecar.lineage import Lineage
from sidecar.replica import Replica
from sidecar.restore import Decision, OnConflict, OnEmptyStore, Progress, Restored, Restorer, decide

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Booted:
    """How a boot ended. `diverged` is the local database that gave way, `at_once` and `force` how backups begin."""

    outcome: str
    at_once: bool = False
    force: bool = False
    diverged: tuple[Path, Timestamp] | None = None


class Boot:
    """Carries out the boot table for one database after the other."""

    def __init__(
        self,
        replica: Replica,
        restorer: Restorer,
        tools: Tools,
        *,
        durable: bool,
        on_empty: OnEmptyStore,
        on_conflict: OnConflict,
    ) -> None:
        self._replica = replica
        self._restorer = restorer
        self._snapshotter = tools.snapshotter
        self._status = tools.status
        self._clock = tools.clock
        self._durable = durable
        self._on_empty = on_empty
        self._on_conflict = on_conflict

    async def boot(self, backup: Backup, lineage: Lineage, progress: Progress | None = None) -> Booted:
        """Bring the database of `backup` to where the app may start. Raises what makes a start impossible."""
        database, started = backup.database, self._clock.monotonic()
        require_writable(database.path)
        local = self._snapshotter.signature(database.path) is not None
        newest = await self._replica.newest(database.name)
        marker = lineage.read()
        decision = decide(
            newest.key if newest else None,
            local=local,
            marker=marker,
            on_empty=self._on_empty,
            on_conflict=self._on_conflict,
        )
        booted, restored = await self._carry_out(decision, database, newest, progress)
        seconds = self._clock.monotonic() - started
        await self._prepare(database)
        if restored:
            root, at = restored.contents.index.root, restored.point.timestamp
            lineage.descends(restored.point.key, root)
            backup.descends_from(restored.point.key, at, root, unchanged=True)
        if booted.force:
            backup.must_publish()
        if newest:
            backup.continues(newest, None if restored else marker)
        self._tell(database, decision, booted, restored, seconds)
        return booted

    async def _carry_out(
        self, decision: Decision, database: Database, newest: RestorePoint | None, progress: Progress | None
    ) -> tuple[Booted, Restored | None]:
        match decision:
            case Decision.START_EMPTY:
                return Booted("started_empty"), None
            case Decision.NOTHING_TO_RESTORE:
                raise NothingToRestore(
                    f"{self._replica.store.url} has no restore point of {database.name}, and on_empty_store=fail",
                    "check `store` and the database's name, or set on_empty_store=start for the first start",
                )
            case Decision.PUBLISH_LOCAL | Decision.CONFLICT_LOCAL:
                return Booted("kept_local", at_once=True, force=True), None
            case Decision.KEEP_LOCAL:
                return Booted("kept_local", at_once=True), None
            case Decision.CONFLICT_FAIL:
                raise ConfigurationError(
                    f"{database.path} does not descend from the newest restore point"
                    f" {newest.key if newest else ''}, and on_conflict=fail",
                    "move the file away to restore, or set on_conflict to remote or local",
                )
        if newest is None:
            raise AssertionError(decision)
        return await self._restore(database, newest, progress)

    async def _restore(
        self, database: Database, newest: RestorePoint, progress: Progress | None
    ) -> tuple[Booted, Restored]:
        """Restore the newest good point; whatever is in its place is kept aside first, at the last moment."""
        diverged = None
        with local_errors(database.path):
            database.path.parent.mkdir(parents=True, exist_ok=True)
        restored, staged = await self._newest_good(database, newest, progress)
        try:
            with local_errors(database.path):
                diverged = await self._make_way(database)
                like = diverged[0] if diverged else None
                await self._restorer.put_in_place(staged, database, durable=self._durable, like=like)
        finally:
            staged.unlink(missing_ok=True)
        fell_back = restored.point.key != newest.key
        return Booted("fell_back" if fell_back else "restored", fell_back, fell_back, diverged), restored

    async def _newest_good(
        self, database: Database, newest: RestorePoint, progress: Progress | None
    ) -> tuple[Restored, Path]:
        """Download the newest restore point that is not damaged. Raises the newest one's damage when none is good."""
        try:
            return await self._restorer.stage(newest, database, progress)
        except DamagedRestorePoint as damage:
            self._shout(database, damage)
            older = [point async for point in self._replica.points(database.name) if point.key < newest.key]
            for point in reversed(older):
                try:
                    return await self._restorer.stage(point, database, progress)
                except DamagedRestorePoint as another:
                    self._shout(database, another)
            raise DamagedRestorePoint(
                f"no restore point of {database.name} is good; the newest: {damage.message}",
                "nothing was changed; look with `sidecar verify --all`; a database put in place by hand starts with on_conflict=local",
            ) from damage

    def _shout(self, database: Database, damage: DamagedRestorePoint) -> None:
        hint = "the next older restore point is tried; run `sidecar verify --all`"
        self._status.restores["damaged"] += 1
        self._status.report(database.name, damage.message, hint)
        log.error("damaged restore point skipped", database=database.name, error=damage.message, hint=hint)

    async def _make_way(self, database: Database) -> tuple[Path, Timestamp] | None:
        """Move what lies at the database's path aside, nothing deleted but empty files."""
        at = Timestamp.of(await self._replica.store.now())
        if self._snapshotter.signature(database.path) is None:
            for orphan in keep_orphans(database.path, at):
                log.warning("a WAL or journal without its database was kept aside", path=str(orphan))
            return None
        to = aside(database.path, "diverged", at)
        try:
            await self._snapshotter.settle(database.path)
        except DamagedDatabase as error:
            log.warning("the local database is damaged; it is kept as it is", path=str(to), error=error.message)
        move_aside(database.path, to)
        log.warning(
            "conflict: the local database gives way to the newest restore point",
            database=database.name,
            kept_at=str(to),
            hint="it is published under diverged/ too; `sidecar list --diverged` shows it",
        )
        return to, at

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
