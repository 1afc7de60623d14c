"""A lease that we hold: its record in the store, how long it is valid, its renewal, and how it is lost."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import anyio

from sidecar.errors import LeaseLost, LeaseMoved, NotFound, PreconditionFailed, StoreUnavailable
from sidecar.lease.document import read_lease, write_lease
from sidecar.lease.record import Record, StoredLease, StreamRecord, WrittenLease
from sidecar.lease.rules import Identity, adopted, released, renewed, started_from
from sidecar.log import log
from sidecar.model import IfAbsent, IfMatch
from sidecar.status import LeaseStatus
from sidecar.storage import ObjectStore

UPDATES = 5  # attempts of one write, because other machines may write their requests into our record meanwhile


class LeaseEvents:
    """Events of a lease. Tasks may start waiting for them before it is acquired."""

    def __init__(self) -> None:
        self.lost = anyio.Event()
        self.asked = anyio.Event()
        self._doubted = anyio.Event()

    def doubt(self) -> None:
        """Signal a problem with the store other than being unreachable."""
        self._doubted.set()

    async def until_doubted(self) -> None:
        """Wait for the next call of `doubt`."""
        await self._doubted.wait()
        self._doubted = anyio.Event()


class Term:
    """The lease from one acquisition until it is released or lost."""

    def __init__(
        self, store: ObjectStore, status: LeaseStatus, me: Identity, events: LeaseEvents, acquired: WrittenLease
    ) -> None:
        self._store = store
        self._status = status
        self._me = me
        self._events = events
        self._record, self._began = acquired.record, acquired.since
        self._latest = dict(acquired.record.latest)
        self._streams = dict(acquired.record.streams)
        self._acknowledged = False
        self._why_lost: LeaseLost | None = None
        self._writing = anyio.Lock()
        self._seen: datetime | None = None  # the last time that the store with the restore points has shown
        self._before: datetime | None = None  # the last such time before our term
        status.streamed = bool(acquired.record.streams)
        self._accept(acquired)
        if acquired.record.handoff:
            events.asked.set()

    @property
    def record(self) -> Record:
        """Our record as we last wrote or read it."""
        return self._record

    @property
    def held(self) -> bool:
        """Whether it has been neither released nor lost."""
        return not self._record.released and self._why_lost is None

    @property
    def ends(self) -> datetime:
        """The time, by the store's clock, after which nothing may get a timestamp without a renewal."""
        return self._ends

    def require_held(self) -> None:
        """See `Fence.require_held`."""
        if self._why_lost:
            raise self._why_lost
        if self._record.released:
            raise LeaseLost("the lease is not held: nothing may be published")

    async def ensure_held(self) -> datetime:
        """See `Fence.ensure_held`."""
        self.require_held()
        now = await self._store.now()
        if now > self._ends:
            await self.renew()
            now = await self._store.now()
        return max(now, self._began)

    async def renew(self) -> None:
        """Extend our term. Raises `LeaseLost` if another machine took over, `Transient` if the store is unreachable."""
        await self._update(lambda record: record)

    async def record_start(
        self, latest: Mapping[str, str], streams: Mapping[str, StreamRecord], *, running: bool
    ) -> None:
        """See `Fence.record_start`."""
        self._latest.update(latest)
        self._streams.update(streams)
        await self._update(partial(started_from, databases=latest, running=running))

    async def confirm(self, database: str, key: str) -> None:
        """See `Fence.confirm`."""
        self._latest[database] = key
        await self.renew()

    def streamed(self, database: str, record: StreamRecord) -> None:
        """See `Fence.streamed`."""
        self._streams[database] = record

    def paired(self, pair: str) -> None:
        """Have the next renewal record the word that the store with the restore points has, too: see `Record`."""
        self._record = replace(self._record, pair=pair)

    async def require_covered(self, instant: datetime) -> datetime:
        """See `Fence.require_covered`.

        If the restore points are in another store, its clock shows how long before `instant` the term was still to begin:
        that is at least as long as the term has lasted. A successful renewal proves that nobody has taken over before it.
        """
        self.require_held()
        before, self._seen = self._before, instant
        if not self._me.store:
            covered = instant <= self._ends
        else:
            covered = before is not None and timedelta(0) <= instant - before <= self._me.valid_for
        if not covered:
            await self.renew()
        return max(await self._store.now(), self._began) if self._me.store else instant

    def acknowledge_unfinished(self) -> None:
        """See `WriterLease.acknowledge_unfinished`."""
        self._acknowledged = True

    async def release(self, *, handing_over: bool = False) -> None:
        """Leave a tombstone that keeps the epoch. Raises what `renew` raises.

        With `handing_over`, only the requesting machine may take the lease for one ttl, and we never request it back.
        """
        if not self.held:
            return
        await self._update(partial(released, handing_over=handing_over))
        self._status.waiting_for = self._record.handoff
        log.info("lease released", epoch=self._record.epoch, to=self._record.handoff)

    async def is_handoff_abandoned(self) -> bool:
        """See `WriterLease.is_handoff_abandoned`. Raises what reading the lease object raises."""
        stored = await read_lease(self._store, self._me.store)
        return stored is not None and stored.record.is_of(self._record) and stored.has_expired(self._me.ttl)

    async def _update(self, change: Callable[[Record], Record]) -> None:
        """Write the changed record, again if another machine wrote its request into ours meanwhile."""
        async with self._writing:
            self.require_held()
            before = self._seen
            for attempt in range(UPDATES):
                record = change(renewed(self._record, self._latest, self._streams, acknowledged=self._acknowledged))
                try:
                    self._accept(await write_lease(self._store, record, IfMatch(self._etag)))
                except (PreconditionFailed, NotFound):
                    await self._adopt()
                    if attempt == UPDATES - 1:
                        raise StoreUnavailable("the lease object changes faster than it can be written") from None
                else:
                    self._before = before
                    break
        self._status.renewals["ok"] += 1
        if self._record.handoff and not self._record.released:
            self._events.asked.set()

    def _accept(self, written: WrittenLease) -> None:
        """Note that our record is stored like this. Our term counts from before the write."""
        self._record, self._etag = written.record, written.etag
        self._ends = written.since + self._me.valid_for
        self._status.held, self._status.epoch = not written.record.released, written.record.epoch

    async def _adopt(self) -> None:
        """After a refused write: continue from the stored record if it is still ours. Raises `LeaseLost`."""
        try:
            stored = await read_lease(self._store, self._me.store)
        except LeaseMoved as moved:  # to a store that this machine does not know
            raise self._lose(None, moved.message) from moved
        if stored is None:  # it was deleted, and perhaps not alone
            log.error("lease object rewritten", cause="it was gone from the store", epoch=self._record.epoch)
            self._events.doubt()
            try:
                self._accept(await write_lease(self._store, self._record, IfAbsent()))
            except (PreconditionFailed, NotFound):
                stored = await read_lease(self._store, self._me.store)
            else:
                return
        if stored is None or not stored.record.is_of(self._record):
            raise self._lose(stored)
        self._record, self._etag = adopted(stored.record, self._record), stored.etag

    def _lose(self, stored: StoredLease | None, why: str = "") -> LeaseLost:
        by = f"{stored.record.holder} (epoch {stored.record.epoch})" if stored else "nobody"
        what = f"was taken over by {by}" if stored else "is lost: its object is gone from the store"
        self._why_lost = LeaseLost(
            why or f"the lease of {self._store.url} {what}",
            "this machine no longer publishes; what it has written since is published under diverged/",
        )
        self._status.held = False
        self._status.waiting_for = stored.record.holder if stored else None
        self._status.renewals["lost"] += 1
        log.error("lease lost", to=by, our_epoch=self._record.epoch)
        self._events.lost.set()
        return self._why_lost
