"""One writer: acquires, renews and releases the lease, and is fenced when another machine takes over.

The object is only ever written with If-None-Match or If-Match and never deleted: a release is a tombstone that keeps the epoch.

A holder gives restore points timestamps only within its term: from the time of a renewal, by the store's clock, for the
ttl less a margin. Another machine takes over only after the whole ttl, and its timestamps begin there. So terms are
disjoint, and since keys are timestamps, the newest key belongs to the newest holder. A restore point that a fenced machine
completes late is recognised by its epoch (`Record.settled`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import anyio

from sidecar.errors import LeaseLost, SidecarError
from sidecar.host import Clock
from sidecar.lease.acquisition import Acquisition, require_conditions
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
    ) -> None:
        """`highest_epoch` returns that of the restore points; it is called if the lease object is missing."""
        self._store = store
        self._boot_store = boot_store
        self._clock = clock
        self._status = status
        self._me = me
        self._highest_epoch = highest_epoch
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
        acquisition = Acquisition(self._boot_store, self._clock, self._status, self._me, self._highest_epoch)
        acquired = await acquisition.run(patience, ask=ask)
        # It is held from here on, so that it is released if anything below fails or is cancelled.
        self._term = Term(self._store, self._status, self._me, self._events, acquired)
        await require_conditions(self._boot_store, acquired.record)
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

    def covers(self, instant: datetime) -> bool:
        """See `Fence`."""
        return self.term.covers(instant)

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
