"""Tells people and heartbeats what `Status` reports. Nothing ever waits for a receiver: hearing an event only queues it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import structlog

from sidecar.concurrency import first_failure
from sidecar.errors import LeaseLost, SidecarError, Undeliverable, Undelivered
from sidecar.host.clock import Clock
from sidecar.monitoring.outbox import Message, Outbox, said_in, shortened
from sidecar.monitoring.receiver import Receiver
from sidecar.policies import Growth
from sidecar.status.model import Event, Status
from sidecar.status.problems import Kind
from sidecar.units import format_size

log = structlog.get_logger()

ATTEMPTS = 6
FIRST_RETRY = 2.0
LONGEST_RETRY = 60.0
FLUSH_SECONDS = 5.0


class _Channel:
    """A receiver and its queue. One that is slow or gone costs the others nothing."""

    def __init__(self, receiver: Receiver, status: Status, clock: Clock, holder: str) -> None:
        self._receiver = receiver
        self._status = status
        self._clock = clock
        self._holder = holder
        self._outbox = Outbox()
        self._counted = 0
        self._closing = False
        self._ended = anyio.Event()
        self._pause: anyio.CancelScope | None = None
        self._idle: anyio.CancelScope | None = None
        self._complained = False

    def hear(self, event: Event) -> None:
        self._outbox.add(event, self._clock.monotonic())
        self._count_dropped()
        if self._idle:
            self._idle.cancel()

    async def run(self) -> None:
        """Send the oldest first, as the rate allows, until `drain` takes what is left."""
        while not self._closing:
            now = self._clock.monotonic()
            if message := self._outbox.take(now):
                await self._deliver(message)
                continue
            wait = self._outbox.wait(now)
            with anyio.CancelScope() as self._idle:
                await (anyio.sleep_forever() if wait is None else self._clock.sleep(wait))
            self._idle = None
        self._ended.set()

    async def drain(self) -> None:
        """The last seconds: the newest first, whatever the rate, beside the one that is under way. Nothing pauses."""
        self._closing = True
        for scope in (self._pause, self._idle):
            if scope:
                scope.cancel()
        while message := self._outbox.take_newest():
            await self._deliver(message)
        await self._ended.wait()

    async def _deliver(self, message: Message) -> None:
        for attempt in range(1 if message.again else ATTEMPTS):
            if attempt:
                await self._pause_after(attempt)
            failure = await self._attempt(message)
            if failure is None:
                self._outbox.delivered(message)
                return
            if not isinstance(failure, Undelivered) or self._closing:
                self._outbox.refused(message)
                break
        else:
            self._outbox.undelivered(message, self._clock.monotonic())
        self._count_dropped()

    async def _pause_after(self, attempts: int) -> None:
        ceiling = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (attempts - 1))
        with anyio.CancelScope() as self._pause:
            await self._clock.sleep(ceiling * (0.5 + 0.5 * self._clock.random()))

    async def _attempt(self, message: Message) -> SidecarError | None:
        try:
            await self._receiver.send(said_in(message, self._holder, self._status.store))
        except SidecarError as error:
            self._status.notifications["failed"] += 1
            if not self._complained:
                log.warning("a notification did not get through", error=error.message, hint=error.hint)
            self._complained = True
            return error
        except Exception as bug:  # noqa: BLE001 - a bulkhead: nothing here may end the app; a traceback could show the URL
            log.error("a notification failed by a bug", bug=type(bug).__name__)
            self._status.notifications["failed"] += 1
            return Undeliverable("a bug")
        self._status.notifications["sent"] += 1
        self._complained = False
        return None

    def _count_dropped(self) -> None:
        dropped, self._counted = self._outbox.dropped - self._counted, self._outbox.dropped
        self._status.notifications["dropped"] += dropped


class _Heartbeat:
    """Called after everything was found protected; those that come while one is under way become one."""

    def __init__(self, receiver: Receiver, status: Status) -> None:
        self._receiver = receiver
        self._status = status
        self._due = anyio.Event()
        self._beating = anyio.Lock(fast_acquire=True)
        self._complained = False

    def hear(self, event: Event) -> None:
        """A beat is a promise about all databases: none may fail, and each must have been protected once."""
        databases = self._status.databases.values()
        late = 3 * self._status.interval.total_seconds() if self._status.interval else float("inf")
        if event.kind is Kind.PROTECTED and all(
            each.protected_since and each.last_success and self._status.unprotected(each.name) <= late
            for each in databases
        ):
            self._due.set()

    async def run(self) -> None:
        while True:
            await self._due.wait()
            await self._beat()

    async def drain(self) -> None:
        await self._beat()

    async def _beat(self) -> None:
        async with self._beating:
            if self._due.is_set():
                self._due = anyio.Event()
                await self._send()

    async def _send(self) -> None:
        try:
            await self._receiver.send(None)
        except SidecarError as error:
            self._status.notifications["heartbeat_failed"] += 1
            if not self._complained:
                log.warning("the heartbeat did not get through", error=error.message, hint=error.hint)
            self._complained = True
        except Exception as bug:  # noqa: BLE001 - a bulkhead, as above
            log.error("the heartbeat failed by a bug", bug=type(bug).__name__)
            self._status.notifications["heartbeat_failed"] += 1
        else:
            self._status.notifications["heartbeat"] += 1
            self._complained = False


class Notifier:
    """Listens to `status` inside `running`."""

    def __init__(
        self,
        status: Status,
        clock: Clock,
        receivers: Sequence[Receiver],
        *,
        heartbeat: Receiver | None = None,
        growth: Growth | None = None,
        holder: str = "",
    ) -> None:
        self._status = status
        self._growth = growth or Growth()
        self._parts: list[_Channel | _Heartbeat] = [_Channel(each, status, clock, holder) for each in receivers]
        if heartbeat:
            self._parts.append(_Heartbeat(heartbeat, status))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell until the block ends; what is left is sent within `FLUSH_SECONDS`, whatever ended it."""
        self._status.listener = self.hear
        async with anyio.create_task_group() as group:
            for part in self._parts:
                group.start_soon(part.run)
            try:
                yield
            finally:
                await self._flush()
                group.cancel_scope.cancel()

    def hear(self, event: Event) -> None:
        """Queue an event; returns at once and raises nothing."""
        if event.kind is Kind.PUBLISHED:
            self._look_at_growth(event.database)
        for part in self._parts:
            part.hear(shortened(event))

    def ended_by(self, error: Exception | BaseExceptionGroup) -> None:
        """The daemon ends because of this; told unless it was told before."""
        cause = first_failure(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(cause, SidecarError):
            kind = Kind.DIVERGENCE if isinstance(cause, LeaseLost) else Kind.FAILURE
            self._status.report("", cause.message, cause.hint, kind)
        elif isinstance(cause, Exception):
            self._status.report("", f"bug: {cause!r}", "please report it with the log", Kind.FAILURE)

    async def _flush(self) -> None:
        with anyio.move_on_after(FLUSH_SECONDS, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for part in self._parts:
                    group.start_soon(part.drain)
        if scope.cancelled_caught:
            log.warning("the last notifications could not be sent in time", seconds=FLUSH_SECONDS)

    def _look_at_growth(self, name: str) -> None:
        database = self._status.databases[name]
        sizes = [each.database_size for each in database.history]
        before = sizes[-2] if len(sizes) > 1 else database.restore_bytes or None
        if self._growth.exceeded(before, sizes[-1]):
            was = f", {format_size(before)} before" if before else ""
            hint = "see `alert_growth`; if it was meant, raise it"
            self._status.report(name, f"the database has grown to {format_size(sizes[-1])}{was}", hint, Kind.GROWTH)
