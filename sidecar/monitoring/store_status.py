"""Reads from the store what `sidecar status` shows if no daemon runs."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio

from sidecar.errors import (
    AccessDenied,
    DamagedLease,
    DamagedRestorePoint,
    SidecarError,
    UnsupportedRestorePoint,
)
from sidecar.lease import read_lease
from sidecar.log import log
from sidecar.model import RestorePoint
from sidecar.monitoring.incident_store import read_open
from sidecar.monitoring.listing import StoreListing
from sidecar.repository import OTHERS, Catalog, DrillOutcome, Reader, age_of, format_others, last_drill
from sidecar.repository.increments import Increments
from sidecar.status import Health, Level, Problem, Status
from sidecar.status.expiring import attention
from sidecar.status.store import LastHolder, StoredDatabase, StoreStatus, judge

STREAM_SECONDS = 0.5  # how long the look at a stream may take: the rest is of more use than a precise end of it


class StoreReader:
    """Reads the state of databases from a store. Read permission is enough."""

    def __init__(
        self, catalog: Catalog, reader: Reader, listing: StoreListing, drill_interval: timedelta, status: Status
    ) -> None:
        """`status` says what deletes expired restore points, and whether bytes cost money."""
        self._status = status
        self._catalog = catalog
        self._listing = listing
        self._reader = reader
        self._drill_interval = drill_interval

    async def read(self, names: tuple[str, ...], *, store: str, place: str, now: datetime) -> StoreStatus:
        """The status of these databases. Raises what the store raises.

        `store` is the URL to show, without a password. `place` is the same URL, with a remark if the directory is missing.
        `now` is the time by this machine's clock.
        """
        databases = [await self._database(name) for name in names]
        incidents = [each for name in names for each in await self._incidents(name, now)]
        holder = await self._holder()
        missing = any(each.restore_point is None for each in databases)
        others = format_others(await self._catalog.names(OTHERS)) if missing else ""
        health = judge(databases, holder, incidents, place=f"{place}{others}")
        health = self._with_expiry(health, databases, now)
        return StoreStatus(store, tuple(databases), holder, health, tuple(incidents), self._status.expires)

    def _with_expiry(self, health: Health, databases: Sequence[StoredDatabase], now: datetime) -> Health:
        """The verdict, or what is wrong with the expiry of restore points if nothing worse is."""
        expires, billable = self._status.expires, self._status.billable
        if health.level is not Level.WAIT:
            return health
        for each in databases:
            if found := attention(expires, each.listing, each.stored_bytes or {}, now, billable=billable):
                reason, hint = (
                    f"{health.reason}; {each.name}: {found[0]}",
                    "; ".join(filter(None, (found[1], health.hint))),
                )
                return Health(Level.ATTENTION, "Needs attention", None, reason, hint)
        return health

    async def _database(self, name: str) -> StoredDatabase:
        newest = await self._catalog.newest(name)
        if newest is None:
            return StoredDatabase(name)
        now = await self._catalog.store.now()
        drilled = await last_drill(self._catalog, newest, self._drill_interval)
        good = drilled and drilled[1].outcome is DrillOutcome.GOOD
        listing, stored = await self._listing.read(name, shown=1)
        return StoredDatabase(
            name,
            newest.key,
            newest.size,
            age_of(newest, now),
            await self._streamed_to(newest),
            last_drill=drilled[1].at.instant if drilled and good else None,
            drill_outcome=drilled[1].outcome.value if drilled else None,
            stored_bytes=stored,
            listing=listing,
            gone=newest.gone,
            damage=await self._damage(newest),
        )

    async def _streamed_to(self, newest: RestorePoint) -> datetime | None:
        """When the last commit was made that a restore would reach after a restore point, by the names of segments. None if that takes long."""
        if newest.gone:
            return None
        times: list[int] = []
        with anyio.move_on_after(STREAM_SECONDS), suppress(DamagedRestorePoint, UnsupportedRestorePoint, AccessDenied):
            position, ends = await self._catalog.position(newest), await self._catalog.ends()
            history = await Increments(self._catalog.store).look(newest.database, newest.key, position, ends)
            times = [segment.time for leg in history.legs for segment in leg.segments]
        return datetime.fromtimestamp(times[-1] / 1000, UTC) if times else None

    async def _damage(self, point: RestorePoint) -> str | None:
        """What its index shows to be wrong with a restore point, else None. `sidecar verify` reads all of it."""
        if point.gone:
            return None
        try:
            await self._reader.contents(point)
        except DamagedRestorePoint as damage:
            return damage.message
        except (UnsupportedRestorePoint, AccessDenied):  # AccessDenied: these credentials may only list
            return None
        return None

    async def _incidents(self, name: str, now: datetime) -> tuple[Problem, ...]:
        """The incidents that still need a person's decision, oldest first. Empty if these credentials may not read them."""
        try:
            return (await read_open(self._catalog, name, now))[1]
        except SidecarError as error:  # these credentials may only read restore points
            log.info("open incidents not read", database=name, error=error.message)
            return ()

    async def _holder(self) -> LastHolder | None:
        with suppress(DamagedLease):
            if seen := await read_lease(self._catalog.lease_store, self._catalog.name):
                record, age = seen.record, seen.age.total_seconds()
                return LastHolder(record.holder, record.epoch, record.released, age, record.ttl)
        return None
