"""What a holder has: a term in the store's clock, which it prolongs, or from which it is fenced."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import structlog

from sidecar.errors import LeaseLost, NotFound, PreconditionFailed, StoreUnavailable
from sidecar.host.clock import Clock
from sidecar.lease.record import Record, Seen, read, write
from sidecar.lease.rules import Identity, retired_with
from sidecar.model import Condition, IfAbsent, IfMatch
from sidecar.status.model import LeaseStatus
from sidecar.storage.base import ObjectStore

log = structlog.get_logger()

LONGEST_MARGIN = timedelta(seconds=2)
UPDATES = 5


class Term:
    """Implements `ports.Fence`, once there is a record of ours."""

    exclusive = True

    def __init__(self, store: ObjectStore, clock: Clock, status: LeaseStatus, me: Identity) -> None:
        self._store = store
        self._clock = clock
        self._status = status
        self._me = me
        self._record: Record | None = None
        self._etag = ""
        self._began: datetime | None = None
        self._ends: datetime | None = None
        self._latest: dict[str, str] = {}
        self._writing = anyio.Lock()
        self._why_lost: LeaseLost | None = None
        self._doubted = anyio.Event()
        self._told = False
        self.handing_over = False
        self.lost = anyio.Event()
        self.asked = anyio.Event()

    @property
    def epoch(self) -> int:
        """See `ports.Fence`."""
        return self._record.epoch if self._record else 0

    @property
    def unfinished(self) -> str | None:
        """See `ports.Fence`."""
        return self._record.unfinished if self._record else None

    @property
    def held(self) -> bool:
        """Whether we acquired it, and neither released nor lost it."""
        return self._record is not None and not self._record.released and not self.lost.is_set()

    @property
    def ends(self) -> datetime | None:
        """When our term ends, in the store's clock, unless it is renewed."""
        return self._ends

    @property
    def asked_by(self) -> str | None:
        """The machine that asks us to hand over, as of the last renewal."""
        return self._record.handoff if self._record else None

    async def settle(self, latest: Mapping[str, str], *, running: bool = False) -> None:
        """See `ports.Fence`."""
        self._latest.update(latest)
        async with self._writing:
            await self._update(settled=latest, running=running)

    def started(self) -> None:
        """See `ports.Fence`."""
        self._told = True

    async def renew(self) -> None:
        """Prolong our term. Raises `LeaseLost` when somebody else took over, `Transient` when the store is away."""
        async with self._writing:
            await self._update()

    async def ensure(self) -> datetime:
        """See `ports.Fence`."""
        self.require()
        now = await self._store.now()
        if self._ends is None or now > self._ends:
            await self.renew()
            now = await self._store.now()
        return max(now, self._began) if self._began else now

    def require(self) -> None:
        """See `ports.Fence`."""
        if self._why_lost:
            raise self._why_lost
        if not self.held:
            raise LeaseLost("the lease is not held: nothing may be published")

    async def confirm(self, database: str, key: str) -> None:
        """See `ports.Fence`."""
        self._latest[database] = key
        await self.renew()

    async def doubted(self) -> None:
        """Return when something is wrong with the store other than that it does not answer; ever again while it is."""
        await self._doubted.wait()
        self._doubted = anyio.Event()

    @property
    def handed_over(self) -> bool:
        """Whether it was released for the machine that asked."""
        return self.handing_over and self._record is not None and self._record.released

    async def release(self) -> None:
        """Leave a tombstone that keeps the epoch. Raises as `renew`.

        With `handing_over` only the machine that asked may take it, for a ttl, and we never ask back.
        """
        if not self.held or self._record is None:
            return
        async with self._writing:
            retired = retired_with(self._record, self._me.holder) if self.handing_over else self._record.retired
            await self._update(released=True, retired=retired, drop_handoff=not self.handing_over)
        self._status.held = False
        self._status.waiting_for = self.asked_by
        log.info("lease released", epoch=self.epoch, to=self.asked_by)

    async def _update(
        self,
        *,
        settled: Mapping[str, str] | None = None,
        running: bool = False,
        released: bool = False,
        retired: tuple[str, ...] | None = None,
        drop_handoff: bool = False,
    ) -> None:
        """Write what we know into our record; again when somebody wrote a request into it meanwhile."""
        self.require()
        for attempt in range(UPDATES):
            assert self._record is not None  # noqa: S101 - `require` said so
            record = replace(
                self._record,
                latest=dict(self._latest),
                settled={**self._record.settled, **dict.fromkeys(settled or (), self._record.epoch)},
                released=released,
                retired=self._record.retired if retired is None else retired,
                handoff=None if drop_handoff else self._record.handoff,
                aged=0.0,
                running=(self._record.running or running) and not released,
                unfinished=None if self._told else self._record.unfinished,
            )
            try:
                await self._write(record, IfMatch(self._etag))
            except (PreconditionFailed, NotFound):
                await self._adopt()
                if attempt == UPDATES - 1:
                    raise StoreUnavailable("the lease object changes faster than it can be written") from None
            else:
                break
        self._status.renewals["ok"] += 1
        if self.asked_by and not released:
            self.asked.set()

    async def _adopt(self) -> None:
        """After a refused write: go on from what is there, if that is still ours. Raises `LeaseLost`."""
        seen, record = await read(self._store), self._record
        if record and seen is None:  # deleted by hand, and what else? What is written anew keeps the epoch
            log.error("the lease object is gone from the store: it is written anew", epoch=record.epoch)
            self._doubted.set()
            try:
                await self._write(record, IfAbsent())
            except (PreconditionFailed, NotFound):
                seen = await read(self._store)
            else:
                return
        ours = record and seen and (seen.record.epoch, seen.record.boot) == (record.epoch, record.boot)
        if not ours or seen is None:
            self._lose(seen)
            raise self._why_lost or LeaseLost("the lease is lost")
        # An older version that asks for it leaves out what it does not know.
        mine = record or seen.record
        self._record = replace(seen.record, running=mine.running, unfinished=mine.unfinished)
        self._etag = seen.etag

    def _lose(self, seen: Seen | None) -> None:
        by = f"{seen.record.holder} (epoch {seen.record.epoch})" if seen else "nobody: the lease object is gone"
        self._why_lost = LeaseLost(
            f"the lease of {self._store.url} was taken over by {by}",
            "this machine publishes nothing any more; what it wrote meanwhile goes to diverged/",
        )
        self._status.held = False
        self._status.waiting_for = seen.record.holder if seen else None
        self._status.renewals["lost"] += 1
        log.error("lease lost", to=by, our_epoch=self.epoch)
        self.lost.set()

    async def _write(self, record: Record, condition: Condition) -> datetime:
        """Write our record. Returns when our term began: an instant of the store's clock not later than the write."""
        before = await self._store.now()
        info = await write(self._store, record, condition)
        self._record, self._etag, self._ends = record, info.etag, before + self._valid_for()
        self._status.held, self._status.epoch = not record.released, record.epoch
        return before

    def _valid_for(self) -> timedelta:
        return self._me.ttl - min(LONGEST_MARGIN, self._me.ttl / 4)
