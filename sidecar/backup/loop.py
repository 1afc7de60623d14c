"""Schedules backup cycles: at intervals, sooner after a failure, on demand, and one last time."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import anyio
from anyio.abc import TaskGroup

from sidecar.backup.cycle import Cycle
from sidecar.backup.outcome import Timing
from sidecar.backup.snapshot_check import Unchecked
from sidecar.errors import DatabaseMissing, LeaseLost, SidecarError, Transient
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Database, RestorePoint
from sidecar.status import Kind, Status

FIRST_RETRY = 2.0
LAST_SEGMENTS_SECONDS = 10.0  # and at most a quarter of the final backup's time


class Backup:
    """Keeps one database protected by running its `cycle`."""

    def __init__(self, cycle: Cycle, status: Status, clock: Clock) -> None:
        self.cycle = cycle
        self._report = status
        self._status = status.databases[cycle.database.name]
        self._clock = clock
        self._woken = anyio.Event()
        self._beside: TaskGroup | None = None  # for checks of published snapshots while `run` runs
        self._unchecked: list[Unchecked] = []

    @property
    def database(self) -> Database:
        """The database that is protected."""
        return self.cycle.database

    async def look(self) -> None:
        """Ask the store at once whether the newest restore point exists, and publish if it is gone. Fails like a cycle.

        Does nothing while cycles fail, because they are retried anyway, as they are after a failure here.
        """
        if self._status.failing_since:
            return
        if await self._tried(self.cycle.look) is not None:
            self._woken.set()
        elif self.cycle.coverage.must_publish:
            await self.attempt()

    async def run(self, interval: timedelta, *, at_once: bool) -> None:
        """Run cycles forever: one per interval, sooner after a failure, with exponential backoff and full jitter."""
        await self.cycle.settle()  # also at the start: an app that is often stopped may never reach a cycle
        try:
            async with anyio.create_task_group() as self._beside:
                await self._keep_running(interval, at_once=at_once)
        finally:
            self._beside = None
            for each in self._unchecked:  # their tasks may not have started
                await each.stack.aclose()

    async def _keep_running(self, interval: timedelta, *, at_once: bool) -> None:
        delay, failures = 0.0 if at_once else interval.total_seconds(), 0
        while True:
            self._status.next_backup = self._clock.now() + timedelta(seconds=delay)
            await self._sleep(delay)
            timing = Timing(self._clock.monotonic)
            if await self.attempt(patient=True) is None:
                failures = 0
                delay = max(interval.total_seconds() - timing.elapsed(), interval.total_seconds() / 10)
            else:
                failures += 1
                ceiling = min(interval.total_seconds(), FIRST_RETRY * 2 ** min(failures, 20))
                delay = ceiling * (0.1 + 0.9 * self._clock.random())

    def demand(self, reason: str) -> None:
        """Publish a restore point at once, whatever has changed, even if a cycle is in progress."""
        self.cycle.coverage.demand(reason)
        self._woken.set()

    async def stream(self) -> None:
        """Stream the commits in between, as long as we have the lease."""
        source = self.cycle.source
        if source.stream:
            await source.stream.run(self.demand, source.streamed)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the next cycle. A failed `look` ends the sleep, so that cycles take over the retries."""

        async def wake(scope: anyio.CancelScope) -> None:
            await self._woken.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(wake, group.cancel_scope)
            await self._clock.sleep(seconds)
            group.cancel_scope.cancel()
        self._woken = anyio.Event()

    async def final(self) -> bool:
        """Run the last cycle, retrying until it succeeds or retries are pointless. True if the database is protected.

        The rest of the stream is published first, which takes less time than a restore point.
        """
        failures = 0
        await self._finish_stream()
        while True:
            failure = await self.attempt(last=True)
            if failure is None:
                return True
            if not isinstance(failure, Transient):
                return False
            failures += 1
            await self._clock.sleep(min(5.0, 0.5 * 2**failures) * self._clock.random())

    async def _finish_stream(self) -> None:
        """Publish the rest of the stream, without taking the time of the restore point that follows."""
        timeout = self._report.final_backup_timeout
        limit = min(LAST_SEGMENTS_SECONDS, timeout.total_seconds() / 4) if timeout else LAST_SEGMENTS_SECONDS
        try:
            with anyio.move_on_after(limit):
                if stream := self.cycle.source.stream:
                    await stream.finish()
        except Exception:  # the loop boundary: a bug here must not stop the final backup
            log.exception("end of the stream not published because of a bug", database=self.database.name)

    async def has_more(self) -> bool:
        """Whether the database was written to since the last copy. True if that cannot be determined."""
        found = True

        async def look() -> None:
            nonlocal found
            found = await self.cycle.has_more()

        await self._tried(look)
        return found

    async def replace_damaged(self, damaged: RestorePoint) -> None:
        """Publish a full restore point at once to replace this one."""
        await self.cycle.distrust(damaged)
        await self.attempt()

    async def restart_stream(self, newest: RestorePoint, reason: str) -> None:
        """Publish a restore point at once and start a new stream, because the stream is damaged; `newest` itself is good."""
        source = self.cycle.source
        source.unprotected(newest.timestamp.instant)
        if source.stream:
            source.stream.distrust(reason)
        self.cycle.coverage.demand("the stream is damaged")
        await self.attempt()

    async def attempt(self, *, last: bool = False, patient: bool = False) -> Exception | None:
        """Run a cycle, see `Cycle.run`. A failure is logged, counted and returned instead of raised; None means success."""
        if last or self._beside is None:
            return await self._tried(partial(self.cycle.run, last=last, patient=patient))
        later = Unchecked()
        self._unchecked.append(later)
        failure = await self._tried(partial(self.cycle.run, later=later, patient=patient))
        if later.snapshot and failure is None and self._beside:
            self._beside.start_soon(self._check_later, later)
        else:
            await self._discard(later)
        return failure

    async def _check_later(self, later: Unchecked) -> None:
        """Check a published snapshot while cycles continue. If it is not a true copy, it is replaced at once."""
        difference: SidecarError | None = None
        try:
            if later.snapshot:
                difference = await self.cycle.source.check_later(later.snapshot)
        except SidecarError as error:
            log.warning("published snapshot not checked", database=self.database.name, error=error.message)
        except Exception:  # the loop boundary: a bug here must not stop the backups
            log.exception("published snapshot not checked because of a bug", database=self.database.name)
        finally:
            await self._discard(later)
        if difference:
            self._report_failure(difference)
            log.error("restore point is not a true copy", database=self.database.name, error=difference.message)
            if later.point:
                await self.replace_damaged(later.point)

    async def _discard(self, later: Unchecked) -> None:
        self._unchecked.remove(later)
        await later.stack.aclose()

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> Exception | None:
        try:
            await work()
        except SidecarError as error:
            self._report_failure(error)
            log.error("backup failed", database=self.database.name, error=error.message, hint=error.hint)
            return error
        except Exception as error:  # the loop boundary: a bug here must not stop the app
            self._report.failed(self.database.name, f"bug: {error!r}", "please report it with the log")
            log.exception("backup failed because of a bug", database=self.database.name)
            return error
        return None

    def _report_failure(self, error: SidecarError) -> None:
        """Warn that only this disk has the changes, unless the lease is lost (reported there) or the database is gone."""
        hint, since = error.hint, self._status.unprotected_since
        if since and not isinstance(error, DatabaseMissing | LeaseLost):
            only = f"Do not destroy this machine, only its disk has the changes since {since:%Y-%m-%d %H:%M:%S} UTC"
            hint = f"{hint}{'' if hint.endswith(('?', '.')) else '.'} {only}" if hint else only
        kind = Kind.NOTICE if isinstance(error, LeaseLost) else Kind.FAILURE
        self._report.failed(self.database.name, error.message, hint, error.reason, kind)
