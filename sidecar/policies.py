"""Choices that settings offer, as values that any package may use."""

from dataclasses import asdict, dataclass
from enum import StrEnum

from sidecar.units import format_size

LONGEST_DAYS = 36_500
SMALL_OBJECT = 16 << 20  # bytes of a restore point that `restore_points=auto` publishes every interval
LONGEST_WAIT = 3600.0  # seconds between two of them: every hour has one, which the tier `hourly` keeps
SHORTEST_STREAM_DAYS = 7  # a machine that crashed before a weekend or a holiday is started again after it


class OnEmptyStore(StrEnum):
    """What to do when there is nothing to restore and no local database."""

    START = "start"
    FAIL = "fail"


class OnConflict(StrEnum):
    """Which side wins when the local database does not descend from the newest restore point."""

    REMOTE = "remote"
    LOCAL = "local"
    FAIL = "fail"


class OnLeaseLost(StrEnum):
    """What to do when another machine has taken over."""

    STOP = "stop"
    CONTINUE = "continue"


class Expires(StrEnum):
    """What deletes expired restore points from a store."""

    TAGS = "tags"  # lifecycle rules of the bucket that select objects by tag
    PREFIXES = "prefixes"  # lifecycle rules that select objects by prefix
    PRUNE = "prune"  # this daemon
    NOTHING = "nothing"  # neither; somebody may run `sidecar prune`


class Durability(StrEnum):
    """When to fsync; `auto` does where the file system outlives the machine."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Growth:
    """The `alert_growth` setting: a size in bytes, or a fraction by which one publish may enlarge a database."""

    limit: int | None = None
    factor: float | None = None

    def __str__(self) -> str:
        """The text that the setting is written as."""
        return f"{100 * self.factor:g}%" if self.factor is not None else format_size(self.limit or 0)

    def exceeded(self, before: int | None, size: int) -> bool:
        """Whether a publish of this size, after one of `before` bytes, crosses the limit.

        A size is crossed once, not by every publish that follows.
        """
        if self.limit is not None:
            return size >= self.limit and (before is None or before < self.limit)
        if self.factor is not None and before:
            return size > before * (1.0 + self.factor)
        return False


@dataclass(frozen=True, slots=True)
class RetentionDays:
    """The `retention_days` setting: after how many days superseded restore points of each tier, and segments, expire.

    Raises ValueError for days that would leave restore points without what they need.
    """

    recent: int = 1
    hourly: int = 7
    daily: int = 35
    stream: int = 35

    def __post_init__(self) -> None:
        for tier, days in asdict(self).items():
            if type(days) is not int or not 1 <= days <= LONGEST_DAYS:
                raise ValueError(f"{tier}={days} is not a whole number of days from 1 to {LONGEST_DAYS}")
        if not self.recent <= self.hourly <= self.daily:
            raise ValueError(f"{self}: a longer-lived tier comes first; recent <= hourly <= daily is needed")
        if self.stream > self.daily:
            raise ValueError(
                f"{self}: stream is longer than daily, and segments are useless without a restore point before them"
            )
        if self.stream < SHORTEST_STREAM_DAYS:
            raise ValueError(
                f"{self}: stream is shorter than {SHORTEST_STREAM_DAYS} days; after a crash only segments have the last "
                "commits, until the next boot"
            )

    def __str__(self) -> str:
        """The text that the setting is written as."""
        return ",".join(f"{tier}={days}" for tier, days in asdict(self).items())
