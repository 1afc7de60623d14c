"""Signals: which ones stop the app, how often it is asked, and how long it has."""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio
import structlog

from sidecar.host.process import Child, Reaper
from sidecar.status.model import Status

log = structlog.get_logger()

T = TypeVar("T")

STOPPING = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


class Signals:
    """The signals received so far. `stop` may also be requested by ourselves; `first` is a signal only."""

    def __init__(self) -> None:
        self.reaper = Reaper()
        self.app: Child | None = None
        self.first: int | None = None
        self._asked = 0.0
        self.stop = anyio.Event()
        self.received = anyio.Event()
        self.hurry = anyio.Event()

    async def listen(self, received: AsyncIterator[signal.Signals]) -> None:
        """Relay the first request to stop to the app, once; a second one only shortens its grace."""
        async for number in received:
            if number == signal.SIGCHLD:
                self.reaper.collect()
            elif number in STOPPING:
                self._stopping(number)
            elif self.app:
                self.app.signal(number)

    def request_stop(self, number: int = signal.SIGTERM) -> None:
        """Have the app stop, unless that was requested before."""
        if self.stop.is_set():
            return
        self._asked = time.monotonic()
        self.stop.set()
        if self.app:
            self.app.signal(number)

    async def unless_stopped(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do something that a request to stop cancels. None then."""
        result: T | None = None

        async def cancel_on_stop(scope: anyio.CancelScope) -> None:
            await self.stop.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cancel_on_stop, group.cancel_scope)
            result = await work()
            group.cancel_scope.cancel()
        return result

    def stop_by(self, grace: float) -> float:
        """When the grace ends, on the monotonic clock: it begins when the app was asked to stop, or now."""
        return (self._asked if self.stop.is_set() else time.monotonic()) + grace

    def _stopping(self, number: int) -> None:
        if self.first is not None:
            self.hurry.set()
            return
        self.first = number
        log.info("stop requested", signal=signal.Signals(number).name)
        self.request_stop(number)
        self.received.set()


async def until_ended(signals: Signals, status: Status, *, grace: float, drain: float) -> int:
    """Wait for the app, or see it stopped after a request. Returns its status; nothing of its group is left.

    Without an app: until a request to stop, and `drain` seconds more. Times are in seconds.
    """
    app = signals.app
    if app is None:
        await signals.stop.wait()
        status.enter("stopping")
        with anyio.move_on_after(drain):
            await signals.hurry.wait()
        return 0
    async with anyio.create_task_group() as group:
        group.start_soon(_kill_after_grace, signals, status, app, grace)
        ended = await app.wait()
        group.cancel_scope.cancel()
    status.enter("stopping")
    async with anyio.create_task_group() as group:
        group.start_soon(_kill_on_hurry, signals, app)
        await app.stop_group(max(0.0, signals.stop_by(grace) - time.monotonic()))
        group.cancel_scope.cancel()
    return ended


async def _kill_after_grace(signals: Signals, status: Status, app: Child, grace: float) -> None:
    await signals.stop.wait()
    status.enter("stopping")
    with anyio.move_on_after(grace) as waiting:
        await signals.hurry.wait()
    why = "it did not stop in time" if waiting.cancelled_caught else "a second signal ended its grace"
    log.warning("app killed", why=why, shutdown_grace_seconds=grace)
    app.kill_group()


async def _kill_on_hurry(signals: Signals, app: Child) -> None:
    await signals.hurry.wait()
    app.kill_group()
