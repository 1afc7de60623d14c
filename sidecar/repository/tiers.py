"""Tags superseded restore points with their tier, oldest first: after a crash, the untagged ones are the latest ones.

Only one that cannot be tagged is passed over. If it is forgotten by a restart, it has no tier: it stays, or, where its tier
would have been a copy that the store refuses, expires without it.
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

from sidecar.errors import ConfigurationError, NotFound, SidecarError
from sidecar.log import log
from sidecar.model import RestorePoint
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.entries import Entries
from sidecar.repository.newest import KnownPoint, Superseded
from sidecar.repository.retention import EXPIRING, TIER_TAG, Tier, tier_of
from sidecar.repository.tags import RestorePointTags
from sidecar.status import Status

PENDING = 1000
LOOKED_BACK = 100
MOST_FAILURES = 3  # at once: beyond that the store is down
GONE_HINT = (
    "a newer one exists, and `sidecar list` shows which others are left; a person or a lifecycle rule without a tag filter "
    "may have deleted it"
)


class Tiers:
    """The superseded restore points of one database that have no tier yet."""

    def __init__(
        self, database: str, catalog: Catalog, tags: RestorePointTags, status: Status, keep: RetentionDays
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._tags = tags
        self._status = status
        self._keep = keep
        self._entries = Entries(database, catalog)
        self._pending: deque[Superseded] = deque(maxlen=PENDING)
        self._caught_up = False
        self._failed: set[str] = set()  # by key, at an earlier attempt

    @property
    def untagged(self) -> int:
        """How many superseded restore points are waiting for their tier."""
        return len(self._pending)

    @property
    def caught_up(self) -> bool:
        """Whether the restore points of earlier runs have been checked."""
        return self._caught_up

    def add(self, superseded: Iterable[Superseded]) -> None:
        """Queue restore points that were superseded, in this order."""
        self._pending.extend(superseded)

    async def catch_up(self, newest: KnownPoint | None) -> None:
        """Queue the restore points that an earlier run superseded but did not tag, back to the last one with a tier."""
        if newest:
            await self._untag_newest(newest)
            self._pending.extendleft(await self._left_untagged(newest.point))
        self._caught_up = True

    async def tag_all(self) -> None:
        """Tag the queued restore points. Raises `SidecarError`; the remaining ones are tagged the next time.

        One that fails again does not keep the others from their tiers: where a tier is a copy, they would expire without it.
        """
        failures: list[SidecarError] = []
        for superseded in list(self._pending):
            try:
                await self._tag(superseded)
            except NotFound:
                self._report_gone(superseded)
            except ConfigurationError as error:
                self._tags.warn_once("tags not written", error, "no lifecycle rule by tag deletes restore points")
            except SidecarError as error:
                failures.append(error)
                if superseded.key not in self._failed or len(failures) == MOST_FAILURES:
                    self._failed.add(superseded.key)
                    break
                continue
            self._pending.remove(superseded)
            self._failed.discard(superseded.key)
            self._tags.discard(superseded.key)
        if failures:
            raise failures[0]

    async def _tag(self, superseded: Superseded) -> None:
        tier = tier_of(superseded.timestamp, superseded.successor, self._keep)
        if await self._entries.is_first(superseded) and tier is Tier.RECENT:
            tier = Tier.HOURLY
        if tier is not None and not self._tags.is_held(superseded.key):
            await self._tags.set_tier(superseded.key, tier, ours=superseded.ours)

    async def _left_untagged(self, newest: RestorePoint) -> list[Superseded]:
        """Superseded restore points without a tier, newest first."""
        known = {each.key for each in self._pending}
        found: list[Superseded] = []
        points = [point for point in await self._catalog.up_to(newest) if point.timestamp <= newest.timestamp]
        for older, newer in reversed(list(pairwise(points))[-LOOKED_BACK:]):
            if older.key in known:
                continue
            tags = await self._tags.read(older.key)
            if tags is None or TIER_TAG in tags:
                break
            found.append(Superseded(older.key, older.timestamp, newer.timestamp, ours=False))
        return found

    async def _untag_newest(self, newest: KnownPoint) -> None:
        """Remove the tier of the newest one, which it has if later ones were deleted: an idle app would lose its last one."""
        if newest.ours:  # it had no tag a moment ago
            return
        key = newest.point.key
        tags = await self._tags.read(key)
        if tags and tags.get(TIER_TAG) in EXPIRING:
            await self._tags.remove_tier(key, tags)
            log.warning("tier removed from the newest restore point", key=key, tags=tags, cause="it would have expired")

    def _report_gone(self, superseded: Superseded) -> None:
        """Report a loss. One of an earlier run may have expired long ago; one of ours was untagged and must still exist."""
        key = superseded.key
        if not superseded.ours:
            log.info("superseded restore point not found", key=key)
            return
        message = f"restore point {key} is gone from the store; it was the newest until {superseded.successor}"
        self._status.damaged(self._database, message, GONE_HINT)
        log.error("superseded restore point lost", database=self._database, key=key, hint=GONE_HINT)
