"""How far a history was applied to a restored file, as a value and for people. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from sidecar.model import Origin, Position

CLOCKS_DIFFER = 2_000_000  # microseconds


class End(Enum):
    """Why no more commits were applied."""

    NEWEST = "the history ends here"
    INSTANT = "the next commit is later"
    BROKEN = "a segment is missing or damaged"


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a history was applied.

    `position` is what the file contains now. `commits` counts the applied commits, a folded one once. `time` is that of the
    last one in microseconds since the epoch, by the store's clock, and `machine_time` by the clock of the machine that made
    it; None if nothing was applied. `stopped` is the reason if more was expected, else empty. `unknown`
    names the time before the requested instant that neither a stream nor a restore point covers, if there is any.
    """

    position: Origin
    commits: int = 0
    time: int | None = None
    machine_time: int | None = None
    end: End = End.NEWEST
    stopped: str = ""
    unknown: str = ""


def format_instant(microseconds: int) -> str:
    """An instant in microseconds since the epoch, for people and as an argument for `--at`."""
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}Z"


def format_reached(reached: Reached) -> str:
    """The last commit in a restored database and its time, by both clocks if they differ."""
    position = reached.position
    place = f"commit {position.commit} of stream {position.stream}" if isinstance(position, Position) else position.key
    if reached.time is None or reached.machine_time is None:
        return place
    ours = f"; {format_instant(reached.machine_time)} by that machine's own clock"
    differ = abs(reached.time - reached.machine_time) > CLOCKS_DIFFER
    return f"{place} ({format_instant(reached.time)}{ours if differ else ''})"
