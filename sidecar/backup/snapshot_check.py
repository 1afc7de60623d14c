"""SQLite's check of snapshots before they are published: findings are reported while the app runs, not at the next boot.

The first snapshot of a process is checked, later ones while they are in memory, and so rarely that it costs a hundredth of
the time. A check that takes too long is given up: no restore point waits for it, and the drill makes its own.

Beside an app the first restore point is not to wait either, nor other databases for their turn. Unless its snapshot is
small it is published as one that nobody has checked, and the snapshot is kept and checked then: a machine that boots from
that restore point meanwhile checks it itself. If the snapshot turns out to be no true copy, a new one takes its place.
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
LAST_LIMIT = 1.0  # the app has stopped, and a platform is about to kill
SMALL = 16 << 20  # bytes of a database that is checked in a fraction of a second
DUTY = 0.25
SHARE = 0.01


@dataclass(slots=True)
class Unchecked:
    """A snapshot that is checked once its restore point is published; `stack` keeps it until then.

    `snapshot` is None while there is nothing to check, and `point` when there was nothing to publish.
    """

    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    snapshot: Snapshot | None = None
    point: RestorePoint | None = None


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
        self._first_is_later = True  # may the first check follow its publish?
        self._under_way = False

    def start_from(self, restored: CheckReport) -> None:
        """Start from what is known of a database that was just restored."""
        self._known = restored

    async def report(
        self, snapshot: Snapshot, *, last: bool = False, later: Unchecked | None = None
    ) -> CheckReport | None:
        """The report for a restore point: of this snapshot, or with mode `none` what is known from an earlier one.

        With `later` the first check may be left to `check_later`, which is done if the snapshot is in it afterwards.
        Raises `SidecarError` when the snapshot is not what the database is, and must not be published.
        """
        if later and self._may_wait(snapshot):
            later.snapshot = snapshot
        elif self._is_due(snapshot, last=last) and (report := await self._checked(snapshot, last=last)):
            if difference := await self._difference(snapshot, report, last=last):
                raise difference
            self._learn(report)
            return report
        return replace(self._known, mode="none") if self._known and self._known.findings else None

    async def check_later(self, snapshot: Snapshot) -> SidecarError | None:
        """Check a snapshot that is published already. Returns the error when it is not what the database is.

        Raises `SidecarError` when that cannot be found out.
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
        if last:  # it has to be quick, which only an earlier one tells
            return self._seconds is not None and self._seconds < LAST_LIMIT / 2
        if self._under_way:
            return False
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
            log.info("snapshot check abandoned", database=self._database.name, seconds=round(self._seconds, 3))
        return report

    async def _difference(self, snapshot: Snapshot, report: CheckReport, *, last: bool) -> SidecarError | None:
        """What is wrong when a table that cannot be read in a snapshot is whole in the live database."""
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
    """Pause the check for most of the time, so that the app does not notice it."""
    rested = time.monotonic()

    def rest(sleep: Callable[[float], bool]) -> None:
        nonlocal rested
        worked = time.monotonic() - rested
        sleep(min(0.1, worked * (1 / DUTY - 1)))
        rested = time.monotonic()

    return rest
