"""What happens to the restore points before the newest one: held if a snapshot is suspicious, tagged, pruned.

`retention` and `suspicion` decide; this module carries it out.
"""

import anyio

from sidecar.errors import NotFound, SidecarError, StoreUnavailable
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import ObjectInfo, Snapshot
from sidecar.policies import Expires, RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.guard import SuspicionGuard
from sidecar.repository.holds import Holds
from sidecar.repository.keys import point_of
from sidecar.repository.newest import KnownPoint, NewestPoint
from sidecar.repository.placed import PlacedStore, places_by_prefix
from sidecar.repository.pruning import Pruning, pruner_of
from sidecar.repository.suspicion import Extent
from sidecar.repository.tags import RestorePointTags
from sidecar.repository.tiers import Tiers
from sidecar.status import Status
from sidecar.storage import Prunable, Traits

TIME_LIMIT = 30.0  # seconds; what is left over is done after the next cycle
TIME_LIMIT_OF_COPIES = 600.0  # where a tier is a copy: one that is cancelled may be undone, and would never be there


class Expiry:
    """The expiry of one database's restore points. Not for use by two tasks at once."""

    def __init__(
        self,
        database: str,
        *,
        newest: NewestPoint,
        guard: SuspicionGuard,
        tiers: Tiers,
        tags: RestorePointTags,
        pruning: Pruning | None,
        status: Status,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        """`pruning` is for a store whose expired restore points sidecar itself deletes. `time_limit` is in seconds."""
        self._database = database
        self._newest = newest
        self._guard = guard
        self._tiers = tiers
        self._tags = tags
        self._pruning = pruning
        self._status = status
        self._time_limit = time_limit

    async def hold_before(self, snapshot: Snapshot) -> None:
        """Before this snapshot is published: if it is suspicious, hold the restore points that it must not displace.

        Raises `SidecarError` if one cannot be held or the store cannot be asked; then nothing may be published.
        """
        self._tiers.add(await self._newest.refresh())
        if previous := self._newest.known:
            try:
                await self._guard.check(previous, snapshot)
            except StoreUnavailable as error:
                if isinstance(error.__cause__, NotFound):
                    self._newest.forget(previous.point.key)
                raise

    def add(self, published: ObjectInfo, snapshot: Snapshot) -> None:
        """Record that this snapshot was published; `tag_and_prune` tags the restore point before it."""
        point = point_of(published)
        if point is None:
            raise ValueError(f"{published.key} is not a restore point")
        if pair := self._newest.add(KnownPoint(point, Extent.of(snapshot), ours=True)):
            older, superseded = pair
            self._tiers.add([superseded])
            self._guard.remember(older)

    def forget(self, key: str) -> None:
        """Forget a restore point that is damaged or gone: the newest one is looked up again."""
        self._newest.forget(key)

    async def tag_and_prune(self) -> None:
        """Tag superseded restore points, and prune if sidecar has to. Never raises: what failed is done after a later cycle."""
        with anyio.move_on_after(self._time_limit) as scope:
            try:
                if not self._tiers.caught_up:
                    await self._tiers.catch_up(await self._newest.find())
                await self._newest.keep()
                await self._tiers.tag_all()
                if self._pruning:
                    await self._pruning.run()
            except SidecarError as error:
                self._log_postponed(error)
        if scope.cancelled_caught:
            self._log_postponed(StoreUnavailable("the store is slow"))
        self._status.databases[self._database].untagged = self._tiers.untagged

    async def add_tag(self, key: str, name: str, value: str) -> None:
        """Add a tag to a restore point, if its tags can be read. Raises `SidecarError`."""
        await self._tags.add(key, name, value)

    def _log_postponed(self, error: SidecarError) -> None:
        log.warning("tagging and pruning postponed", database=self._database, error=error.message, hint=error.hint)


def what_expires(traits: Traits, *, prunes: bool) -> Expires:
    """What deletes expired restore points from a store with these traits; `prunes`: this daemon does."""
    if prunes:
        return Expires.PRUNE
    if places_by_prefix(traits):
        return Expires.PREFIXES
    return Expires.TAGS if traits.tags and traits.tag_rules else Expires.NOTHING


def expiry_of(
    database: str,
    catalog: Catalog,
    status: Status,
    clock: Clock,
    keep: RetentionDays,
    prunable: Prunable | None = None,
    holds: Holds | None = None,
) -> Expiry:
    """The expiry of a database in this catalog; `prunable` is its store, if each cycle is to prune it.

    `holds` marks what is held beside the tag, where objects may have no tags.
    """
    tags = RestorePointTags(database, catalog.store, holds)
    copies = isinstance(catalog.store, PlacedStore) and catalog.store.placing
    return Expiry(
        database,
        newest=NewestPoint(database, catalog),
        guard=SuspicionGuard(database, tags, status, clock),
        tiers=Tiers(database, catalog, tags, status, keep),
        tags=tags,
        pruning=Pruning(database, catalog.store, pruner_of(catalog, prunable, keep), clock) if prunable else None,
        status=status,
        time_limit=TIME_LIMIT_OF_COPIES if copies else TIME_LIMIT,
    )
