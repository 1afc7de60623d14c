"""The loop around backup cycles: when one comes, what becomes of a failure, and the last one."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import anyio
import structlog

from sidecar.backup.cycle import Cycle, Timing
from sidecar.backup.tools import Tools
from sidecar.database.lineage import Lineage
from sidecar.errors import (
    DatabaseMissing,
    LeaseLost,
    SidecarError,
    Transient,
)
from sidecar.model import Database
from sidecar.status.problems import Kind

log = structlog.get_logger()

FIRST_RETRY = 2.0


class Backup(Cycle):
    """Keeps one database protected."""

    def __init__(self, database: Database, lineage: Lineage, tools: Tools) -> None:
        super().__init__(database, lineage, tools)
        self._woken = anyio.Event()

    async def look(self) -> None:
        """Look at once, whether there are changes or not, and publish what is gone. It fails as a cycle does.

        While cycles fail they are tried again anyway; after a failure here, too.
        """

        async def held() -> None:
            async with self._mine:
                self._tools.fence.require_held()
                await self._is_held(last=False)

        if self._status.failing_since:
            return
        self.doubt()
        if await self._tried(held) is not None:
            self._woken.set()
        elif self._must_publish:
            await self.attempt()

    async def run(self, interval: timedelta, *, at_once: bool) -> None:
        """Cycle for ever: every interval; after a failure sooner, with exponential backoff and full jitter."""
        clock = self._tools.clock
        async with self._mine:  # now, too: an app that is often stopped may never live to see a cycle
            await self._predecessors.settle()
        delay, failures = 0.0 if at_once else interval.total_seconds(), 0
        while True:
            self._status.next_backup = clock.now() + timedelta(seconds=delay)
            await self._sleep(delay)
            timing = Timing(clock.monotonic)
            if await self.attempt() is None:
                failures = 0
                delay = max(interval.total_seconds() - timing.elapsed(), interval.total_seconds() / 10)
            else:
                failures += 1
                ceiling = min(interval.total_seconds(), FIRST_RETRY * 2 ** min(failures, 20))
                delay = ceiling * (0.1 + 0.9 * clock.random())

    async def _sleep(self, seconds: float) -> None:
        """Less when a look failed: then a cycle finds out how things are, and goes on trying."""

        async def wake(scope: anyio.CancelScope) -> None:
            await self._woken.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(wake, group.cancel_scope)
            await self._tools.clock.sleep(seconds)
            group.cancel_scope.cancel()
        self._woken = anyio.Event()

    async def final(self) -> bool:
        """The last cycle: tried again until it succeeds or there is no point. True when the database is protected."""
        failures = 0
        while True:
            failure = await self.attempt(last=True)
            if failure is None:
                return True
            if not isinstance(failure, Transient):
                return False
            failures += 1
            await self._tools.clock.sleep(min(5.0, 0.5 * 2**failures) * self._tools.clock.random())

    async def attempt(self, *, last: bool = False) -> Exception | None:
        """One cycle, whose failure is logged, counted and returned instead of raised. None: all is protected."""
        return await self._tried(partial(self.cycle, last=last))

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> Exception | None:
        try:
            await work()
        except SidecarError as error:
            self._tell_failure(error)
            log.error("backup failed", database=self.database.name, error=error.message, hint=error.hint)
            return error
        except Exception as error:  # the loop boundary: a bug here must not stop the app
            self._tools.status.failed(self.database.name, f"bug: {error!r}", "please report it with the log")
            log.exception("backup failed by a bug", database=self.database.name)
            return error
        return None

    def _tell_failure(self, error: SidecarError) -> None:
        """Who took over is told by the lease, and a database that is gone is on no disk."""
        hint, since = error.hint, self._status.unprotected_since
        if since and not isinstance(error, DatabaseMissing | LeaseLost):
            only = f"Do not destroy this machine, only its disk has the changes since {since:%Y-%m-%d %H:%M:%S} UTC"
            hint = f"{hint}{'' if hint.endswith(('?', '.')) else '.'} {only}" if hint else only
        kind = Kind.NOTICE if isinstance(error, LeaseLost) else Kind.FAILURE
        self._tools.status.failed(self.database.name, error.message, hint, error.reason, kind)
