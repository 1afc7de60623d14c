"""The lease in a daemon's life: waited for, lost, asked for by another machine, and handed over."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio

from sidecar.daemon.signals import Signals
from sidecar.errors import LeaseLost
from sidecar.lease import WriterLease
from sidecar.log import log
from sidecar.policies import OnLeaseLost
from sidecar.status import Kind, Status

IDLE_LOOK_SECONDS = 15.0


class LeaseWatch:
    """Stops the app when the lease is lost, and when another machine asks for it."""

    def __init__(
        self,
        fence: WriterLease,
        signals: Signals,
        status: Status,
        on_lost: OnLeaseLost,
        require_mount: Callable[[], Awaitable[None]],
        patience: timedelta,
        *,
        ask: bool,
        owns_app: bool,
    ) -> None:
        """`require_mount` raises when the store is not mounted.

        `patience` is how long to wait for another holder, which with `ask` is asked to hand over. `owns_app`: the writers
        are ours to stop.
        """
        self.fence = fence
        self._signals = signals
        self._status = status
        self._on_lost = on_lost
        self._require_mount = require_mount
        self._patience = patience
        self._ask = ask
        self._owns_app = owns_app
        self._running = anyio.Event()

    async def acquire(self) -> None:
        """Become the holder, or return early on a request to stop. Raises as `WriterLease.acquire`, and `StoreMissing`."""

        async def acquire() -> None:
            await self._require_mount()  # before the lease is written to another store
            await self.fence.acquire(self._patience, ask=self._ask)

        await self._signals.unless_stopped(acquire)

    def app_started(self) -> None:
        """The app runs: from now on this machine's disk may hold what no restore point does."""
        self.fence.retain = True  # until all is published, whatever ends this process
        self.fence.acknowledge_unfinished()
        self._running.set()

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Keep the lease renewed, and stop the app when it is lost or asked for."""
        async with self.fence.renewing(), anyio.create_task_group() as group:
            group.start_soon(self._stop_when_lost)
            group.start_soon(self._stop_when_asked)
            yield
            group.cancel_scope.cancel()

    async def _stop_when_lost(self) -> None:
        """Another machine took over: the app stops, unless it is to continue without restore points."""
        await self.fence.lost.wait()
        try:
            self.fence.require_held()
        except LeaseLost as error:
            self._status.report("", error.message, error.hint, Kind.DIVERGENCE)
        if self._on_lost is OnLeaseLost.STOP or not self._status.ready:
            log.error("app stopped: another machine has taken over")
            self._signals.request_stop()
        else:
            self._status.enter("fenced", ready=True)

    async def _stop_when_asked(self) -> None:
        """Another machine asks to take over: stop, publish, release, and stay idle."""
        await self.fence.asked.wait()
        await self._running.wait()  # before, there may be local changes that only a backup of ours would publish
        if not self._owns_app:
            log.warning("handoff refused: the writers are not ours to stop", by=self.fence.asked_by)
            return
        if self._status.phase != "running":  # it stops already, for good
            return
        log.info("handoff started", to=self.fence.asked_by)
        self.fence.handing_over = True
        self._signals.request_stop()

    async def idle_if_handed_over(self) -> None:
        """After a handoff, stay without an app until a signal, so that the platform does not start it again. We never ask back.

        Raises `LeaseLost` when the other machine died before it took over: then the platform should start us again.
        """
        if not self.fence.handed_over:
            return
        self._status.enter("handed over")
        while not self._signals.received.is_set():
            with anyio.move_on_after(IDLE_LOOK_SECONDS):
                await self._signals.received.wait()
            if not self._signals.received.is_set() and await self.fence.is_handoff_abandoned():
                raise LeaseLost(
                    f"{self.fence.asked_by} asked for the lease and never took it",
                    "this machine exits, so that the platform starts it again, with the app",
                )
        self._status.enter("stopped")
