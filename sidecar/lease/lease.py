"""One writer: acquire, renew and release the lease object, and be fenced.

It is only ever written with If-None-Match or If-Match and never deleted: a release is a tombstone that keeps the epoch.

A holder stamps restore points only inside its term: from a renewal's instant, in the store's clock, for the lease's ttl
less a margin. Another machine takes over only after the whole ttl, and stamps from then on: terms are disjoint, and since keys are
timestamps the newest one belongs to the newest holder. What a fenced one completes late is told by its epoch (`Record.settled`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import anyio
import structlog

from sidecar.errors import (
    LeaseHeld,
    LeaseLost,
    NotFound,
    PreconditionFailed,
    SidecarError,
    StoreUnsuitable,
    Transient,
)
from sidecar.host.clock import Clock
from sidecar.lease.record import RESOLUTION, Seen, read, write
from sidecar.lease.rules import Identity, Take, Wait, judge, may_ask
from sidecar.lease.term import Term
from sidecar.model import IfAbsent, IfMatch
from sidecar.status.model import LeaseStatus
from sidecar.storage.base import ObjectStore

log = structlog.get_logger()

POLL = 2.0
TOLD_EVERY = 30.0
FIRST_RETRY = 1.0
RELEASE_SECONDS = 10.0
WITHDRAW_SECONDS = 2.0
SHORTEST_PAUSE = 0.05
TAKES_AT_ONCE = 3  # refusals that are not yet a verdict: somebody wrote a request, or was faster and will be named


async def _nothing_known() -> int:
    return 0


class Lease(Term):
    """Our share in the lease object: how we become its holder, and stay it.

    `patient` is the store for `acquire`, which has the time that a boot has; `store` for all that comes later.
    """

    def __init__(
        self,
        store: ObjectStore,
        patient: ObjectStore,
        clock: Clock,
        status: LeaseStatus,
        me: Identity,
        known: Callable[[], Awaitable[int]] = _nothing_known,
    ) -> None:
        """`known` tells the highest epoch of restore points; it is asked when the lease object is not there."""
        super().__init__(patient, clock, status, me)
        self._later = store
        self._known = known
        self._has_asked = False
        self.retain = False  # this machine's disk may hold what no restore point does: it is the one to come back

    async def acquire(self, patience: timedelta, *, ask: bool = False) -> None:
        """Become the holder, waiting at most `patience`. With `ask` the holder is asked to hand over.

        Raises `LeaseHeld`, naming the holder; `StoreUnsuitable` when the store ignores conditions.
        """
        deadline = self._clock.monotonic() + patience.total_seconds()
        told, refused = -TOLD_EVERY, 0
        try:
            while True:
                seen = await read(self._store)
                verdict = judge(seen, self._me, 0 if seen else await self._known())
                again = False
                if isinstance(verdict, Take):
                    if await self._take(verdict, seen):
                        return
                    refused += 1
                    again = refused <= TAKES_AT_ONCE
                    verdict = Wait(
                        seen.record.holder if seen else "another machine", timedelta(seconds=0 if again else POLL)
                    )
                left = deadline - self._clock.monotonic()
                self._status.waiting_for = verdict.holder
                if left <= 0 and not again:
                    raise _held(self._store.url, verdict)
                if self._clock.monotonic() - told >= TOLD_EVERY:
                    told = self._clock.monotonic()
                    log.info("waiting for the lease", holder=verdict.holder, seconds_left=round(left, 1))
                if ask and seen and may_ask(seen.record, self._me.holder):
                    await self._ask(seen)
                pause = min(max(left, 0.0), POLL, verdict.remaining.total_seconds() + self._clock.random() / 10)
                await self._clock.sleep(max(SHORTEST_PAUSE, pause))
        finally:
            await self._withdraw()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep it renewed in the block."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.keep)
            yield
            group.cancel_scope.cancel()

    async def give_back(self) -> None:
        """Release it if it is held and not to be retained; a failure is logged, and the ttl ends it then."""
        if not self.held or self.retain:
            return
        with anyio.move_on_after(RELEASE_SECONDS, shield=True) as scope:
            try:
                await self.release()
            except SidecarError as error:
                log.warning("the lease could not be released", error=error.message, ttl_seconds=self._me.ttl.seconds)
            except Exception:  # the exit status is decided, and the ttl ends the lease all the same
                log.exception("the lease could not be released, by a bug")
        if scope.cancelled_caught:
            log.warning("the lease could not be released in time", ttl_seconds=self._me.ttl.seconds)

    async def keep(self) -> None:
        """Renew every third of the ttl until the lease is lost; after a failure sooner, with backoff."""
        third = self._me.ttl.total_seconds() / 3
        delay, failures = third, 0
        while True:
            await self._clock.sleep(delay)
            try:
                await self.renew()
            except LeaseLost:
                return
            except SidecarError as error:
                log.warning("the lease could not be renewed", error=error.message, hint=error.hint)
                failed = True
                if not isinstance(error, Transient):
                    self._doubted.set()
            except Exception:  # a loop boundary: a bug here must not stop the app
                log.exception("the lease could not be renewed, by a bug")
                failed = True
            else:
                failed = False
            failures = failures + 1 if failed else 0
            delay = third
            if failed:
                delay = min(third, FIRST_RETRY * 2 ** min(failures, 10)) * (0.5 + 0.5 * self._clock.random())
                await self._count_failure()

    async def abandoned(self) -> bool:
        """After handing over: whether the machine that asked has not taken it within the ttl."""
        with suppress(SidecarError):
            seen = await read(self._store)
            ours = self._record and seen and (seen.record.epoch, seen.record.boot) == (self.epoch, self._me.boot)
            return bool(ours and seen and seen.age > self._me.ttl + RESOLUTION)
        return False

    async def _take(self, verdict: Take, seen: Seen | None) -> bool:
        """Write our record; False when somebody was faster."""
        try:
            self._began = await self._write(verdict.record, verdict.condition)
        except (PreconditionFailed, NotFound):
            return False
        if verdict.record.handoff:
            self.asked.set()
        self._latest = dict(verdict.record.latest)
        await self._probe()
        self._store = self._later
        self._status.waiting_for = None
        log.info("lease acquired", epoch=self.epoch, before=seen.record.holder if seen else None)
        return True

    async def _probe(self) -> None:
        """Prove that the store honours conditions, by writes that it must refuse.

        What they write is what is there already, so a store that carries them out loses nothing by it.
        """
        if self._record is None:
            return
        for condition in (IfAbsent(), IfMatch('"no-such-version"')):
            try:
                await write(self._store, self._record, condition)
            except (PreconditionFailed, NotFound):
                continue
            raise StoreUnsuitable(
                f"{self._store.url} ignores conditional writes: two machines could overwrite each other",
                "use a store that honours If-None-Match and If-Match, or lease=off with never more than one machine",
            )

    async def _ask(self, seen: Seen) -> None:
        """Write our request into the holder's record, unless that changes meanwhile."""
        aged = seen.record.aged + seen.age.total_seconds()
        asking = replace(seen.record, handoff=self._me.holder, aged=aged)
        try:
            await write(self._store, asking, IfMatch(seen.etag))
        except (PreconditionFailed, NotFound):
            return
        self._has_asked = True
        log.info("asked the holder to hand over", holder=seen.record.holder)

    async def _withdraw(self) -> None:
        """Take our request back when we do not wait any longer: nobody must stop for a machine that is gone."""
        if self.held or not self._has_asked:
            return
        with anyio.move_on_after(WITHDRAW_SECONDS, shield=True), suppress(SidecarError):
            seen = await read(self._store)
            if seen and seen.record.handoff == self._me.holder and not seen.record.released:
                aged = seen.record.aged + seen.age.total_seconds()
                without = replace(seen.record, handoff=None, aged=aged)
                await write(self._store, without, IfMatch(seen.etag))

    async def _count_failure(self) -> None:
        self._status.renewals["failed"] += 1
        with suppress(SidecarError):
            if self._ends is None or await self._store.now() > self._ends:
                self._status.held = False  # nothing is published until it is renewed


def _held(url: str, wait: Wait) -> LeaseHeld:
    seconds = wait.remaining.total_seconds()
    return LeaseHeld(
        f"{url} is held by {wait.holder}, for up to {seconds:.0f} s more if that one is gone",
        "two machines must never write to one store: stop the other one, or wait longer with lease_wait",
    )
