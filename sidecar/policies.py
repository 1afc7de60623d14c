"""The choices that a person makes in the settings, as values."""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.units import format_size


class OnEmptyStore(StrEnum):
    """What to do when there is nothing to restore and no local database."""

    START = "start"
    FAIL = "fail"


class OnConflict(StrEnum):
    """Who wins when the local database does not descend from the newest restore point."""

    REMOTE = "remote"
    LOCAL = "local"
    FAIL = "fail"


class OnLeaseLost(StrEnum):
    """What to do when another machine took over."""

    STOP = "stop"
    CONTINUE = "continue"


class Durability(StrEnum):
    """When to fsync: `auto` means where the file system outlives the machine."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Growth:
    """`alert_growth`: a size that a database must not reach, or a factor by which no publish may make it larger."""

    limit: int | None = None
    factor: float | None = None

    def __str__(self) -> str:
        """As it is written in settings."""
        return f"{100 * self.factor:g}%" if self.factor is not None else format_size(self.limit or 0)

    def exceeded(self, before: int | None, size: int) -> bool:
        """Whether this size, after the one before, is to be told: once when the limit is passed, not ever after."""
        if self.limit is not None:
            return size >= self.limit and (before is None or before < self.limit)
        if self.factor is not None and before:
            return size > before * (1.0 + self.factor)
        return False
