"""How a machine becomes the holder: it waits, possibly requests a handoff, and takes the lease."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import anyio

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    LeaseHeld,
    NotFound,
    PreconditionFailed,
    SidecarError,
    StoreUnsuitable,
)
from sidecar.host import Clock
from sidecar.lease.document import read_lease, write_lease
from sidecar.lease.former import FormerLease
from sidecar.lease.record import Record, StoredLease, WrittenLease
from sidecar.lease.rules import Identity, Take, Wait, judge, may_ask
from sidecar.log import log
from sidecar.model import IfAbsent, IfMatch
from sidecar.status import LeaseStatus
from sidecar.storage import ObjectStore

POLL_SECONDS = 2.0
LOG_EVERY_SECONDS = 30.0
WITHDRAW_SECONDS = 2.0
SHORTEST_PAUSE = 0.05
CLOCK_KEY = ".sidecar/probe/clock"
CLOCKS_APART = timedelta(seconds=10)  # beyond the resolution of a second, and what servers of one store may differ by
REFUSALS_RETRIED_AT_ONCE = 3  # a request was written meanwhile, or another machine was faster


class Acquisition:
    """One attempt to become the holder, for as long as the caller allows."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        status: LeaseStatus,
        me: Identity,
        highest_epoch: Callable[[], Awaitable[int]],
        former: FormerLease | None = None,
    ) -> None:
        """`highest_epoch` returns that of the restore points; it is called if the lease object is missing.

        `former` is the lease object beside the restore points, if the lease is kept in another store.
        `previous` is the holder before us, once the lease is taken.
        """
        self._store = store
        self._clock = clock
        self._status = status
        self._me = me
        self._highest_epoch = highest_epoch
        self._former = former
        self.previous: str | None = None
        self._last_logged = -LOG_EVERY_SECONDS
        self._refused = 0
        self._has_asked = False

    async def run(self, patience: timedelta, *, ask: bool) -> WrittenLease:
        """Wait until the lease is free, and take it. Raises what `WriterLease.acquire` raises."""
        if not self._store.traits.conditional_put:
            raise unsuitable(self._store)
        deadline = self._clock.monotonic() + patience.total_seconds()
        try:
            while True:
                stored = await read_lease(self._store, self._me.store)
                verdict = await self._judge(stored)
                if isinstance(verdict, Take):
                    if stored and not stored.record.released and stored.record.holder != self._me.holder:
                        await require_clock(self._store)
                    if taken := await self._take(verdict):
                        self.previous = stored.record.holder if stored else None
                        self._has_asked = False  # the request was granted: there is nothing to withdraw
                        return taken
                    verdict = self._after_refusal(stored)
                await self._wait(verdict, stored, deadline, ask=ask)
        finally:
            await self._withdraw_request()

    async def _judge(self, stored: StoredLease | None) -> Take | Wait:
        former = await self._former.read() if self._former else None
        if former:
            before = judge(former, self._me)
            if isinstance(before, Wait):
                return before
            if stored is None:  # what the lease says of the restore points moves with it
                return Take(before.record, IfAbsent())
        if self._former:
            self._former.require_pair(stored)
        return judge(stored, self._me, 0 if stored else await self._highest_epoch())

    async def _take(self, verdict: Take) -> WrittenLease | None:
        """Write our record; None if another machine was faster."""
        try:
            return await write_lease(self._store, verdict.record, verdict.condition)
        except (PreconditionFailed, NotFound):
            self._refused += 1
            return None
        except ConfigurationError as refusal:
            if self._store.traits.conditional_put:
                raise
            raise unsuitable(self._store) from refusal

    def _after_refusal(self, stored: StoredLease | None) -> Wait:
        again_at_once = self._refused <= REFUSALS_RETRIED_AT_ONCE
        pause = timedelta(seconds=0 if again_at_once else POLL_SECONDS)
        return Wait(stored.record.holder if stored else "another machine", pause)

    async def _wait(self, verdict: Wait, stored: StoredLease | None, deadline: float, *, ask: bool) -> None:
        """Sleep until the lease may be free. Raises `LeaseHeld` if the deadline has passed."""
        left = deadline - self._clock.monotonic()
        self._status.waiting_for = verdict.holder
        if left <= 0 and verdict.remaining > timedelta(0):
            raise _held(self._store.url, verdict)
        self._log_waiting(verdict, left)
        if ask and stored and may_ask(stored.record, self._me.holder):
            await self._ask(stored)
        pause = min(max(left, 0.0), POLL_SECONDS, verdict.remaining.total_seconds() + self._clock.random() / 10)
        await self._clock.sleep(max(SHORTEST_PAUSE, pause))

    def _log_waiting(self, verdict: Wait, left: float) -> None:
        now = self._clock.monotonic()
        if now - self._last_logged >= LOG_EVERY_SECONDS:
            self._last_logged = now
            log.info("waiting for the lease", holder=verdict.holder, seconds_left=round(left, 1))

    async def _ask(self, stored: StoredLease) -> None:
        """Write our request into the holder's record, unless the record changes meanwhile."""
        asking = replace(stored.record, handoff=self._me.holder, aged=stored.unrenewed)
        try:
            await write_lease(self._store, asking, IfMatch(stored.etag))
        except (PreconditionFailed, NotFound):
            return
        self._has_asked = True
        log.info("handoff requested", holder=stored.record.holder)

    async def _withdraw_request(self) -> None:
        """Withdraw our request when we stop waiting: no holder must stop its app for a machine that is gone."""
        if not self._has_asked:
            return
        with anyio.move_on_after(WITHDRAW_SECONDS, shield=True), suppress(SidecarError):
            stored = await read_lease(self._store, self._me.store)
            if stored and stored.record.handoff == self._me.holder and not stored.record.released:
                without = replace(stored.record, handoff=None, aged=stored.unrenewed)
                await write_lease(self._store, without, IfMatch(stored.etag))


async def require_clock(store: ObjectStore) -> None:
    """Compare the clock by which a lease has expired with the time of a new object. Raises `StoreUnsuitable`.

    The `Date` of a reply may be that of a proxy with a wrong clock: every lease would look expired, and the holder would be
    displaced while it works. Where nothing but the lease may be written, this is not known.
    """
    before = await store.now()
    try:
        await store.put(CLOCK_KEY, b"written to compare clocks\n")
        written = (await store.head(CLOCK_KEY)).last_modified
    except AccessDenied:
        return
    after = await store.now()
    if before - CLOCKS_APART <= written <= after + CLOCKS_APART:
        return
    seconds = abs((written - after).total_seconds())
    raise StoreUnsuitable(
        f"{store.url} dates its replies {seconds:.0f} s apart from its objects: whether a lease has expired is not known",
        "a proxy in front of the store may send a Date of its own: correct its clock, or reach the store without it",
    )


async def require_conditions(store: ObjectStore, held: Record) -> None:
    """Prove that the store honours conditions, with writes that it must refuse. Raises `StoreUnsuitable`.

    They write the record that is already there, so nothing is lost if the store executes them.
    """
    for condition in (IfAbsent(), IfMatch('"no-such-version"')):
        try:
            await write_lease(store, held, condition)
        except (PreconditionFailed, NotFound):
            continue
        raise unsuitable(store)
    if not store.traits.conditional_put:  # learned meanwhile, behind something that looks up first instead
        raise unsuitable(store)


def unsuitable(store: ObjectStore) -> StoreUnsuitable:
    """The error for a store that cannot have a lease."""
    return StoreUnsuitable(
        f"{store.url} ({store.traits.store}) does not obey conditional writes: two machines could overwrite each other",
        "set lease_store to a store with conditional writes, or to a directory that all machines share, for the lease alone; "
        "or set lease=off and never run more than one machine",
    )


def _held(url: str, wait: Wait) -> LeaseHeld:
    seconds = wait.remaining.total_seconds()
    return LeaseHeld(
        f"{url} is held by {wait.holder}, for up to {seconds:.0f} s more if that machine is gone",
        "two machines must never write to one store: stop the other one, or wait longer with lease_wait",
    )
