"""SQLite's check of snapshots, before they are published: what it finds is told while the app runs, not at the next boot.

The first snapshot of a process is checked, later ones while they are in memory, and so rarely that it costs a hundredth of
the time. A check that takes too long is given up: no restore point waits for it, and the drill makes its own.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import anyio

from sidecar.database import CheckReport, IntegrityCheck, YieldToApp
from sidecar.errors import SidecarError
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Database, Snapshot
from sidecar.status import HINT, Status, record_findings

LIMIT = 60.0  # seconds
LAST_LIMIT = 1.0  # the app has stopped, and a platform is about to kill
DUTY = 0.25
SHARE = 0.01


class SnapshotCheck:
    """Checks the snapshots of one database, and remembers what was found."""

    def __init__(self, database: Database, checker: IntegrityCheck, mode: str, status: Status, clock: Clock) -> None:
        self._database = database
        self._checker = checker
        self._mode = mode
        self._status = status
        self._clock = clock
        self._known: CheckReport | None = None
        self._seconds: float | None = None  # that the last check took
        self._next = 0.0

    def start_from(self, restored: CheckReport) -> None:
        """The database was restored, and this is known of it."""
        self._known = restored

    async def report(self, snapshot: Snapshot, *, last: bool = False) -> CheckReport | None:
        """The report for a restore point: of this snapshot, or with mode `none` what is known from an earlier one.

        Raises `SidecarError` when the snapshot is not what the database is, and must not be published.
        """
        if self._is_due(snapshot, last=last) and (report := await self._checked(snapshot, last=last)):
            await self._require_same(snapshot, report, last=last)
            self._known = report
            name = self._database.name
            if record_findings(self._status, name, report.mode, report.findings):
                log.warning("database has findings", database=name, findings=list(report.findings), hint=HINT)
            return report
        return replace(self._known, mode="none") if self._known and self._known.findings else None

    def _is_due(self, snapshot: Snapshot, *, last: bool) -> bool:
        if self._mode == "none":
            return False
        if last:  # it has to be quick, which only an earlier one tells
            return self._seconds is not None and self._seconds < LAST_LIMIT / 2
        return self._seconds is None or (snapshot.on_tmpfs and self._clock.monotonic() >= self._next)

    async def _checked(self, snapshot: Snapshot, *, last: bool) -> CheckReport | None:
        """None when it would take too long."""
        started, report = self._clock.monotonic(), None
        with anyio.move_on_after(LAST_LIMIT if last else LIMIT):
            report = await self._checker.check(snapshot.path, self._mode, None if last else _resting())
        ended = self._clock.monotonic()
        self._seconds = ended - started
        self._next = ended + self._seconds / SHARE
        if report is None:
            log.info("check of a snapshot given up", database=self._database.name, seconds=round(self._seconds, 3))
        return report

    async def _require_same(self, snapshot: Snapshot, report: CheckReport, *, last: bool) -> None:
        """A table that cannot be read must be as unreadable in the live database."""
        if not report.unreadable or (self._known and self._known.unreadable == report.unreadable):
            return
        if not await self._checker.unreadable_live(self._database.path, None if last else _resting()):
            self._seconds = None  # the next one is checked, however soon it comes
            raise SidecarError(
                f"bug: the snapshot of {self._database.path} is not a true copy: {report.unreadable}",
                "it is not published, and a new one is taken; please report it with the log",
            )


def _resting() -> YieldToApp:
    """Works a part of the time."""
    rested = time.monotonic()

    def rest(sleep: Callable[[float], bool]) -> None:
        nonlocal rested
        worked = time.monotonic() - rested
        sleep(min(0.1, worked * (1 / DUTY - 1)))
        rested = time.monotonic()

    return rest
