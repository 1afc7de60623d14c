"""Pruning: deleting expired restore points and segments from a store whose rules do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sidecar.host import Clock
from sidecar.log import log
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.holds import Holds
from sidecar.repository.prune_plan import Doomed, PrunePlan, PrunePlanner
from sidecar.storage import Expired, ObjectStore, Prunable

PRUNE_EVERY = 3600.0
STEADY = 600.0  # seconds by which the store's clock and ours may drift apart between two runs
AT_ONCE = 100  # restore points between two looks at the marks of held ones


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted: keys of restore points, the number of segments, and the bytes of both."""

    keys: tuple[str, ...] = ()
    segments: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Prospect:
    """A plan, with the number of segments that it deletes, and the bytes of restore points and segments."""

    plan: PrunePlan
    segments: int
    size: int


class Pruner:
    """Carries out plans. Any number of them may do that at once: each deletes only what is still as it was planned."""

    def __init__(self, store: ObjectStore, planner: PrunePlanner, prunable: Prunable) -> None:
        """`prunable` is the same store."""
        self._holds = Holds(store)
        self.planner = planner
        self._prunable = prunable

    async def prospect(self, database: str) -> Prospect:
        """Plan, and count everything that is to be deleted: one request for each thousand segments. Raises `SidecarError`."""
        plan = await self.planner.plan(database)
        segments, size = 0, sum(each.size for each in plan.points)
        async for page in self.planner.expired_segments(plan):
            segments, size = segments + len(page), size + sum(each.size for each in page)
        return Prospect(plan, segments, size)

    async def carry_out(self, plan: PrunePlan) -> Pruned:
        """Delete what a plan says, oldest first. Raises `SidecarError`; the next plan has what is left then."""
        sizes = {each.point.key: each.size for each in plan.points}
        keys: list[str] = []
        for start in range(0, len(plan.points), AT_ONCE):
            keys += await self._delete(plan.database, plan.points[start : start + AT_ONCE])
        segments, size = 0, sum(sizes[key] for key in keys)
        async for page in self.planner.expired_segments(plan):
            known = {each.key: each.size for each in page}
            deleted = await self._prunable.prune([Expired(each.key, each.etag) for each in page])
            segments, size = segments + len(deleted), size + sum(known[key] for key in deleted)
        return Pruned(tuple(keys), segments, size)

    async def _delete(self, database: str, doomed: Sequence[Doomed]) -> tuple[str, ...]:
        objects = [one for each in doomed for one in each.objects]
        if any(one.tags is None for one in objects):  # a mark may be new; tags are compared when it is deleted
            held = await self._holds.of(database)
            doomed = [each for each in doomed if each.point.key not in held]
            objects = [one for each in doomed for one in each.objects]
        deleted = set(await self._prunable.prune(objects))
        return tuple(each.point.key for each in doomed if any(one.key in deleted for one in each.objects))


def pruner_of(catalog: Catalog, prunable: Prunable, keep: RetentionDays, clock: Clock | None = None) -> Pruner:
    """The pruner of a catalog's store; `prunable` is the same store. See `PrunePlanner` for `clock`."""
    return Pruner(catalog.store, PrunePlanner(catalog, keep, clock), prunable)


class Pruning:
    """Prunes one database every now and then, as long as the store's clock can be trusted."""

    def __init__(
        self, database: str, store: ObjectStore, pruner: Pruner, clock: Clock, every: float = PRUNE_EVERY
    ) -> None:
        """`every` is in seconds."""
        self._database = database
        self._store = store
        self._pruner = pruner
        self._clock = clock
        self._every = every
        self._last: tuple[datetime, float] | None = None
        self._done: float | None = None

    async def run(self) -> None:
        """Delete everything that has expired, unless that was done recently. Raises `SidecarError`."""
        started = self._clock.monotonic()
        if self._done is not None and started - self._done < self._every:
            return
        now = await self._store.now()
        if not self._is_steady(now):
            log.warning("pruning skipped", cause="the store's clock has jumped", now=now.isoformat())
            self._done = started
            return
        pruned = await self._pruner.carry_out(await self._pruner.planner.plan(self._database))
        if pruned.keys:
            keys = pruned.keys
            log.info("expired restore points deleted", database=self._database, count=len(keys), keys=keys[:20])
        if pruned.segments:
            log.info("expired segments deleted", database=self._database, count=pruned.segments)
        self._done = started

    def _is_steady(self, now: datetime) -> bool:
        """Whether the store's clock has advanced as much as the monotonic one since the last run."""
        at = self._clock.monotonic()
        before, self._last = self._last, (now, at)
        return before is None or abs((now - before[0]).total_seconds() - (at - before[1])) < STEADY
