"""Pruning: deleting expired restore points from a store that has no lifecycle rules of its own."""

from datetime import datetime

from sidecar.host import Clock
from sidecar.log import log
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import folder_of
from sidecar.repository.retention import TIER_TAG, Tagged, Tier, plan_prune
from sidecar.storage import Prunable

PRUNE_EVERY = 3600.0
STEADY = 600.0  # seconds that a store's clock and ours may drift apart between two prunings


class Pruning:
    """Prunes one database's restore points once an hour, as long as the store's clock can be trusted."""

    def __init__(self, database: str, catalog: Catalog, prunable: Prunable, clock: Clock) -> None:
        """`prunable` is the catalog's store again."""
        self._database = database
        self._catalog = catalog
        self._prunable = prunable
        self._clock = clock
        self._last: tuple[datetime, float] | None = None

    async def run(self) -> None:
        """Delete what has expired, unless that was done within the last hour. Raises `SidecarError`."""
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
        pruned = await self._prunable.prune({key: tags[key] for key in plan_prune(points, now)})
        if pruned:
            log.info("expired restore points deleted", database=self._database, count=len(pruned), keys=pruned[:20])

    def _is_steady(self, now: datetime) -> bool:
        """Whether the store's clock has advanced since the last pruning as far as the monotonic one."""
        at = self._clock.monotonic()
        before, self._last = self._last, (now, at)
        return before is None or abs((now - before[0]).total_seconds() - (at - before[1])) < STEADY


def _tier(tags: dict[str, str]) -> Tier | None:
    return Tier(tags[TIER_TAG]) if tags.get(TIER_TAG) in set(Tier) else None
