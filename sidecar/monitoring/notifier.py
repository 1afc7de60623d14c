"""Sends notifications and heartbeats about the events of `Status`. Nothing ever waits for a receiver: events are queued."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from sidecar.concurrency import first_failure
from sidecar.errors import LeaseLost, SidecarError, Undeliverable, Undelivered
from sidecar.host import Clock
from sidecar.log import log
from sidecar.monitoring.outbox import Message, Outbox, format_message, shorten
from sidecar.monitoring.receiver import Receiver
from sidecar.policies import Growth
from sidecar.status import Event, Kind, Status
from sidecar.units import format_size

ATTEMPTS = 6
FIRST_RETRY = 2.0
LONGEST_RETRY = 60.0
FLUSH_SECONDS = 5.0


class _Channel:
    """A receiver and its queue. A slow or dead receiver does not delay the others."""

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
        self._failure_logged = False

    def queue(self, event: Event) -> None:
        self._outbox.add(event, self._clock.monotonic())
        self._count_dropped()
        if self._idle:
            self._idle.cancel()

    async def run(self) -> None:
        """Send messages, oldest first, as the rate allows, until `drain` takes over."""
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
        """Send what is left, newest first and whatever the rate, beside the message that is being sent already."""
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
            await self._receiver.send(format_message(message, self._holder, self._status.store))
        except SidecarError as error:
            self._status.notifications["failed"] += 1
            if not self._failure_logged:
                log.warning("notification not delivered", error=error.message, hint=error.hint)
            self._failure_logged = True
            return error
        except Exception as bug:  # noqa: BLE001 - nothing here may end the app; a traceback could show the URL
            log.error("notification failed because of a bug", bug=type(bug).__name__)
            self._status.notifications["failed"] += 1
            return Undeliverable("a bug")
        self._status.notifications["sent"] += 1
        self._failure_logged = False
        return None

    def _count_dropped(self) -> None:
        dropped, self._counted = self._outbox.dropped - self._counted, self._outbox.dropped
        self._status.notifications["dropped"] += dropped


class _Heartbeat:
    """The heartbeat: a request after each check that found everything protected; checks during a request share the next one."""

    def __init__(self, receiver: Receiver, status: Status) -> None:
        self._receiver = receiver
        self._status = status
        self._due = anyio.Event()
        self._beating = anyio.Lock(fast_acquire=True)
        self._failure_logged = False

    def queue(self, event: Event) -> None:
        """Request a beat if it is true of all databases: none fails or is late, and each has been protected once."""
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
            if not self._failure_logged:
                log.warning("heartbeat not delivered", error=error.message, hint=error.hint)
            self._failure_logged = True
        except Exception as bug:  # noqa: BLE001 - as above
            log.error("heartbeat failed because of a bug", bug=type(bug).__name__)
            self._status.notifications["heartbeat_failed"] += 1
        else:
            self._status.notifications["heartbeat"] += 1
            self._failure_logged = False


class Notifier:
    """Sends the events of `status` to every receiver while `running` is open."""

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
        self._receivers: list[_Channel | _Heartbeat] = [_Channel(each, status, clock, holder) for each in receivers]
        if heartbeat:
            self._receivers.append(_Heartbeat(heartbeat, status))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen until the block ends; then send what is left within `FLUSH_SECONDS`, whatever ended the block."""
        self._status.listener = self.queue
        async with anyio.create_task_group() as group:
            for receiver in self._receivers:
                group.start_soon(receiver.run)
            try:
                yield
            finally:
                await self._flush()
                group.cancel_scope.cancel()

    def queue(self, event: Event) -> None:
        """Queue an event; returns at once and never raises."""
        if event.kind is Kind.PUBLISHED:
            self._report_growth(event.database)
        for receiver in self._receivers:
            receiver.queue(shorten(event))

    def report_end(self, error: Exception | BaseExceptionGroup) -> None:
        """Report the error that ends the daemon; it is not sent again if it was sent before."""
        cause = first_failure(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(cause, SidecarError):
            kind = Kind.DIVERGENCE if isinstance(cause, LeaseLost) else Kind.FAILURE
            self._status.report("", cause.message, cause.hint, kind)
        elif isinstance(cause, Exception):
            self._status.report("", f"bug: {cause!r}", "please report it with the log", Kind.FAILURE)

    async def _flush(self) -> None:
        with anyio.move_on_after(FLUSH_SECONDS, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for receiver in self._receivers:
                    group.start_soon(receiver.drain)
        if scope.cancelled_caught:
            log.warning("last notifications not sent in time", seconds=FLUSH_SECONDS)

    def _report_growth(self, name: str) -> None:
        database = self._status.databases[name]
        sizes = [each.database_size for each in database.history]
        before = sizes[-2] if len(sizes) > 1 else database.restore_bytes or None
        if self._growth.exceeded(before, sizes[-1]):
            since = f"from {format_size(before)} " if before else ""
            hint = "if this is expected, raise `alert_growth`"
            self._status.report(name, f"the database has grown {since}to {format_size(sizes[-1])}", hint, Kind.GROWTH)
