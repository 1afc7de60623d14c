"""Drills: now and then the newest restore point is restored from the store to scratch, and so proven good, or not.

What proves must not know what it is to find: `Prover` has the store and a scratch file, and nothing of the database here.
The app is not to notice: ranges come one at a time and at a bounded rate, SQLite's check works a quarter of the time,
and both pause while a backup is under way.

The outcome is written to the restore point itself, as a tag (`repository/drill_tag`).
"""

import time
from collections.abc import Callable
from datetime import timedelta

import anyio
import structlog

from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database.base import Staging
from sidecar.errors import DamagedRestorePoint, SidecarError
from sidecar.host.clock import Clock
from sidecar.model import Database, ObjectInfo, RestorePoint, Timestamp
from sidecar.progress import Progress
from sidecar.repository.catalog import Catalog
from sidecar.repository.drill_tag import DRILL_TAG, Drilled, DrillOutcome, last_drill
from sidecar.repository.keys import point_of
from sidecar.repository.reader import DownloadOptions, Reader
from sidecar.status.problems import Kind

log = structlog.get_logger()

MEMORY_RATE = 16 << 20  # bytes of database a second: a tenth of a core
DISK_RATE = 2 << 20  # a quarter of what fly.io's root disk can (https://fly.io/docs/volumes/overview/)
DUTY = 0.25
PRIVATE = 0o600
SOON = timedelta(minutes=10)
TAG_PATIENCE = 10.0


class Prover:
    """Restores to scratch, and checks every digest and SQLite's integrity.

    `name` keeps the scratch files of provers that work at once apart, `share` of them need room; they lie where the
    database's snapshots would.
    """

    def __init__(self, reader: Reader, staging: Staging, database: Database, name: str, share: int = 1) -> None:
        self._reader = reader
        self._staging = staging
        self._share = share
        self._scratch = database.path.with_name(f"{database.name}.{name}")

    async def prove(
        self, point: RestorePoint, progress: Progress | None = None, throttle: "Throttle | None" = None
    ) -> None:
        """Return if it is good. Raises `DamagedRestorePoint`; other `SidecarError` when it could not be found out."""
        _, contents = await self._reader.contents(point)
        with self._staging.reserve(self._scratch, contents.index.database_size * self._share) as (file, on_tmpfs):
            options = (
                throttle.options(MEMORY_RATE if on_tmpfs else DISK_RATE) if throttle else DownloadOptions(mode=PRIVATE)
            )
            await self._reader.download(point, file, progress, options)


class Throttle:
    """Holds a prover back: at most so many bytes a second, a part of the time, and not at all beside a backup."""

    def __init__(self, turns: ConcurrencyLimit, clock: Clock) -> None:
        self._turns = turns
        self._clock = clock
        self._rate = MEMORY_RATE
        self._free = clock.monotonic()
        self._rested = time.monotonic()

    def options(self, rate: int) -> DownloadOptions:
        """For one download of at most `rate` bytes of database a second."""
        self._rate = rate
        return DownloadOptions(self._limit_rate, self._yield_to_app, PRIVATE)

    async def _limit_rate(self, size: int) -> None:
        now = self._clock.monotonic()
        begin = max(now, self._free)
        self._free = begin + size / self._rate
        if begin > now:
            await self._clock.sleep(begin - now)
        await self._turns.idle()

    def _yield_to_app(self, sleep: Callable[[float], bool]) -> None:
        """In SQLite's thread; `sleep` returns True when the drill is cancelled (`database.base.YieldToApp`)."""
        worked = time.monotonic() - self._rested
        cancelled = sleep(min(0.1, max(0.0, worked * (1 / DUTY - 1))))
        while self._turns.under_way and not cancelled:
            cancelled = sleep(0.05)
        self._rested = time.monotonic()


class Drill:
    """The drills of one database; `alone` lets there be one of all databases at a time."""

    def __init__(self, backup: Backup, tools: Tools, catalog: Catalog, prover: Prover, alone: anyio.Lock) -> None:
        self._backup = backup
        self._name = backup.database.name
        self._tools = tools
        self._clock = tools.clock
        self._status = tools.status.databases[self._name]
        self._catalog = catalog
        self._prover = prover
        self._alone = alone

    async def run(self, interval: timedelta) -> None:
        """Drill for ever: an interval, give or take a tenth, after the last one of any machine; after a failure sooner."""
        wait, failures = await self._first_wait(interval), 0
        while True:
            self._status.next_drill = self._clock.now() + timedelta(seconds=wait)
            await self._clock.sleep(wait)
            verdict = await self.drill()
            failures = failures + 1 if verdict is DrillOutcome.FAILED else 0
            longest = min(interval, SOON * 2 ** min(failures - 1, 20)) if failures else interval
            wait = longest.total_seconds() * (0.9 + 0.2 * self._clock.random())

    async def drill(self) -> DrillOutcome | None:
        """Prove the newest restore point. None when there is none yet. Every failure is told, none is raised.

        When it is damaged a whole new one is published at once.
        """
        async with self._alone:
            started = self._clock.monotonic()
            point, verdict, error = await self._find_out()
            if verdict is None:
                return None
            self._tell(verdict, point, self._clock.monotonic() - started, error)
        if point and verdict is not DrillOutcome.FAILED:
            await self._remember(point, verdict)
        if point and verdict is DrillOutcome.DAMAGED:
            await self._backup.distrust(point)
            await self._backup.attempt()
        return verdict

    async def _find_out(self) -> tuple[RestorePoint | None, DrillOutcome | None, Exception | None]:
        point, expected = None, self._backup.newest_key  # read before the store is asked: a publish in between is newer
        try:
            await self._tools.turn.idle()
            point = await self._catalog.newest(self._name)
            if expected and (point is None or point.key < expected):
                point = point_of(ObjectInfo(expected, 0, "", self._clock.now()))
                return (
                    point,
                    DrillOutcome.DAMAGED,
                    DamagedRestorePoint(f"restore point {expected} is gone from the store"),
                )
            if point is None:
                return None, None, None
            await self._prover.prove(point, throttle=Throttle(self._tools.turn, self._clock))
        except DamagedRestorePoint as damage:
            return point, DrillOutcome.DAMAGED, damage
        except SidecarError as failure:
            return point, DrillOutcome.FAILED, failure
        except Exception as bug:  # the loop boundary: a bug here must not stop the app
            log.exception("drill failed by a bug", database=self._name)
            return point, DrillOutcome.FAILED, bug
        return point, DrillOutcome.GOOD, None

    async def _first_wait(self, interval: timedelta) -> float:
        """Seconds until the first drill: soon after the boot, unless the last one was less than an interval ago."""
        soon = min(interval, SOON).total_seconds() * (0.5 + self._clock.random())
        try:
            newest = await self._catalog.newest(self._name)
            last = await last_drill(self._catalog, newest, interval) if newest else None
            now = await self._catalog.store.now()
        except SidecarError as error:
            log.info("it is not known when the last drill was", database=self._name, error=error.message)
            return soon
        if last is None or last[1].outcome is not DrillOutcome.GOOD:
            return soon
        age = (now - last[1].at.instant).total_seconds()
        self._status.proven, self._status.last_drill = last[0].key, last[1].at.instant
        return max(soon, interval.total_seconds() * (0.9 + 0.2 * self._clock.random()) - max(0.0, age))

    def _tell(self, verdict: DrillOutcome, point: RestorePoint | None, seconds: float, error: Exception | None) -> None:
        key = point.key if point else None
        message = error.message if isinstance(error, SidecarError) else f"bug: {error!r}"
        self._tools.status.drilled(self._name, verdict, key, seconds)
        if verdict is DrillOutcome.GOOD:
            log.info("drill: good", database=self._name, key=key, seconds=round(seconds, 3))
            return
        hint = error.hint if isinstance(error, SidecarError) else "please report it with the log"
        if verdict is DrillOutcome.DAMAGED:
            hint = "a whole new one is published in its place at once; `sidecar verify --all` shows which older ones are good"
        self._status.drill_error = message
        self._tools.status.report(self._name, f"drill: {verdict}: {message}", hint, Kind.DRILL)
        log.error(f"drill: {verdict}", database=self._name, key=key, error=message, hint=hint)

    async def _remember(self, point: RestorePoint, verdict: DrillOutcome) -> None:
        """Tag the restore point; what cannot be written costs a line in `list`, and maybe a drill too many."""
        try:
            with anyio.move_on_after(TAG_PATIENCE):
                at = Timestamp.of(await self._catalog.store.now())
                await self._backup.mark(point.key, DRILL_TAG, str(Drilled(verdict, at)))
        except SidecarError as error:
            log.info("the drill is not noted in the store", key=point.key, error=error.message)
