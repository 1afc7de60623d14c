"""What becomes of the restore points before the newest one: held when the new one is suspicious, tagged, pruned.

`retention` decides, this carries out. Restore points are tagged oldest first, so that those with a tier are followed
only by those without: after a crash one look back from the newest finds what is missing.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import anyio
import structlog

from sidecar import documentation
from sidecar.errors import AccessDenied, ConfigurationError, NotFound, SidecarError, StoreUnavailable
from sidecar.host.clock import Clock
from sidecar.model import ObjectInfo, RestorePoint, Snapshot, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import folder_of, point_of
from sidecar.repository.retention import KEEP, TIER_TAG, Tagged, Tier, plan_prune, tier_of
from sidecar.repository.suspicion import MEMORY, Extent, had_shed, is_like, suspicion
from sidecar.status.model import Status
from sidecar.storage.base import Prunable

log = structlog.get_logger()

PATIENCE = 30.0  # seconds; what is not done by then is done after the next cycle
PENDING = 1000
LOOKED_BACK = 100
PRUNE_EVERY = 3600.0
GONE_HINT = "a newer one is there; which others are left? see `sidecar list`. Who deletes in the store, or a rule without a tag filter?"
STEADY = 600.0  # seconds by which a store's clock and ours may drift apart between two prunings


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest restore point; `ours` says that this process made it, so that it has no tag that we do not know."""

    point: RestorePoint
    extent: Extent
    ours: bool


@dataclass(frozen=True, slots=True)
class _Superseded:
    key: str
    timestamp: Timestamp
    successor: Timestamp
    ours: bool


class Predecessors:
    """Those of one database. Not for use by two tasks at once."""

    def __init__(
        self, database: str, catalog: Catalog, status: Status, clock: Clock, prunable: Prunable | None = None
    ) -> None:
        """`prunable` is the store again, if expired restore points are ours to delete."""
        self._database = database
        self._catalog = catalog
        self._store = catalog.store
        self._status = status
        self._clock = clock
        self._prunable = prunable
        self._newest: _Newest | None = None
        self._pending: deque[_Superseded] = deque(maxlen=PENDING)
        self._held: set[str] = set()
        self._largest: deque[_Newest] = deque(maxlen=PENDING)  # of the last day, each larger than those after it
        self._told_of: list[tuple[datetime, Extent, Extent]] = []  # losses of the last day: when, before and after
        self._caught_up = False
        self._looked: tuple[datetime, float] | None = None
        self._told: set[str] = set()

    async def guard(self, snapshot: Snapshot) -> None:
        """Before a publish: if the snapshot is suspicious, hold the newest restore point in the store, whoever made it.

        Held before the publish begins: a crash in between must not leave it to expire. Raises `SidecarError` when it
        cannot be held or the store cannot be asked; nothing is to be published then.
        """
        previous = await self._previous()
        if previous is None or previous.point.key in self._held:
            return
        now = Extent.of(snapshot)
        reason = suspicion(previous.extent, now)
        if reason and not self._was_told(previous.extent, now):
            larger = await self._hold_largest(previous, lambda extent: had_shed(extent, previous.extent))
            await self._hold(previous.point.key)
            self._told_of.append((self._clock.now(), previous.extent, now))
            self._largest.clear()
            self._shout(previous.point.key, f"{reason}; the previous restore point is held", larger)
        elif key := await self._hold_largest(previous, lambda extent: self._is_news(extent, now)):
            # Once for each loss: else every snapshot from now on would be as suspicious.
            self._largest.clear()
            self._shout(
                key,
                "bit by bit it has lost nine tenths of what it had within a day; the restore point with most is held",
            )

    def _is_news(self, before: Extent, now: Extent) -> bool:
        return suspicion(before, now) is not None and not self._was_told(before, now)

    def _was_told(self, before: Extent, now: Extent) -> bool:
        """Whether no more was lost within a day, and left no less; that was told, and what was before it is held."""
        since = self._clock.now() - MEMORY
        self._told_of = [each for each in self._told_of if each[0] >= since]
        return any(is_like(before, now, *told) for _, *told in self._told_of)

    def superseded_by(self, published: ObjectInfo, snapshot: Snapshot) -> None:
        """A restore point of this snapshot now exists; `settle` tags the one before it."""
        point = point_of(published)
        if point is None:
            raise ValueError(f"{published.key} is no restore point")
        this = _Newest(point, Extent.of(snapshot), ours=True)
        if self._newest is not None:
            older, this = sorted((self._newest, this), key=lambda each: each.point.timestamp)
            self._supersede(older.point, this.point, ours=older.ours)
            self._remember(older)
        self._newest = this

    def forget(self, key: str) -> None:
        """This restore point is damaged or gone: which one is the newest is looked up anew."""
        if self._newest and self._newest.point.key == key:
            self._newest = None

    async def settle(self) -> None:
        """Tag what was superseded, and prune if that is ours to do. Never raises: what fails is done the next time."""
        with anyio.move_on_after(PATIENCE) as scope:
            try:
                await self._catch_up()
                await self._tag_pending()
                await self._prune()
            except SidecarError as error:
                self._warn("superseded restore points are not tagged or pruned yet", error)
        if scope.cancelled_caught:
            self._warn("superseded restore points are not tagged yet", StoreUnavailable("the store is slow"))
        self._status.databases[self._database].untagged = len(self._pending)

    async def mark(self, key: str, name: str, value: str) -> None:
        """Add a tag to a restore point. Nothing is written where tags cannot be read: those it has would be gone."""
        tags = await self._tags(key)
        if tags is not None:
            await self._store.tag(key, {**tags, name: value})

    async def _previous(self) -> _Newest | None:
        """The newest restore point now; those that others published since we last looked are superseded in turn."""
        if self._newest is None:
            self._newest = await self._found()
        elif newer := await self._catalog.since(self._database, self._newest.point.key):
            found = await self._found()
            if found is None or found.point.timestamp <= self._newest.point.timestamp:
                return self._newest  # what is above it is a fenced machine's, and supersedes nothing
            chain = [point for point in newer if point.timestamp <= found.point.timestamp]
            self._supersede(self._newest.point, chain[0], ours=self._newest.ours)
            for older, successor in pairwise(chain):
                self._supersede(older, successor, ours=False)
            self._newest = found
        return self._newest

    async def _found(self) -> _Newest | None:
        """The newest restore point that is there: the one that the lease names may have been deleted by hand."""
        newest = await self._catalog.newest(self._database)
        if newest is None:
            return None
        found = await self._looked_up(newest)
        if found is None:
            older = [point for point in await self._catalog.up_to(newest) if point.timestamp < newest.timestamp]
            found = await self._looked_up(older[-1]) if older else None
        return found

    async def _looked_up(self, point: RestorePoint) -> _Newest | None:
        try:
            info = await self._store.head(point.key)
        except NotFound:
            return None
        return _Newest(point, Extent.written(info.metadata, info.size), ours=False)

    def _remember(self, superseded: _Newest) -> None:
        if superseded.point.key in self._held:  # its loss was noticed
            return
        while self._largest and self._largest[-1].extent.content <= superseded.extent.content:
            self._largest.pop()
        self._largest.append(superseded)

    async def _hold_largest(self, previous: _Newest, is_worth_it: Callable[[Extent], bool]) -> str | None:
        """Where rows were deleted bit by bit, most are in an older restore point than the one before: its key, held."""
        since = previous.point.timestamp.instant - MEMORY
        while self._largest and is_worth_it(self._largest[0].extent):
            largest = self._largest[0].point
            if largest.timestamp.instant >= since:
                try:
                    await self._hold(largest.key)
                    return largest.key
                except StoreUnavailable as error:
                    if not isinstance(error.__cause__, NotFound):
                        raise
            self._largest.popleft()
        return None

    async def _hold(self, key: str) -> None:
        try:
            tags = await self._tags(key) or {}
            if tags.get(TIER_TAG) != Tier.HELD:
                await self._store.tag(key, {**tags, TIER_TAG: Tier.HELD.value})
        except NotFound as error:
            self.forget(key)
            raise StoreUnavailable(f"{key} was to be held and is gone", "the newest is looked up anew") from error
        except AccessDenied as error:
            message = f"a suspicious snapshot is not published, because {key} cannot be held: {error.message}"
            raise AccessDenied(message, "allow s3:PutObjectTagging") from error
        except ConfigurationError as error:  # a store without tags: there, no rule can expire what has none
            self._warn_once("the store takes no tags", error)
        self._held.add(key)

    def _shout(self, key: str, reason: str, larger: str | None = None) -> None:
        hint = f"it is published all the same; if data was lost: sidecar restore --key {key}"
        message = f"suspicious snapshot: {reason}: {key}"
        if larger:
            hint += f", or --key {larger}: of the last day it has most"
            message += f", and the largest of the last day: {larger}"
        hint += f"; what to do before and after that: {documentation.GO_BACK}"
        self._status.suspected(self._database, message, hint)
        held = {"held": key, "larger": larger} if larger else {"held": key}
        log.error("suspicious snapshot", database=self._database, reason=reason, hint=hint, **held)

    def _supersede(self, point: RestorePoint, successor: RestorePoint, *, ours: bool) -> None:
        self._pending.append(_Superseded(point.key, point.timestamp, successor.timestamp, ours))

    async def _catch_up(self) -> None:
        """Once: find what a predecessor superseded and had no time to tag, back to the first one that has a tier."""
        if self._caught_up:
            return
        self._newest = self._newest or await self._found()
        if self._newest:
            newest = self._newest.point
            await self._see_that_newest_stays(newest)
            known = {each.key for each in self._pending}
            found: list[_Superseded] = []
            points = [point for point in await self._catalog.up_to(newest) if point.timestamp <= newest.timestamp]
            for older, newer in reversed(list(pairwise(points))[-LOOKED_BACK:]):
                if older.key in known:
                    continue
                tags = await self._tags(older.key)
                if tags is None or TIER_TAG in tags:
                    break
                found.append(_Superseded(older.key, older.timestamp, newer.timestamp, ours=False))
            self._pending.extendleft(found)
        self._caught_up = True

    async def _see_that_newest_stays(self, newest: RestorePoint) -> None:
        """It has a tier when somebody deleted those above it; it would expire, and leave an idle app with nothing."""
        if self._newest and self._newest.ours:  # it had no tag a moment ago
            return
        tags = await self._tags(newest.key)
        if tags and tags.get(TIER_TAG) in KEEP:
            await self._store.tag(newest.key, {name: value for name, value in tags.items() if name != TIER_TAG})
            log.warning("the newest restore point would have expired; its tag is removed", key=newest.key, tags=tags)

    async def _tag_pending(self) -> None:
        while self._pending:
            superseded = self._pending[0]
            try:
                await self._tag(superseded)
            except NotFound:
                self._miss(superseded)
            except ConfigurationError as error:
                self._warn_once("the store takes no tags: restore points never expire", error)
            self._pending.popleft()
            self._held.discard(superseded.key)

    def _miss(self, superseded: _Superseded) -> None:
        """One of an earlier run may have been deleted long ago. Ours had no tag: nothing but a mistake deletes it."""
        message = (
            f"restore point {superseded.key} is gone from the store; it was the newest until {superseded.successor}"
        )
        if superseded.ours:
            self._status.damaged(self._database, message, GONE_HINT)
            log.error("restore point is gone", database=self._database, key=superseded.key, hint=GONE_HINT)
        else:
            log.info("a superseded restore point is gone", key=superseded.key)

    async def _tag(self, superseded: _Superseded) -> None:
        """Give it its tier, unless it has one: a held one stays held, whoever holds it.

        Where reading tags is denied, only what this process made is tagged: of others we could not know.
        """
        tier = tier_of(superseded.timestamp, superseded.successor)
        if tier is None or superseded.key in self._held:
            return
        tags = await self._tags(superseded.key)
        if (tags is None and not superseded.ours) or TIER_TAG in (tags or {}):
            return
        await self._store.tag(superseded.key, {**(tags or {}), TIER_TAG: tier.value})

    async def _tags(self, key: str) -> dict[str, str] | None:
        """The tags of a restore point, or None where we may not read them."""
        try:
            return await self._store.tags(key)
        except (AccessDenied, ConfigurationError) as error:
            self._warn_once("tags cannot be read: restore points of earlier runs are left without a tier", error)
            return None

    async def _prune(self) -> None:
        if self._prunable is None or (self._looked and self._clock.monotonic() - self._looked[1] < PRUNE_EVERY):
            return
        now = await self._store.now()
        if not self._is_steady(now):
            log.warning("nothing is pruned: the clock has jumped", now=now.isoformat())
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
        """Whether the store's clock has gone on since the last pruning as far as the monotonic one."""
        at = self._clock.monotonic()
        before, self._looked = self._looked, (now, at)
        return before is None or abs((now - before[0]).total_seconds() - (at - before[1])) < STEADY

    def _warn(self, what: str, error: SidecarError) -> None:
        log.warning(what, database=self._database, error=error.message, hint=error.hint)

    def _warn_once(self, what: str, error: SidecarError) -> None:
        if what not in self._told:
            self._told.add(what)
            self._warn(what, error)


def _tier(tags: dict[str, str]) -> Tier | None:
    return Tier(tags[TIER_TAG]) if tags.get(TIER_TAG) in set(Tier) else None
