"""What is in the store, as people and programs are told: every restore point with what its metadata and tags say."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from urllib.parse import unquote

from sidecar.concurrency import gathered
from sidecar.errors import AccessDenied, ConfigurationError, NotFound
from sidecar.model import RestorePoint
from sidecar.repository.catalog import Replica
from sidecar.repository.drill_tag import Drilled, drilled_of
from sidecar.repository.retention import TIER_TAG, tier_of
from sidecar.units import whole_number

AT_ONCE = 8
NEWEST = "newest"
UNTIERED = "none"


@dataclass(frozen=True, slots=True)
class Entry:
    """A restore point. None is what is not known: sidecars before this one did not write it, or tags may not be read.

    `size` is the object's, `uploaded` and `reused` are parts of it; `database_size` is that of the database inside,
    `database_live` what of that is in use.
    """

    point: RestorePoint
    database_size: int | None
    database_live: int | None
    reused: int | None
    holder: str | None
    epoch: int | None
    tier: str | None
    drilled: Drilled | None

    @property
    def uploaded(self) -> int | None:
        """Bytes that were sent for it; the store copied the others from the one before it."""
        return None if self.reused is None or self.reused > self.point.size else self.point.size - self.reused

    def as_dict(self, now: datetime) -> dict[str, object]:
        """The JSON of `list --json`."""
        return {
            "key": self.point.key,
            "timestamp": str(self.point.timestamp),
            "time": self.point.timestamp.instant.isoformat(),
            "age_seconds": age_of(self.point, now),
            "size": self.point.size,
            "database_size": self.database_size,
            "database_live": self.database_live,
            "uploaded": self.uploaded,
            "reused": self.reused,
            "holder": self.holder,
            "epoch": self.epoch,
            "tier": self.tier,
            "drill": self.drilled and {"outcome": self.drilled.outcome, "at": self.drilled.at.instant.isoformat()},
            "diverged_holder": self.point.diverged_holder,
        }


def age_of(point: RestorePoint, now: datetime) -> float:
    """Seconds, by the store's clock."""
    return round(max(0.0, (now - point.timestamp.instant).total_seconds()), 3)


async def described(replica: Replica, points: Sequence[RestorePoint]) -> list[Entry]:
    """Ask for each, few at once; those that are gone by now are left out."""
    denied = False

    async def tags_of(key: str) -> dict[str, str]:
        nonlocal denied
        try:
            return {} if denied else await replica.store.tags(key)
        except (AccessDenied, ConfigurationError):  # a right of its own on AWS, that `list` can do without
            denied = True
            return {}

    async def look(point: RestorePoint) -> Entry | None:
        try:
            metadata = (await replica.store.head(point.key)).metadata
            tags = await tags_of(point.key)
        except NotFound:
            return None
        return Entry(
            point,
            whole_number(metadata.get("size")),
            whole_number(metadata.get("live")),
            whole_number(metadata.get("reused")),
            unquote(metadata["holder"]) if "holder" in metadata else point.diverged_holder,
            whole_number(metadata.get("epoch")),
            tags.get(TIER_TAG),
            drilled_of(tags),
        )

    return [entry for entry in await gathered(points, look, at_once=AT_ONCE) if entry]


def stored_by_tier(points: Sequence[RestorePoint]) -> dict[str, int]:
    """Bytes in the store by the tier that each has, or is about to get; a hold is not seen. Oldest first."""
    stored: dict[str, int] = {}
    for point, successor in pairwise(points):
        tier = tier_of(point.timestamp, successor.timestamp)
        name = tier.value if tier else UNTIERED
        stored[name] = stored.get(name, 0) + point.size
    if points:
        stored[NEWEST] = points[-1].size
    return stored
