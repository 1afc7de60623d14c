"""Pruning: deleting expired restore points and segments from a store that has no lifecycle rules of its own."""

from datetime import datetime
from itertools import takewhile

from sidecar.errors import NotFound
from sidecar.host import Clock
from sidecar.log import log
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.format.index import position_of
from sidecar.repository.increments import Increments
from sidecar.repository.keys import folder_of
from sidecar.repository.retention import TIER_TAG, NewestKnown, Tagged, Tier, is_expired, plan_prune, trusts
from sidecar.storage import Prunable

PRUNE_EVERY = 3600.0
STEADY = 600.0  # seconds by which the store's clock and ours may drift apart between two runs


class Pruning:
    """Prunes one database's restore points and segments once an hour, as long as the store's clock can be trusted."""

    def __init__(self, database: str, catalog: Catalog, prunable: Prunable, clock: Clock, keep: RetentionDays) -> None:
        """`prunable` is the same store as the catalog's."""
        self._database = database
        self._catalog = catalog
        self._increments = Increments(catalog.store)
        self._prunable = prunable
        self._clock = clock
        self._keep = keep
        self._last: tuple[datetime, float] | None = None

    async def run(self) -> None:
        """Delete everything that has expired, at most once an hour. Raises `SidecarError`."""
        if self._last and self._clock.monotonic() - self._last[1] < PRUNE_EVERY:
            return
        now = await self._catalog.store.now()
        if not self._is_steady(now):
            log.warning("pruning skipped", cause="the store's clock has jumped", now=now.isoformat())
            return
        tags = await self._prunable.tagged(folder_of(self._database))
        points = [
            Tagged(point.key, point.timestamp, _tier(tags.get(point.key, {})))
            async for point in self._catalog.points(self._database)
        ]
        pruned = await self._prunable.prune({key: tags[key] for key in plan_prune(points, now, self._keep)})
        if pruned:
            log.info("expired restore points deleted", database=self._database, count=len(pruned), keys=pruned[:20])
        if trusts([point.timestamp for point in points], now, self._keep):
            await self._prune_segments(now)

    async def _prune_segments(self, now: datetime) -> None:
        """Delete the expired segments of each stream. Their age is in their keys, because this store has no tags for them."""
        newest = await self._newest()
        deleted = 0
        for stream in await self._increments.names(self._database) if newest else ():
            while newest and (expired := await self._expired_in(stream, newest, now)):
                removed = await self._prunable.remove(expired)
                deleted += len(removed)
                if not removed:  # another process deletes them
                    break
        if deleted:
            log.info("expired segments deleted", database=self._database, count=deleted)

    async def _expired_in(self, stream: str, newest: NewestKnown, now: datetime) -> list[str]:
        """The expired segments of a stream, oldest first, at most a thousand."""
        first = await self._increments.first_segments(self._database, stream)
        return [each.key for each in takewhile(lambda each: is_expired(each, stream, newest, now, self._keep), first)]

    async def _newest(self) -> NewestKnown | None:
        """The newest restore point; None if there is none or it is gone."""
        point = await self._catalog.newest(self._database)
        try:
            info = await self._catalog.store.head(point.key) if point else None
        except NotFound:
            return None
        return NewestKnown(point.timestamp, position_of(info.metadata)) if point and info else None

    def _is_steady(self, now: datetime) -> bool:
        """Whether the store's clock has advanced as much as the monotonic one since the last run."""
        at = self._clock.monotonic()
        before, self._last = self._last, (now, at)
        return before is None or abs((now - before[0]).total_seconds() - (at - before[1])) < STEADY


def _tier(tags: dict[str, str]) -> Tier | None:
    return Tier(tags[TIER_TAG]) if tags.get(TIER_TAG) in set(Tier) else None
