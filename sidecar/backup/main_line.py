"""The main line of one database: publishes its next restore point, and expires earlier ones."""

from dataclasses import replace

from sidecar.backup.history import History
from sidecar.backup.in_place import InPlace, Offer
from sidecar.backup.late_segments import LateSegments
from sidecar.database import Lineage
from sidecar.errors import (
    DamagedRestorePoint,
    PreconditionFailed,
    ReuseFailed,
    StoreUnavailable,
    UnsupportedRestorePoint,
)
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Origin, RestorePoint, Snapshot
from sidecar.repository import Catalog, Expiry, Index, Parent, Published, Publisher, Reader, TakeOver, key_of
from sidecar.repository.increments import Increments
from sidecar.status import Status


class MainLine:
    """The restore points of one database, in the order in which the holders of the lease published them."""

    def __init__(
        self,
        history: History,
        lineage: Lineage,
        catalog: Catalog,
        publisher: Publisher,
        reader: Reader,
        expiry: Expiry,
        fence: Fence,
        status: Status,
    ) -> None:
        self._history = history
        self._lineage = lineage
        self._catalog = catalog
        self._publisher = publisher
        self._reader = reader
        self._expiry = expiry
        self._fence = fence
        self._status = status
        self.in_place = InPlace(publisher.limits)
        self._late = LateSegments(history.database, Increments(catalog.store), lineage, fence, status)

    def start_from(self, end: Origin | None) -> None:
        """The boot has read the streams up to `end`, which this term continues."""
        self._late.start_from(end)

    def offer(self, now: float, *, last: bool = False) -> Offer | None:
        """What the next restore point may take over unread; None if everything must be copied. `now` is in monotonic seconds."""
        return self.in_place.offer(self._history.base, now, self._status.drill_interval, last=last)

    async def index(self, snapshot: Snapshot, plan: TakeOver | None = None) -> Index:
        """Hash a snapshot, or what it has, by a plan."""
        return await self._publisher.index(snapshot, self._history.database, plan)

    async def publish(self, snapshot: Snapshot, index: Index, now: float, offer: Offer | None = None) -> Published:
        """Publish a snapshot as the newest restore point. Raises `SidecarError`, after which it may be unknown whether it exists.

        `now` is in monotonic seconds. With an `offer`, the rest is taken over by its plan; raises `ReuseFailed` if that is not
        possible.
        """
        history, fence, plan = self._history, self._fence, offer.plan if offer else None
        await self._expiry.hold_before(snapshot)
        timestamp = await self._catalog.stamp(history.database, await fence.ensure_held(), history.newest)
        key = key_of(history.database, timestamp)
        history.stamp(timestamp)
        self._lineage.pending(key, posix_locks=snapshot.posix_locks)
        named = replace(index, timestamp=str(timestamp), parent=history.parent, epoch=fence.epoch)
        try:
            base = await self._reusable()
            if plan and plan.parent is not base:
                raise ReuseFailed("the restore point before it turned out to be damaged or gone")
            published = await self._publisher.publish(snapshot, named, key, base, fence.ensure_held, plan)
        except PreconditionFailed as error:
            history.stamp(None)
            raise StoreUnavailable(f"{key} already exists: another machine publishes to this store") from error
        history.base = published.as_parent
        self.in_place.published(published.as_parent, snapshot, offer, now)
        await fence.confirm(history.database, key)  # until then it may be off the main line and protects nothing
        self._lineage.descends(key, named.root)
        self._expiry.add(published.info, snapshot)
        history.advance(key, timestamp, named.root)
        await self._late.look()
        return published

    async def settle(self) -> None:
        """Tag and prune superseded restore points. Never raises: what failed is done the next time."""
        await self._expiry.tag_and_prune()

    async def mark(self, key: str, name: str, value: str) -> None:
        """Add a tag to a restore point. Raises `SidecarError`."""
        await self._expiry.add_tag(key, name, value)

    async def _reusable(self) -> Parent | None:
        """The restore point to copy from. If this process neither published nor restored it, its index is read once."""
        if isinstance(self._history.base, RestorePoint):
            self._history.base = await self._read(self._history.base)
        return self._history.base

    async def _read(self, base: RestorePoint) -> Parent | None:
        database = self._history.database
        try:
            return Parent(*await self._reader.contents(base))
        except (DamagedRestorePoint, UnsupportedRestorePoint) as error:
            if isinstance(error, DamagedRestorePoint):
                hint = "a full replacement is published now; `sidecar verify --all` shows which older ones are good"
                self._status.damaged(database, error.message, hint)
            log.warning("newest restore point not reused", database=database, error=error.message)
            return None
