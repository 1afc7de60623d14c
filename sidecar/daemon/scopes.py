"""The nested scopes of the daemon. Their nesting is the shutdown order.

signals, HTTP                from the first moment to the last
  lease                      renewed until all below has ended, then released
    boot                     cancelled by a signal, or when the lease is lost
    backup loops and app     until the app has ended; it is stopped when the lease is lost or handed over
    final backup             shielded from everything but its own timeout
"""

import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from sidecar.daemon.app import AppRunner
from sidecar.daemon.booting import BootSequence
from sidecar.daemon.lease_watch import LeaseWatch
from sidecar.daemon.shutdown import Shutdown
from sidecar.daemon.signals import Signals
from sidecar.daemon.workers import Workers
from sidecar.host import take_terminal_back
from sidecar.log import log
from sidecar.restore import Booted
from sidecar.status import Status


class Holder:
    """Everything that only the holder of the lease may do: restore, run the app beside the backups, back up once more."""

    def __init__(
        self,
        signals: Signals,
        lease: LeaseWatch,
        boots: BootSequence,
        app: AppRunner,
        workers: Workers,
        shutdown: Shutdown,
        status: Status,
        following: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Inside `following` the commits of the databases can be captured."""
        self._following = following
        self._signals = signals
        self._lease = lease
        self._boots = boots
        self._app = app
        self._workers = workers
        self._shutdown = shutdown
        self._status = status

    async def run(self) -> int | None:
        """Returns the exit status; None when a request to stop came before the app was started."""
        async with self._following():
            return await self._run()

    async def _run(self) -> int | None:
        self._app.entrust()  # fails before anything is downloaded
        booted = await self._signals.unless_stopped(self._boots.run)
        if booted is None or self._signals.stop.is_set():
            self._lease.fence.require_held()
            return None
        self._app.start()
        self._status.enter("running", ready=True)
        self._lease.app_started()
        status = await self._run_beside_workers(booted)
        return await self._shutdown.run(status if self._app.is_ours else None, self._app.seconds)

    async def _run_beside_workers(self, booted: Sequence[Booted]) -> int:
        try:
            async with anyio.create_task_group() as group:
                self._workers.start(group, booted)
                status = await self._app.until_ended()
                group.cancel_scope.cancel()
        finally:
            self._app.kill()
        return status


class Daemon:
    """`sidecar run`, from the first signal handler to the exit status."""

    def __init__(
        self,
        signals: Signals,
        outermost: AbstractAsyncContextManager[None],
        silence: Callable[[], Coroutine[Any, Any, None]],
        lease: LeaseWatch,
        holder: Holder,
        status: Status,
    ) -> None:
        """`outermost` surrounds everything but the signals; `silence` warns when the store does not answer."""
        self._signals = signals
        self._outermost = outermost
        self._silence = silence
        self._lease = lease
        self._holder = holder
        self._status = status

    async def run(self, received: AsyncIterator[signal.Signals]) -> int:
        """Run once. Returns the exit status; raises what keeps the app from starting, and `FinalBackupFailed`."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._signals.listen, received)
            async with self._outermost:
                try:
                    status = await self._with_store()
                finally:
                    take_terminal_back()
            group.cancel_scope.cancel()
        return status

    async def _with_store(self) -> int:
        self._status.enter("restoring")
        async with anyio.create_task_group() as group:
            group.start_soon(self._silence)
            status = await self._with_lease()
            group.cancel_scope.cancel()
        return 128 + (self._signals.first or signal.SIGTERM) if status is None else status

    async def _with_lease(self) -> int | None:
        status: int | None = None
        try:
            await self._lease.acquire()
            if not self._signals.stop.is_set():
                async with self._lease.holding():
                    status = await self._holder.run()
            if status is None:
                self._status.enter("stopped")
                log.info("stopped before the app was started")
        finally:
            await self._lease.fence.release()
        await self._lease.idle_if_handed_over()
        return status
