"""The restore points of a database in the store, as of the last listing."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A restore point in the store. `holder` and `tier` are None if unknown; the newest restore point has no tier.

    `restore` is the shell command that restores it to a new file, `diff` the one that shows what changed since the one before.
    """

    key: str
    time: datetime
    size: int
    holder: str | None
    tier: str | None
    restore: str
    diff: str | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "time": self.time.isoformat()}


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest restore points of a database (newest first), the oldest one, and the count of all.

    `at` is when the store was listed, `overdue` how many restore points should have been deleted for days by then. Restore points that this process publishes later are added without another request.
    """

    at: datetime
    count: int
    newest: tuple[StoredPoint, ...]
    oldest: StoredPoint | None
    overdue: int = 0

    def with_newest(self, point: StoredPoint, *, previous_tier: str | None, limit: int) -> "Listing":
        """The listing after a publish. The restore point that was the newest before gets `previous_tier`."""
        before = tuple(replace(each, tier=each.tier or previous_tier) for each in self.newest[:1])
        oldest = self.oldest or point
        if before and oldest.key == before[0].key:
            oldest = before[0]
        newest = (point, *before, *self.newest[1:])[:limit]
        return Listing(self.at, self.count + 1, newest, oldest, self.overdue)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "at": self.at.isoformat(),
            "count": self.count,
            "overdue": self.overdue,
            "oldest": self.oldest.as_dict() if self.oldest else None,
            "newest": [each.as_dict() for each in self.newest],
        }
