"""The inventory of a store: its restore points with metadata and tags, their number and sizes."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import unquote

from sidecar.concurrency import gathered
from sidecar.errors import AccessDenied, ConfigurationError, NotFound, UnsupportedLease, UnsupportedSegment
from sidecar.model import RestorePoint
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.drill_tag import Drilled, drilled_of
from sidecar.repository.holds import Holds
from sidecar.repository.placed import PlacedStore
from sidecar.repository.retention import TIER_TAG, Tier, lifetime, tier_of
from sidecar.units import whole_number

AT_ONCE = 8
NEWEST = "newest"
UNTIERED = "none"
SLOW = timedelta(days=2)  # how long a bucket may take to delete what has expired


@dataclass(frozen=True, slots=True)
class Entry:
    """A restore point as `list` shows it. None means unknown: an older version did not write it, or tags are not readable.

    `main_line` is whether the history of the database went through it; None for a diverged one, too.
    `uploaded` and `reused` are parts of the object's size; `database_size` is the size of the database inside, and
    `database_live` how many bytes of it are in use.
    """

    point: RestorePoint
    database_size: int | None
    database_live: int | None
    reused: int | None
    holder: str | None
    epoch: int | None
    tier: str | None
    drilled: Drilled | None
    main_line: bool | None = None

    @property
    def uploaded(self) -> int | None:
        """Bytes that were uploaded; the store copied the others from the previous restore point."""
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
            "main_line": self.main_line,
        }


def age_of(point: RestorePoint, now: datetime) -> float:
    """The age of a restore point in seconds, by the store's clock."""
    return round(max(0.0, (now - point.timestamp.instant).total_seconds()), 3)


async def describe(catalog: Catalog, points: Sequence[RestorePoint]) -> list[Entry]:
    """Read metadata and tags of these restore points of a database, a few at a time; those that are gone are left out.

    In a store without tags, marks say which are held, and places say the tiers where restore points are placed: of those
    without a copy for longer, all but the newest are recent.
    """
    store = catalog.store
    spread = store if isinstance(store, PlacedStore) and points and store.is_spread(points[0].database) else None
    denied = not store.traits.tags and not spread
    marked = bool(points) and not store.traits.tags
    marks = await Holds(store).of(points[0].database) if marked else frozenset[str]()
    newest = max((each.key for each in points), default="")

    async def tags_of(key: str) -> dict[str, str]:
        nonlocal denied
        try:
            return {} if denied else await catalog.store.tags(key)
        except (AccessDenied, ConfigurationError):  # a separate permission on AWS, which `list` does not require
            denied = spread is None  # else it is one of the main place, in a store without tags
            return {}

    async def read(point: RestorePoint) -> Entry | None:
        try:
            metadata = (await catalog.store.head(point.key)).metadata
            tags = await tags_of(point.key)
            recent = spread and TIER_TAG not in tags and point.key != newest and spread.is_recent(point.key)
        except NotFound:
            return None
        return Entry(
            replace(point, metadata=metadata),
            whole_number(metadata.get("size")),
            whole_number(metadata.get("live")),
            whole_number(metadata.get("reused")),
            unquote(metadata["holder"]) if "holder" in metadata else point.diverged_holder,
            whole_number(metadata.get("epoch")),
            Tier.HELD.value if point.key in marks else Tier.RECENT.value if recent else tags.get(TIER_TAG),
            drilled_of(tags),
        )

    return [entry for entry in await gathered(points, read, at_once=AT_ONCE) if entry]


async def with_lines(catalog: Catalog, database: str, entries: Sequence[Entry]) -> list[Entry]:
    """These entries of one database, oldest first, each with its `main_line`. Two requests for each stream.

    It stays unknown where streams may not be listed, and where only a newer version could tell: a list is needed then above
    all. Raises what the store raises.
    """
    try:
        side_lines = await catalog.side_lines(database)
        return [
            replace(each, main_line=not await side_lines.has(each.point.key, each.point.metadata)) for each in entries
        ]
    except (AccessDenied, UnsupportedLease, UnsupportedSegment):
        return list(entries)


class Inventory:
    """Count, oldest and newest of one database's restore points. Memory does not grow with the length of the history."""

    def __init__(self, keep: RetentionDays, newest: int = 1, now: datetime | None = None) -> None:
        """`newest` is how many of the newest restore points to keep. With `now`, those that should be gone are counted."""
        self._now = now
        self.overdue = 0
        self._keep = keep
        self.count = 0
        self.oldest: RestorePoint | None = None
        self.newest: deque[RestorePoint] = deque(maxlen=newest)  # oldest first
        self._superseded: Counter[str] = Counter()

    def add(self, point: RestorePoint) -> None:
        """Count the next restore point; call it oldest first."""
        if self.newest:
            previous = self.newest[-1]
            tier = tier_of(previous.timestamp, point.timestamp, self._keep)
            self._superseded[tier.value if tier else UNTIERED] += previous.size
            if tier and self._now and self._now - previous.timestamp.instant > lifetime(tier, self._keep) + SLOW:
                self.overdue += 1
        self.oldest = self.oldest or point
        self.newest.append(point)
        self.count += 1

    @property
    def by_tier(self) -> dict[str, int]:
        """Bytes in the store by the tier that each restore point has or will get; holds are ignored."""
        newest = {NEWEST: self.newest[-1].size} if self.newest else {}
        return {**self._superseded, **newest}


def stored_by_tier(points: Iterable[RestorePoint], keep: RetentionDays) -> dict[str, int]:
    """Bytes in the store by tier, as `Inventory` computes them, for restore points that come oldest first."""
    inventory = Inventory(keep)
    for point in points:
        inventory.add(point)
    return inventory.by_tier


@dataclass(frozen=True, slots=True)
class DatabaseHistory:
    """The restore points of one database, oldest first."""

    name: str
    restore_points: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The restore points in a store, by database, at the time `at` by the store's clock.

    `others` are the databases that the store has if a requested one was not found.
    """

    store: str
    at: datetime
    databases: tuple[DatabaseHistory, ...]
    others: tuple[str, ...] = ()

    @property
    def restore_points(self) -> tuple[Entry, ...]:
        """The restore points of all databases."""
        return tuple(entry for each in self.databases for entry in each.restore_points)
