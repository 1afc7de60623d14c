"""Choices that settings offer, as values that any package may use."""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.units import format_size


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
