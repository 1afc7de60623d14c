"""What has expired in a store, for whoever may delete it. Nothing is deleted here.

Every store has the same decisions. Where objects have tags, the tags are asked, as a bucket's rules would. Where they have
none, the tiers follow from the names that are left, and marks show which restore points are held (see `retention.derive`
and `holds`). Where restore points are placed (see `places`), the place says the tier, and the names do where it says none.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

from sidecar.concurrency import gathered
from sidecar.errors import ConfigurationError, NotFound
from sidecar.host import Clock
from sidecar.model import AtRestorePoint, ObjectInfo, Origin, RestorePoint
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.format.index import position_of
from sidecar.repository.history import SegmentInfo
from sidecar.repository.holds import Holds
from sidecar.repository.increments import Increments
from sidecar.repository.placed import PlacedStore
from sidecar.repository.retention import (
    TIER_TAG,
    NewestKnown,
    Tagged,
    Tier,
    derive,
    distrust,
    is_expired,
    lifetime,
    plan_prune,
)
from sidecar.storage import Expired
from sidecar.units import whole_number

AT_ONCE = 8
DISAGREEMENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Doomed:
    """A restore point that has expired, with its tier and its objects: one, or its copies at several places."""

    point: RestorePoint
    tier: Tier
    objects: tuple[Expired, ...]

    @property
    def size(self) -> int:
        """The bytes of all its objects."""
        return self.point.size * len(self.objects)


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What has expired of one database, at an instant of the store's clock: restore points oldest first.

    `kept` is how many restore points stay, `held` how many of those are held. `newest` says which segments are needed; None
    if none may be deleted. `distrust` is why nothing may be deleted, or empty.
    """

    database: str
    at: datetime
    points: tuple[Doomed, ...]
    kept: int
    held: int
    newest: NewestKnown | None
    distrust: str = ""


class PrunePlanner:
    """Plans what to prune of any database of one store."""

    def __init__(self, catalog: Catalog, keep: RetentionDays, clock: Clock | None = None) -> None:
        """`clock` is that of this machine: where it disagrees with the store's, one of them is wrong, and nothing expires."""
        self._catalog = catalog
        self._store = catalog.store
        self._increments = Increments(catalog.store)
        self._holds = Holds(catalog.store)
        self._keep = keep
        self._clock = clock

    async def plan(self, database: str) -> PrunePlan:
        """What has expired of a database. Raises `SidecarError`, also where only a newer version can tell what is needed."""
        now = await self._store.now()
        self._require_agreement(now)
        points = [point async for point in self._catalog.points(database)]
        newest = await self._catalog.newest(database) if points else None
        if newest is None:
            return PrunePlan(database, now, (), len(points), 0, None)
        if reason := distrust([point.timestamp for point in points], now, self._keep):
            return PrunePlan(database, now, (), len(points), 0, None, reason)
        # Those of a fenced machine may be later than the newest one of the main line. Neither they nor that one expire.
        older = [point for point in points if point.timestamp < newest.timestamp]
        if newest.gone:  # the one before it is the newest one that is left
            older = older[:-1]
        old = [each for each in older if now - each.timestamp.instant > lifetime(Tier.RECENT, self._keep)]
        spread = self._store if isinstance(self._store, PlacedStore) and self._store.is_spread(database) else None
        look = self._placed if spread else self._tagged if self._store.traits.tags else self._untagged
        known = await look(database, old, older[len(old) :], newest)
        tagged = [
            Tagged(each.key, each.timestamp, known[each.key].tier if each.key in known else None) for each in points
        ]
        expired = set(plan_prune(tagged, now, self._keep))
        doomed = [known[point.key] for point in points if point.key in expired]
        if spread:
            doomed = await self._with_all_objects(spread, doomed, now)
        held = sum(each.tier is Tier.HELD for each in tagged)
        return PrunePlan(database, now, tuple(doomed), len(points) - len(doomed), held, await self._needs(newest))

    async def expired_segments(self, plan: PrunePlan) -> AsyncIterator[list[SegmentInfo]]:
        """The expired segments of each stream, oldest first, at most a thousand at a time. They may be deleted meanwhile."""
        newest = plan.newest
        if newest is None:
            return
        for stream in await self._increments.names(plan.database):
            after = 0
            while True:
                page = await self._increments.page(plan.database, stream, after)
                expired = [*takewhile(lambda each: is_expired(each, stream, newest, plan.at, self._keep), page)]  # noqa: B023  consumed at once
                if expired:
                    yield expired
                if not expired or len(expired) < len(page):
                    break
                after = expired[-1].last

    def _require_agreement(self, now: datetime) -> None:
        """Raise `ConfigurationError` if a proxy, or a server of one's own, has the time so wrong that things expire early."""
        here = self._clock.now() if self._clock else now
        if abs(here - now) > DISAGREEMENT:
            raise ConfigurationError(
                f"nothing is pruned: the store says that it is {now:%Y-%m-%d %H:%M} UTC, and this machine "
                f"{here:%Y-%m-%d %H:%M} UTC",
                "set the clock that is wrong",
            )

    async def _needs(self, newest: RestorePoint) -> NewestKnown | None:
        """The newest restore point for the question which segments its history needs; None if it is gone."""
        try:
            info = await self._store.head(newest.key)
        except NotFound:
            return None
        return NewestKnown(newest.timestamp, position_of(info.metadata))

    async def _tagged(
        self, _database: str, old: Sequence[RestorePoint], _young: Sequence[RestorePoint], _newest: RestorePoint
    ) -> dict[str, Doomed]:
        """Those with a tier as a tag. Raises `AccessDenied` if tags may not be read: then nobody knows which are held."""

        async def read(point: RestorePoint) -> Doomed | None:
            try:
                tags = await self._store.tags(point.key)
            except NotFound:
                return None
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"the tags of {point.key} cannot be read, so nobody knows whether it is held: {error.message}",
                    "nothing was deleted; if this store has no tags, see `sidecar check`",
                ) from error
            return _doomed(point, Tier(tags[TIER_TAG]), tags) if tags.get(TIER_TAG) in set(Tier) else None

        found = await gathered(old, read, at_once=AT_ONCE)
        return {each.point.key: each for each in found if each}

    async def _untagged(
        self, database: str, old: Sequence[RestorePoint], young: Sequence[RestorePoint], newest: RestorePoint
    ) -> dict[str, Doomed]:
        """Those of a store that is believed to have no tags. If one refused request taught that, their tags decide after all."""
        try:
            return await self._tagged(database, old, young, newest)
        except ConfigurationError:
            return await self._placed(database, old, young, newest)

    async def _derived(
        self, database: str, old: Sequence[RestorePoint], young: Sequence[RestorePoint], newest: RestorePoint
    ) -> dict[str, Doomed]:
        """The tiers that the names show, of restore points of the main line: those of a fenced machine never expire.

        Takes a HEAD for each, and two requests for each stream.
        """
        line = await self._main_line(database, old, young, newest)
        tiers = derive([point.timestamp for point, _ in line], self._keep)
        held, entered, found = await self._holds.of(database), set[str](), dict[str, Doomed]()
        for (point, info), tier in zip(line, tiers, strict=True):
            if tier is Tier.RECENT and await self._is_entry(database, info, entered):
                tier = Tier.HOURLY
            if point.key in held:
                tier = Tier.HELD
            if tier:
                found[point.key] = _doomed(point, tier)
        return found

    async def _placed(
        self, database: str, old: Sequence[RestorePoint], young: Sequence[RestorePoint], newest: RestorePoint
    ) -> dict[str, Doomed]:
        """The tiers of places, or of tags in the main place, else those that the names show. A mark holds, too."""
        found = await self._derived(database, old, young, newest)
        held = {key for key, each in found.items() if each.tier is Tier.HELD}

        async def read(point: RestorePoint) -> Doomed | None:
            try:
                tier = (await self._store.tags(point.key)).get(TIER_TAG)
            except (NotFound, ConfigurationError):  # gone, or in the main place of a store without tags
                return None
            return _doomed(point, Tier(tier)) if tier in set(Tier) else None

        shown = await gathered([point for point in old if point.key not in held], read, at_once=AT_ONCE)
        return {**found, **{each.point.key: each for each in shown if each}}

    async def _with_all_objects(self, store: PlacedStore, doomed: Sequence[Doomed], now: datetime) -> list[Doomed]:
        """These restore points with their objects at all places, without those that have a copy too young for a rule.

        One that only a slot has got has none to delete.
        """

        async def look(each: Doomed) -> Doomed:
            found = await store.prunable(each.point.key)
            if any(now - info.last_modified <= lifetime(each.tier, self._keep) for info in found):
                found = []
            return replace(each, objects=tuple(Expired(info.key, info.etag) for info in found))

        return [each for each in await gathered(doomed, look, at_once=AT_ONCE) if each.objects]

    async def _main_line(
        self, database: str, old: Sequence[RestorePoint], young: Sequence[RestorePoint], newest: RestorePoint
    ) -> list[tuple[RestorePoint, ObjectInfo]]:
        """The old restore points of the main line, and the one that superseded the last of them.

        One of an earlier term than one before it is a fenced machine's, also where no lease is left to say so. (0 is no term.)
        """

        async def head(point: RestorePoint) -> ObjectInfo | None:
            try:
                return await self._store.head(point.key)
            except NotFound:  # a second prune was here
                return None

        side_lines, highest = await self._catalog.side_lines(database), 0

        async def is_on_it(point: RestorePoint, info: ObjectInfo) -> bool:
            nonlocal highest
            epoch = whole_number(info.metadata.get("epoch"))
            if (epoch and epoch < highest) or await side_lines.has(point.key, info.metadata):
                return False
            highest = max(highest, epoch or 0)
            return True

        line: list[tuple[RestorePoint, ObjectInfo]] = []
        for point, info in zip(old, await gathered(old, head, at_once=AT_ONCE), strict=True):
            if info and await is_on_it(point, info):
                line.append((point, info))
        for point in [*young, newest]:
            info = await head(point)
            if info and await is_on_it(point, info):
                return [*line, (point, info)]
        return line  # the newest is gone: the last one that is left has no successor

    async def _is_entry(self, database: str, info: ObjectInfo, entered: set[str]) -> bool:
        """Whether a restore point is the first one left that leads into a stream which continues no other; see `entries`."""
        position = position_of(info.metadata)
        if position is None or position.stream in entered:
            return False
        entered.add(position.stream)
        first = await self._increments.first_of(database, position.stream)
        after: Origin | None = await self._increments.after_of(first) if first else None
        return first is not None and (after is None or isinstance(after, AtRestorePoint))


def _doomed(point: RestorePoint, tier: Tier, tags: Mapping[str, str] | None = None) -> Doomed:
    return Doomed(point, tier, (Expired(point.key, point.etag, tags),))
