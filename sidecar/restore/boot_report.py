"""Reports of an unusual boot: in the log, on the page, and as notifications."""

from collections.abc import Iterator
from pathlib import Path

from sidecar.database import Marker
from sidecar.errors import DamagedRestorePoint
from sidecar.log import log
from sidecar.model import Database, Origin, Position, RestorePoint
from sidecar.repository import Restored, format_others
from sidecar.repository.catalog import Streamed
from sidecar.repository.history import format_side_line
from sidecar.restore.reached import Reached, format_instant, format_reached
from sidecar.restore.recovery import Recovered
from sidecar.status import HINT, Kind, Problem, Status, documentation, record_findings

FALLBACK_HINT = (
    "`sidecar verify --all` shows which restore points are good; a bucket with versioning may still have the undamaged one: "
    f"copy it back, then go back to it as described in {documentation.GO_BACK}"
)

EMPTY_HINT = (
    "if the real data is elsewhere, stop the app and correct `store` or the name of the database "
    f"({documentation.EMPTY}); if this is a new database, `sidecar ack empty` says so"
)
FIRST_START_HINT = (
    "if this was its first start, `sidecar ack first_start` says so; otherwise stop the app and correct `store` or the name "
    f"of the database ({documentation.EMPTY})"
)


def format_time(point: RestorePoint) -> str:
    """When a restore point was published, for people."""
    return f"{point.timestamp.instant:%Y-%m-%d %H:%M:%S} UTC"


class BootReport:
    """Reports the boot of one database, whose restore points are in `store`."""

    def __init__(self, database: Database, store: str, status: Status) -> None:
        self._database = database
        self._store = store
        self._status = status

    def started_empty(self, others: tuple[str, ...], similar: tuple[str, ...], left: Marker | None) -> None:
        """There was nothing to restore: an incident if there is evidence that there should have been, else a question.

        `others` are databases that the store has, `similar` are stores with a similar name that have this one, and `left`
        is the marker of a database that was on this disk.
        """
        name = self._database.name
        self._status.databases[name].others = others
        hint = "if this is not its first start, stop the app and correct `store` or the database's name; on_empty_store=fail prevents this"
        log.warning(
            "the app starts with an empty database: the store has no restore point of it",
            database=name,
            store=self._status.store,
            others=list(others),
            hint=hint,
        )
        nothing = f"{self._status.store} had no restore point of {name}"
        evidence = [*self._evidence(others, similar, left)]
        if evidence:
            self._decide(f"it started empty: {'; '.join([nothing, *evidence])}", EMPTY_HINT, Kind.EMPTY, lasting=True)
        else:
            only = format_others(others)
            self._status.problems.add(
                Problem(self._status.now(), name, f"{nothing}{only}", FIRST_START_HINT, Kind.FIRST_START, lasting=True)
            )

    def _evidence(self, others: tuple[str, ...], similar: tuple[str, ...], left: Marker | None) -> Iterator[str]:
        """Why this may not be the first start."""
        if left:
            yield f"this disk had the database before, with restore points in {left.place}"
        if foreign := [each for each in others if each not in self._status.databases]:
            yield f"the store has restore points of {', '.join(foreign)}"
        if similar:
            yield f"restore points of {self._database.name} are in {', '.join(similar)}"

    def lost_from_store(self, marker: Marker | None) -> None:
        """The store is empty: the first time, or because it has lost what the local database descends from."""
        if marker is None or marker.last is None:
            return
        message = f"{self._store} no longer has a restore point of {self._database.name}; the last was {marker.last}"
        hint = "the local database is kept and published; check whether they were deleted, or another file system is mounted there"
        self._status.damaged(self._database.name, message, hint)
        log.error(message, database=self._database.name, hint=hint)

    def from_elsewhere(self, marker: Marker | None) -> None:
        """The local database descends from a restore point of another store."""
        if marker is None or marker.last is None:
            return
        message = f"{self._database.path} comes from {marker.last} in {marker.place}; from now on it is published to {self._store}"
        hint = "if you moved it to this store, there is nothing to do; if not, stop and correct `store`: its history is in the other one, and changes made meanwhile are kept as a conflict"
        self._decide(message, hint, Kind.DIVERGENCE, lasting=True)

    def was_missing(self, marker: Path, restored: RestorePoint) -> None:
        """The database is gone from this disk, but its marker is still there."""
        message = (
            f"{self._database.path} was missing or empty, and {marker.name} was still there: "
            f"restored from {restored.key} of {format_time(restored)}; changes after that are lost"
        )
        self._decide(
            message,
            "check whether the app or a person deleted the file; if that was intended, there is nothing to do",
            Kind.DIVERGENCE,
        )

    def was_unfinished(self, holder: str, point: RestorePoint | None, reached: Reached | None = None) -> None:
        """The last machine that ran the app did not release its lease, and this is not its disk."""
        after = f"after {point.key} of {format_time(point)}" if point else "without a restore point"
        if reached and reached.time is not None:
            after = f"after {format_instant(reached.time)}, the last commit of its stream,"
        message = (
            f"{holder} did not shut down cleanly (killed, or the store was unreachable): "
            f"what it wrote {after} may be missing from this database"
        )
        hint = "if its disk still exists, start sidecar on it: what is missing is published under diverged/. Otherwise those changes are lost"
        self._status.unfinished = holder
        self._decide(message, hint, Kind.DIVERGENCE)

    def skipped(self, damage: DamagedRestorePoint) -> None:
        """A damaged restore point was skipped while looking for a good one."""
        hint = "the next older restore point is tried"
        self._status.restores["damaged"] += 1
        self._status.report(self._database.name, damage.message, hint)
        log.error("damaged restore point skipped", database=self._database.name, error=damage.message, hint=hint)

    def kept_below_damaged(self, newest: RestorePoint | None) -> None:
        """The newest restore point is damaged, and the local database descends from the one that would be restored."""
        what = f"{newest.key} of {format_time(newest)}" if newest else "the newest restore point"
        self._decide(
            f"{what} is damaged, and the local database, which descends from an older one, is kept: "
            "what another machine wrote after that is missing from it",
            FALLBACK_HINT,
            Kind.DAMAGED,
        )

    def fell_back(self, newest: RestorePoint, restored: RestorePoint, *, whole: bool = False) -> None:
        """The newest restore point was damaged, and an older one was restored. `whole`: its stream had everything else."""
        lost = "what was written between the two is missing from the database"
        if whole:
            lost = "the stream had everything that was written between the two, so nothing is missing"
        self._decide(
            f"restored from {restored.key} of {format_time(restored)}, because {newest.key} of {format_time(newest)} is "
            f"damaged: {lost}",
            FALLBACK_HINT,
            Kind.DAMAGED,
        )

    def lost_its_tail(self) -> None:
        """The local database lacks commits that were streamed, or nothing proves that it has them."""
        log.warning(
            "local database differs from what was streamed",
            database=self._database.name,
            hint="the machine crashed and its disk has lost the last commits, or the database was written to, or its log "
            "removed, while sidecar did not run: on_conflict decides which side wins",
        )

    def may_lack_its_tail(self, end: Origin | None) -> None:
        """The app, which another container runs, goes on with a database of which that is not known."""
        stream = end.stream if isinstance(end, Position) else "NAME"
        self._decide(
            "the database was written to while sidecar did not run, and nothing proves that it still has all that was "
            f"streamed until {end}: if its log was removed meanwhile, commits are missing",
            f"`sidecar restore --stream {stream} --output PATH` restores what was streamed to another file. Nothing to do if "
            "nobody removed or cut the log",
            Kind.DIVERGENCE,
        )

    def kept_beside_damaged_stream(self, reason: str) -> None:
        """The local database is kept, but what the store has of its stream could not be restored."""
        self._decide(
            f"the local database is kept, but its stream in the store cannot be restored to its end: {reason}",
            "a restore point is published at once, so that only times before it are lost; "
            "`sidecar verify --all` shows which segments are damaged or missing",
            Kind.DAMAGED,
        )

    def lost_from_stream(self, last: Streamed) -> None:
        """The store once had more of the stream: segments have expired or were deleted."""
        self._decide(
            f"the store once had commit {last.position.commit} of stream {last.position.stream} ({format_instant(last.time)}), but "
            "no longer has it: what was written until then is missing from this database",
            "segments have expired (`retention_days`), or a person deleted them; a bucket with versioning may still have them",
            Kind.DAMAGED,
        )

    def rolled_forward(self, recovered: Recovered) -> None:
        """How far the stream was applied to the restore point, what is missing, and which side lines there are."""
        reached, point = recovered.reached, recovered.restored.point
        if reached.commits:
            place = format_reached(reached)
            log.info(
                "stream applied", database=self._database.name, key=point.key, commits=reached.commits, reached=place
            )
        if rejected := recovered.rejected:
            self._decide(
                f"the database starts as {point.key} of {format_time(point)}, without the stream that follows it: "
                f"{rejected.reason}",
                f"what was written after that restore point is in {rejected.kept}, which SQLite cannot read completely: "
                "recover what you need from it (`.recover` in the sqlite3 shell reads what it can)"
                if rejected.kept
                else "there was no room to keep the result, but the store still has the segments: `sidecar list --streams` shows "
                "them, and `sidecar restore --at TIME --output PATH` restores an earlier instant to another file",
                Kind.DAMAGED,
            )
        elif reached.stopped:
            self._decide(
                f"the database starts as of {format_reached(reached)}, and what was written after that is missing: "
                f"{reached.stopped}",
                "`sidecar verify --all` shows which segments are damaged or missing; a bucket with versioning may still have them",
                Kind.DAMAGED,
            )
        for side in recovered.rolled.history.side_lines:
            self._decide(*format_side_line(side), Kind.DIVERGENCE)

    def has_findings(self, restored: Restored) -> None:
        """SQLite's check complains about the content of the restore point, which is exactly what was published."""
        name, check = self._database.name, restored.check
        if record_findings(self._status, name, check.mode, check.findings):
            key, findings = restored.point.key, list(check.findings)
            log.warning("restored database has findings", database=name, key=key, findings=findings, hint=HINT)

    def remote_won(self, kept: Path, *, newer: bool, origin: Marker | None) -> None:
        """The local database gave way to the newest restore point and is kept aside. `newer`: it was written after that one."""
        message = f"conflict: the local database gave way to the newest restore point; it is kept at {kept}"
        message += f"; it comes from another store, {origin.place}" if origin else ""
        message += ", and was written later than that restore point" if newer else ""
        hint = (
            "it may have changes that are in no restore point, so it is also published under diverged/: `sidecar list --diverged` shows it; "
            f"to make it the live database: {documentation.DIVERGED}. If you do not need it, there is nothing to do"
        )
        self._decide(message, hint, Kind.DIVERGENCE)

    def local_won(self, newest: str) -> None:
        """The local database is kept, and published after a restore point that it does not descend from."""
        message = f"conflict: the local database wins, {newest} becomes an older restore point"
        self._decide(message, "`sidecar restore --key` restores it", Kind.DIVERGENCE)

    def _decide(self, message: str, hint: str, kind: Kind, *, lasting: bool = False) -> None:
        name, now = self._database.name, self._status.now()
        self._status.report_problem(Problem(now, name, message, hint, kind, lasting))
        write = log.error if kind is Kind.DAMAGED else log.warning
        write(message, database=self._database.name, hint=hint)
