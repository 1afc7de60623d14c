"""Carries out the decision of the boot table for a database, before the app starts."""

from dataclasses import dataclass, replace
from pathlib import Path

from anyio import to_thread

from sidecar.database import Lineage, Marker, Snapshotter, require_posix_locks
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, DatabaseBusy
from sidecar.host import Clock, local_errors, make_directory, require_writable
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Database, Origin, RestorePoint
from sidecar.progress import Progress
from sidecar.repository import Restored
from sidecar.restore.boot_report import BootReport
from sidecar.restore.comparison import Comparison, Verdict
from sidecar.restore.decision import Decision
from sidecar.restore.placement import Placement
from sidecar.restore.reached import Reached
from sidecar.restore.recovery import Recovery
from sidecar.restore.survey import Situation, Survey
from sidecar.status import Status, documentation, format_findings


@dataclass(frozen=True, slots=True)
class Booted:
    """How a boot ended, and where backups begin.

    `newest` is the newest restore point in the store, `marker` the local database's lineage marker, `restored` the
    restore point that the database was restored from. Backups begin `at_once` or after the interval; `publish` is the
    reason to publish even if nothing has changed, or empty. `reached` is the position to which the history was applied;
    None if nothing was restored. `end` is where the streams end that follow the newest restore point, if a local
    database was kept.
    """

    outcome: str
    at_once: bool = False
    publish: str = ""
    newest: RestorePoint | None = None
    marker: Marker | None = None
    restored: Restored | None = None
    reached: Reached | None = None
    end: Origin | None = None

    @property
    def continued(self) -> Origin | None:
        """Where the history in the store ended that this term continues."""
        return self.reached.position if self.reached else self.end


class Boot:
    """Carries out the boot table, one database after the other."""

    def __init__(
        self,
        survey: Survey,
        recovery: Recovery,
        placement: Placement,
        snapshotter: Snapshotter,
        fence: Fence,
        status: Status,
        clock: Clock,
        *,
        strict: bool = False,
    ) -> None:
        """`strict`: refuse to start with a database that has findings of SQLite's check."""
        self._strict = strict
        self._survey = survey
        self._recovery = recovery
        self._placement = placement
        self._snapshotter = snapshotter
        self._comparison = Comparison(recovery, snapshotter, alone=placement.alone)
        self._fence = fence
        self._status = status
        self._clock = clock

    async def boot(self, database: Database, lineage: Lineage, progress: Progress | None = None) -> Booted:
        """Prepare a database for the start of the app. Raises whatever makes a start impossible."""
        started = self._clock.monotonic()
        require_writable(database.path)
        await to_thread.run_sync(require_posix_locks, database.path)
        found = await self._survey.look(database, lineage)
        report = BootReport(database, found.store, self._status)
        booted = await self._carry_out(found, lineage, report, progress)
        restored = booted.restored
        unfinished = self._fence.unfinished
        own_disk = found.local and unfinished == self._status.lease.holder  # in that case nothing is missing
        if unfinished and not own_disk:
            report.was_unfinished(unfinished, restored.point if restored else found.newest, booted.reached)
        seconds = self._clock.monotonic() - started
        await self._prepare(database)
        self._log_ready(found, booted, seconds)
        return replace(booted, newest=found.newest, marker=found.marker)

    async def _carry_out(
        self, found: Situation, lineage: Lineage, report: BootReport, progress: Progress | None
    ) -> Booted:
        found.require_start()
        database = found.database
        match found.decision:
            case Decision.START_EMPTY:
                with local_errors(database.path):
                    make_directory(database.path.parent)
                report.started_empty(await self._survey.others(), await self._survey.similar(database), lineage.left())
                return Booted("started_empty")
            case Decision.PUBLISH_LOCAL | Decision.CONFLICT_LOCAL:
                report.from_elsewhere(lineage.elsewhere())
                if found.decision is Decision.PUBLISH_LOCAL:
                    report.lost_from_store(found.marker)
                else:
                    report.local_won(found.newest_key)
                return Booted(
                    "kept_local", at_once=True, publish="the store has no restore point of the local database"
                )
            case Decision.KEEP_LOCAL:
                lineage.refresh()
                kept = Booted("kept_local", at_once=True, end=found.end)
                return _beside_damage(kept, found.stopped, report)
            case Decision.COMPARE:
                return await self._compare(found, lineage, report, progress)
        return await self._restore(found, lineage, report, progress)

    async def _compare(
        self, found: Situation, lineage: Lineage, report: BootReport, progress: Progress | None
    ) -> Booted:
        """Keep the local database if nothing in the store is missing from it: else the two have diverged."""
        database, newest = found.database, found.newest
        kept = Booted("kept_local", at_once=True, end=found.end)
        if newest is None:
            return kept
        try:
            compared = await self._comparison.compare(database, newest, found.marker, progress)
        except DamagedRestorePoint as damage:
            report.skipped(damage)
            return replace(kept, publish="the newest restore point is damaged")
        verdict = compared.verdict
        if verdict is Verdict.UNKNOWN and not self._placement.alone:  # the app goes on with it, whatever we do
            report.may_lack_its_tail(found.end)
            verdict = Verdict.WHOLE
        if verdict is Verdict.WHOLE:
            lineage.refresh()
            return _beside_damage(kept, compared.damage, report)
        report.lost_its_tail()
        return await self._carry_out(self._survey.as_conflict(found), lineage, report, progress)

    async def _restore(
        self, found: Situation, lineage: Lineage, report: BootReport, progress: Progress | None
    ) -> Booted:
        """Restore the newest good restore point. A local database is moved aside at the last moment."""
        database = found.database
        was_there = lineage.left_behind() is not None
        good = await self._survey.newest_good(
            found, lambda point: self._recovery.stage(point, database, progress), report.skipped
        )
        if good.value is None:
            report.kept_below_damaged(found.newest)
            return Booted("kept_local", at_once=True, publish="the newest restore point is damaged")
        recovered = good.value
        restored, staged = recovered.restored, recovered.staged
        self._require_accepted(restored, staged)
        displaced = await self._placement.put(database, lineage, restored, staged, recovered.reached.position)
        if displaced:
            report.remote_won(displaced.kept, newer=displaced.newer, origin=displaced.origin)
        report.has_findings(restored)
        if was_there:
            report.was_missing(lineage.path, restored.point)
        report.rolled_forward(recovered)
        if not recovered.wanting and (last := await self._recovery.missing(recovered, database.name)):
            report.lost_from_stream(last)
        if found.newest and restored.point.key != found.newest_key:
            whole = await self._recovery.contains(recovered, found.newest)
            report.fell_back(found.newest, restored.point, whole=whole)
            reason = "the newest restore point is damaged"
            return Booted("fell_back", at_once=True, publish=reason, restored=restored, reached=recovered.reached)
        reason = "the database has commits that no restore point has" if recovered.reached.commits else ""
        return Booted(
            "restored", at_once=recovered.wanting, publish=reason, restored=restored, reached=recovered.reached
        )

    def _require_accepted(self, restored: Restored, staged: Path) -> None:
        """Raise `DamagedDatabase` if findings are fatal. No older restore point is tried: it would lack even more."""
        if self._strict and restored.check.findings:
            staged.unlink(missing_ok=True)
            raise DamagedDatabase(
                f"restore point {restored.point.key}: {format_findings(restored.check.findings)}, and integrity_check=strict",
                "nothing was changed; with integrity_check=full or quick, the app starts with this database, and the finding "
                f"is reported: see {documentation.FINDINGS}",
            )

    async def _prepare(self, database: Database) -> None:
        try:
            await self._snapshotter.prepare(database.path)
        except DatabaseBusy as error:
            log.warning("database in use before the app started", database=database.name, error=error.message)

    def _log_ready(self, found: Situation, booted: Booted, seconds: float) -> None:
        restored, name = booted.restored, found.database.name
        size = restored.contents.index.database_size if restored else 0
        source = restored.point.key if restored else None
        self._status.restored(name, booted.outcome, seconds, size, source)
        log.info(
            "database ready",
            database=name,
            decision=found.decision.value,
            outcome=booted.outcome,
            key=source,
            database_bytes=size,
            downloaded_bytes=restored.downloaded if restored else 0,
            seconds=round(seconds, 3),
        )


def _beside_damage(kept: Booted, reason: str, report: BootReport) -> Booted:
    """A local database that is kept: a restore point makes up for a stream in the store that is damaged for this reason."""
    if not reason:
        return kept
    report.kept_beside_damaged_stream(reason)
    return replace(kept, publish="its stream in the store is damaged")
