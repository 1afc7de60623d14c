"""Handles signals: the app is asked to stop once, and then has its grace period."""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio

from sidecar.host import STOPPING, Child, Reaper, format_signal
from sidecar.log import log

T = TypeVar("T")


class Signals:
    """The signals received so far. `stop` may also be requested by ourselves; `first` is a signal only."""

    def __init__(self) -> None:
        self.reaper = Reaper()
        self.app: Child | None = None
        self.launched: Callable[[int], None] | None = (
            None  # passes a signal on to what the app left running for us to follow
        )
        self.first: int | None = None
        self.number: int = signal.SIGTERM  # what the app was, or would be, asked to stop with
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
            elif self.launched:
                self.launched(number)
            elif self.app:
                self.app.signal(number)

    def request_stop(self, number: int = signal.SIGTERM) -> None:
        """Have the app stop, unless that was requested before."""
        if self.stop.is_set():
            return
        self._asked = time.monotonic()
        self.number = number
        self.stop.set()
        if self.app:
            self.app.signal(number)

    async def unless_stopped(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do something that a request to stop cancels. Returns None if it was cancelled."""
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
        """The end of the grace period (monotonic time), which begins when the app was asked to stop, or now."""
        return (self._asked if self.stop.is_set() else time.monotonic()) + grace

    def _stopping(self, number: int) -> None:
        if self.first is not None:
            self.hurry.set()
            return
        self.first = number
        log.info("stop requested", signal=format_signal(number))
        self.request_stop(number)
        self.received.set()
