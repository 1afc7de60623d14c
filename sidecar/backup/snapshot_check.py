"""Runs SQLite's check on snapshots before they are published, so that findings are reported while the app runs.

The first snapshot of a process is checked, and later ones if they are in memory, so rarely that it takes a hundredth of the
time. A check that takes too long is abandoned: no restore point waits for it, and the drill runs its own.

While an app runs, the first restore point must not wait for the check either, nor must the turns of other databases. Unless
its snapshot is small, it is published unchecked, and the snapshot is kept and checked afterwards; a machine that boots from
that restore point meanwhile checks it itself. If the snapshot turns out not to be a true copy, a new one replaces it.
"""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import anyio

from sidecar.database import CheckReport, IntegrityCheck, YieldToApp
from sidecar.errors import SidecarError
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Database, RestorePoint, Snapshot
from sidecar.status import HINT, Status, record_findings

LIMIT = 60.0  # seconds
LAST_LIMIT = 1.0  # the app has stopped, and the platform is about to kill us
SMALL = 16 << 20  # bytes of a database that is checked in a fraction of a second
DUTY = 0.25
SHARE = 0.01


@dataclass(slots=True)
class Unchecked:
    """A snapshot that is checked once its restore point is published; `stack` keeps it until then.

    `snapshot` is None if there is nothing to check, and `point` if nothing was published.
    """

    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    snapshot: Snapshot | None = None
    point: RestorePoint | None = None


class SnapshotCheck:
    """Checks the snapshots of one database, and remembers the findings."""

    def __init__(self, database: Database, checker: IntegrityCheck, mode: str, status: Status, clock: Clock) -> None:
        self._database = database
        self._checker = checker
        self._mode = mode
        self._status = status
        self._clock = clock
        self._known: CheckReport | None = None
        self._seconds: float | None = None  # duration of the last check
        self._next = 0.0
        self._first_is_later = True  # whether the first check may follow its publish
        self._under_way = False

    def start_from(self, restored: CheckReport) -> None:
        """Start from what is known about a database that was just restored."""
        self._known = restored

    async def report(
        self, snapshot: Snapshot, *, last: bool = False, later: Unchecked | None = None
    ) -> CheckReport | None:
        """The report for a restore point: of this snapshot, or with mode `none`, what is known from an earlier one.

        With `later`, the first check may be left to `check_later`; if so, the snapshot is in `later` afterwards.
        Raises `SidecarError` if the snapshot differs from the database and must not be published.
        """
        if snapshot.read is not None:  # not a database: the next whole copy is checked
            return self._known_findings()
        if later and self._may_wait(snapshot):
            later.snapshot = snapshot
        elif self._is_due(snapshot, last=last) and (report := await self._checked(snapshot, last=last)):
            if difference := await self._difference(snapshot, report, last=last):
                raise difference
            self._learn(report)
            return report
        return self._known_findings()

    async def check_later(self, snapshot: Snapshot) -> SidecarError | None:
        """Check a snapshot that is already published. Returns an error if it differs from the database.

        Raises `SidecarError` if that cannot be determined.
        """
        self._under_way = True
        try:
            report = await self._checked(snapshot, last=False)
            difference = await self._difference(snapshot, report, last=False) if report else None
        finally:
            self._under_way = False
        if report and not difference:
            self._learn(report)
        return difference

    def _known_findings(self) -> CheckReport | None:
        return replace(self._known, mode="none") if self._known and self._known.findings else None

    def _learn(self, report: CheckReport) -> None:
        self._known, self._first_is_later, name = report, True, self._database.name
        if record_findings(self._status, name, report.mode, report.findings):
            log.warning("database has findings", database=name, findings=list(report.findings), hint=HINT)

    def _may_wait(self, snapshot: Snapshot) -> bool:
        is_first = self._mode != "none" and self._seconds is None and not self._under_way
        return is_first and self._first_is_later and snapshot.size > SMALL

    def _is_due(self, snapshot: Snapshot, *, last: bool) -> bool:
        if self._mode == "none":
            return False
        if last:  # it must be quick, which only an earlier check can tell
            return self._seconds is not None and self._seconds < LAST_LIMIT / 2
        if self._under_way:
            return False
        return self._seconds is None or (snapshot.on_tmpfs and self._clock.monotonic() >= self._next)

    async def _checked(self, snapshot: Snapshot, *, last: bool) -> CheckReport | None:
        """Run the check. Returns None if it takes too long."""
        started, report = self._clock.monotonic(), None
        with anyio.move_on_after(LAST_LIMIT if last else LIMIT):
            report = await self._checker.check(snapshot.path, self._mode, None if last else _resting())
        ended = self._clock.monotonic()
        self._seconds = ended - started
        self._next = ended + self._seconds / SHARE
        if report is None:
            log.info("snapshot check abandoned", database=self._database.name, seconds=round(self._seconds, 3))
        return report

    async def _difference(self, snapshot: Snapshot, report: CheckReport, *, last: bool) -> SidecarError | None:
        """The error if a table that cannot be read in a snapshot can be read in the live database."""
        if not report.unreadable or (self._known and self._known.unreadable == report.unreadable):
            return None
        if await self._checker.unreadable_live(self._database.path, None if last else _resting()):
            return None
        self._seconds, self._first_is_later = (
            None,
            False,
        )  # the next one is checked, however soon, before it is published
        return SidecarError(
            f"bug: the snapshot of {self._database.path} is not a true copy: {report.unreadable}",
            "a new one is taken, and checked before it is published; please report it with the log",
        )


def _resting() -> YieldToApp:
    """Pause the check most of the time, so that it does not affect the app."""
    rested = time.monotonic()

    def rest(sleep: Callable[[float], bool]) -> None:
        nonlocal rested
        worked = time.monotonic() - rested
        sleep(min(0.1, worked * (1 / DUTY - 1)))
        rested = time.monotonic()

    return rest
