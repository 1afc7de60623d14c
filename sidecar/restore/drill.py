"""Drills: the newest restore point is regularly restored to a scratch directory, which proves it good or damaged.

The outcome is kept as the tag `sidecar-drill` of the restore point: `list` shows it, and a machine that boots again knows
when the last drill was. Superseding needs the permission to tag anyway.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import anyio

from sidecar.database import CheckReport
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, DamagedSegment, SidecarError
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import ObjectInfo, RestorePoint, Timestamp
from sidecar.repository import DRILL_TAG, Catalog, Drilled, DrillOutcome, last_drill, point_of
from sidecar.restore.proof import Prover, Throttle
from sidecar.status import HINT, Kind, Status, record_findings

SOON = timedelta(minutes=10)
TAG_PATIENCE = 10.0

Mark = Callable[[str, str, str], Awaitable[None]]


class Remedies(Protocol):
    """What to do about damage."""

    async def replace_damaged(self, damaged: RestorePoint) -> None:
        """Publish a full restore point at once to replace this one."""
        ...

    async def restart_stream(self, newest: RestorePoint, reason: str) -> None:
        """Publish a restore point at once and start a new stream, because the stream is damaged; `newest` itself is good."""
        ...


class Drill:
    """The drills of one database."""

    def __init__(
        self,
        database: str,
        catalog: Catalog,
        prover: Prover,
        throttle: Throttle,
        status: Status,
        clock: Clock,
        remedies: Remedies,
        mark: Mark,
    ) -> None:
        """`mark` tags a restore point."""
        self._name = database
        self._catalog = catalog
        self._prover = prover
        self._throttle = throttle
        self._report = status
        self._status = status.databases[database]
        self._clock = clock
        self._remedies = remedies
        self._mark = mark

    async def run(self, interval: timedelta) -> None:
        """Drill forever: an interval (plus or minus a tenth) after the last drill of any machine, sooner after a failure."""
        wait, failures = await self._first_wait(interval), 0
        while True:
            self._status.next_drill = self._clock.now() + timedelta(seconds=wait)
            await self._clock.sleep(wait)
            outcome = await self.drill()
            failures = failures + 1 if outcome is DrillOutcome.FAILED else 0
            longest = min(interval, SOON * 2 ** min(failures - 1, 20)) if failures else interval
            wait = longest.total_seconds() * (0.9 + 0.2 * self._clock.random())

    async def drill(self) -> DrillOutcome | None:
        """Prove the newest restore point. Returns None if there is none yet. Failures are reported, never raised.

        If it is damaged, a full new one is published at once.
        """
        async with self._throttle.alone():
            started = self._clock.monotonic()
            point, outcome, error = await self._find_out()
            if outcome is None:
                return None
            self._log_outcome(outcome, point, self._clock.monotonic() - started, error)
        if point and outcome is not DrillOutcome.FAILED and not _is_of_stream(error):
            await self._remember(point, outcome)
        if point and outcome is DrillOutcome.DAMAGED:
            if _is_of_stream(error):
                await self._remedies.restart_stream(point, str(error))
            else:
                await self._remedies.replace_damaged(point)
        return outcome

    async def _find_out(self) -> tuple[RestorePoint | None, DrillOutcome | None, Exception | None]:
        point = None
        try:
            expected = self._status.restore_point  # read before the store is asked: a publish in between is newer
            point = await self._catalog.newest(self._name)
            if expected and (point is None or point.key < expected):
                lost = DamagedRestorePoint(f"restore point {expected} is gone from the store")
                return point_of(ObjectInfo(expected, 0, "", self._clock.now())), DrillOutcome.DAMAGED, lost
            if point is None:
                return None, None, None
            self._log_findings(point, await self._prover.prove(point, throttle=self._throttle))
        except (DamagedRestorePoint, DamagedSegment, DamagedDatabase) as damage:
            return point, DrillOutcome.DAMAGED, damage
        except SidecarError as failure:
            return point, DrillOutcome.FAILED, failure
        except Exception as bug:  # the loop boundary: a bug here must not stop the app
            log.exception("drill failed because of a bug", database=self._name)
            return point, DrillOutcome.FAILED, bug
        return point, DrillOutcome.GOOD, None

    def _log_findings(self, point: RestorePoint, check: CheckReport) -> None:
        """Log findings. A restore point with findings is good: it is what was published."""
        if record_findings(self._report, self._name, check.mode, check.findings):
            log.warning(
                "drill: database has findings",
                database=self._name,
                key=point.key,
                findings=list(check.findings),
                hint=HINT,
            )

    async def _first_wait(self, interval: timedelta) -> float:
        """Seconds until the first drill: soon after the boot, unless the last one was less than an interval ago."""
        soon = min(interval, SOON).total_seconds() * (0.5 + self._clock.random())
        try:
            newest = await self._catalog.newest(self._name)
            last = await last_drill(self._catalog, newest, interval) if newest else None
            now = await self._catalog.store.now()
        except SidecarError as error:
            log.info("last drill unknown", database=self._name, error=error.message)
            return soon
        if last is None or last[1].outcome is not DrillOutcome.GOOD:
            return soon
        age = (now - last[1].at.instant).total_seconds()
        self._status.proven, self._status.last_drill = last[0].key, last[1].at.instant
        return max(soon, interval.total_seconds() * (0.9 + 0.2 * self._clock.random()) - max(0.0, age))

    def _log_outcome(
        self, outcome: DrillOutcome, point: RestorePoint | None, seconds: float, error: Exception | None
    ) -> None:
        key = point.key if point else None
        message = error.message if isinstance(error, SidecarError) else f"bug: {error!r}"
        self._report.drilled(self._name, outcome, key, seconds)
        if outcome is DrillOutcome.GOOD:
            log.info("drill: good", database=self._name, key=key, seconds=round(seconds, 3))
            return
        hint = error.hint if isinstance(error, SidecarError) else "please report it with the log"
        if outcome is DrillOutcome.DAMAGED:
            hint = "a full replacement is published at once; `sidecar verify --all` shows which older ones are good"
        if _is_of_stream(error):
            hint = "this restore point is good; a new one is published and a new stream started at once; `sidecar verify --all` shows which segments are damaged"
        self._status.drill_error = message
        self._report.report(self._name, f"drill: {outcome}: {message}", hint, Kind.DRILL)
        log.error(f"drill: {outcome}", database=self._name, key=key, error=message, hint=hint)

    async def _remember(self, point: RestorePoint, outcome: DrillOutcome) -> None:
        """Tag the restore point. Without the tag, `list` shows no drill, and one drill may be repeated."""
        try:
            with anyio.move_on_after(TAG_PATIENCE):
                at = Timestamp.of(await self._catalog.store.now())
                await self._mark(point.key, DRILL_TAG, str(Drilled(outcome, at)))
        except SidecarError as error:
            log.info("drill tag not written", key=point.key, error=error.message)


def _is_of_stream(error: Exception | None) -> bool:
    """Whether the damage is in the stream, which means that the restore point itself is good."""
    return isinstance(error, DamagedSegment | DamagedDatabase)
