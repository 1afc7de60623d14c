"""One writer: acquires, renews and releases the lease, and is fenced when another machine takes over.

The object is only ever written with If-None-Match or If-Match and never deleted: a release is a tombstone that keeps the epoch.

A holder gives restore points timestamps only within its term: from the time of a renewal, by the store's clock, for the
ttl less a margin. Another machine takes over only after the whole ttl, and its timestamps begin there. So terms are
disjoint, and since keys are timestamps, the newest key belongs to the newest holder. A restore point that a fenced machine
completes late is recognised by its epoch (`Record.settled`).

With `lease_store` the lease is in one store and the restore points in another, and each has a clock. Why that is safe:
- Keys are stamped by the lease's clock alone, and terms are disjoint by that clock. What the other clock shows does not
  matter for the order of keys; a key that is ahead of the lease's clock is exceeded, as with one store.
- Times in replies of the store with the restore points are never compared with the end of a term, only with an earlier
  time of the same clock (`Term.require_covered`). That both clocks run equally fast is assumed, not that they agree.
- A machine that reaches only one of the stores publishes nothing that counts. Without the lease's store its term ends, and
  nothing gets a timestamp; without the other one it keeps the lease, because its database has what is not stored yet, and
  no machine could restore anything meanwhile.
- If the store with the restore points has no conditional writes, a key cannot be protected from a second writer by the
  store. It does not have to be: keys of different terms differ, because they are stamped within them. The exception is a
  machine that stamps above a key from the future, is suspended between looking the key up and writing it, and is fenced
  meanwhile: its restore point may replace one with the same key. Its epoch then shows that it is not on the main line.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import anyio

from sidecar.errors import LeaseLost, SidecarError
from sidecar.host import Clock
from sidecar.lease.acquisition import Acquisition, require_conditions
from sidecar.lease.former import FormerLease
from sidecar.lease.record import StreamRecord
from sidecar.lease.renewal import Renewal
from sidecar.lease.rules import Identity
from sidecar.lease.term import LeaseEvents, Term
from sidecar.log import log
from sidecar.status import LeaseStatus
from sidecar.storage import ObjectStore

RELEASE_SECONDS = 10.0


async def _no_restore_points() -> int:
    return 0


class Lease:
    """Implements `WriterLease` with the lease object.

    `store` is used once the lease is held; `boot_store`, with the timeouts of a boot, for the acquisition.
    """

    exclusive = True

    def __init__(
        self,
        store: ObjectStore,
        boot_store: ObjectStore,
        clock: Clock,
        status: LeaseStatus,
        me: Identity,
        highest_epoch: Callable[[], Awaitable[int]] = _no_restore_points,
        former: FormerLease | None = None,
    ) -> None:
        """`highest_epoch` returns that of the restore points; it is called if the lease object is missing.

        `former` is the lease object beside the restore points, if the lease is kept in another store.
        """
        self._store = store
        self._boot_store = boot_store
        self._clock = clock
        self._status = status
        self._me = me
        self._highest_epoch = highest_epoch
        self._former = former
        self._events = LeaseEvents()
        self._term: Term | None = None
        self.retain = False
        self.handing_over = False

    @property
    def term(self) -> Term:
        """The term that we acquired. Raises `LeaseLost` before that."""
        if self._term is None:
            raise LeaseLost("the lease is not held: nothing may be published")
        return self._term

    @property
    def lost(self) -> anyio.Event:
        """See `Fence`."""
        return self._events.lost

    @property
    def asked(self) -> anyio.Event:
        """See `WriterLease`."""
        return self._events.asked

    @property
    def epoch(self) -> int:
        """See `Fence`."""
        return self._term.record.epoch if self._term else 0

    @property
    def unfinished(self) -> str | None:
        """See `Fence`."""
        return self._term.record.unfinished if self._term else None

    @property
    def asked_by(self) -> str | None:
        """See `WriterLease`."""
        return self._term.record.handoff if self._term else None

    @property
    def handed_over(self) -> bool:
        """See `WriterLease`."""
        return self.handing_over and self._term is not None and self._term.record.released

    async def acquire(self, patience: timedelta, *, ask: bool = False) -> None:
        """See `WriterLease`."""
        acquisition = Acquisition(
            self._boot_store, self._clock, self._status, self._me, self._highest_epoch, self._former
        )
        acquired = await acquisition.run(patience, ask=ask)
        # It is held from here on, so that it is released if anything below fails or is cancelled.
        self._term = Term(self._store, self._status, self._me, self._events, acquired)
        await require_conditions(self._boot_store, acquired.record)
        if self._former:
            self._term.paired(await self._former.redirect())
        self._status.waiting_for = None
        log.info("lease acquired", epoch=self.epoch, before=acquisition.previous)

    def require_held(self) -> None:
        """See `Fence`."""
        self.term.require_held()

    async def ensure_held(self) -> datetime:
        """See `Fence`."""
        return await self.term.ensure_held()

    async def record_start(
        self, latest: Mapping[str, str], streams: Mapping[str, StreamRecord] | None = None, *, running: bool = False
    ) -> None:
        """See `Fence`."""
        await self.term.record_start(latest, streams or {}, running=running)

    def streamed(self, database: str, record: StreamRecord) -> None:
        """See `Fence`."""
        self.term.streamed(database, record)

    async def require_covered(self, instant: datetime) -> datetime:
        """See `Fence`."""
        return await self.term.require_covered(instant)

    async def confirm(self, database: str, key: str) -> None:
        """See `Fence`."""
        await self.term.confirm(database, key)

    def acknowledge_unfinished(self) -> None:
        """See `WriterLease`."""
        self.term.acknowledge_unfinished()

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """See `WriterLease`."""
        renewal = Renewal(self.term, self._store, self._clock, self._status, self._events)
        async with anyio.create_task_group() as group:
            group.start_soon(renewal.run)
            yield
            group.cancel_scope.cancel()

    async def release(self) -> None:
        """See `WriterLease`."""
        if self._term is None or not self._term.held or self.retain:
            return
        ttl_seconds = self._me.ttl.seconds
        with anyio.move_on_after(RELEASE_SECONDS, shield=True) as scope:
            try:
                await self.term.release(handing_over=self.handing_over)
            except SidecarError as error:
                log.warning("lease not released", error=error.message, ttl_seconds=ttl_seconds)
            except Exception:  # the exit status is already decided, and the ttl ends the lease anyway
                log.exception("lease not released because of a bug")
        if scope.cancelled_caught:
            log.warning("lease not released in time", ttl_seconds=ttl_seconds)

    async def until_doubted(self) -> None:
        """See `WriterLease`."""
        await self._events.until_doubted()

    async def is_handoff_abandoned(self) -> bool:
        """See `WriterLease`."""
        with suppress(SidecarError):
            return await self.term.is_handoff_abandoned()
        return False
