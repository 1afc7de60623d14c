"""When the log is copied into the database, and reset, so that it stays short without the app noticing."""

from dataclasses import dataclass
from enum import Enum, auto

from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.limits import Limits


class Step(Enum):
    """What to do about a log."""

    NOTHING = auto()
    HOP = auto()  # to the newest snapshot, so that nothing is in the way of a reset
    BACKFILL = auto()
    FORCE = auto()  # keep writers out for a moment in which the log can be reset
    EMPTY = auto()  # truncate it
    LEAVE = auto()  # close the database, which nobody else has open


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a log at the monotonic time `now`, in seconds.

    `parked`: our read transaction is in nobody's way. `alone_since`: since when nobody else has the database open.
    `used`: when the last commit was captured. `unsummed`: SQLite could not recover this log after a crash.
    """

    index: WalIndex
    now: float
    parked: bool
    alone_since: float | None
    used: float
    unsummed: bool = False


class Tending:
    """Chooses the next step. A step that achieved nothing, because somebody was in the way, is not repeated at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._backfilled = self._emptied = self._force_due = self._kept_out = float("-inf")

    def next(self, at: Situation) -> Step:
        """The step that is due."""
        limits, index = self._limits, at.index
        idle = at.now - at.used >= limits.idle_seconds
        if at.alone_since is not None and index.frame == 0:
            lone = at.parked and at.now - at.alone_since >= limits.lone_seconds
            return Step.LEAVE if lone else self._soft(at, idle)
        if index.frame and (at.alone_since is not None or (at.unsummed and idle and self._may_empty(at.now))):
            return Step.EMPTY
        rest = limits.urgent_seconds if index.size >= limits.urgent_bytes else limits.forced_seconds
        if index.size >= limits.forced_bytes and at.now >= max(self._force_due, self._kept_out + rest):
            self._force_due = at.now + limits.soft_seconds
            return Step.FORCE
        return self._soft(at, idle)

    def kept_out(self, now: float) -> None:
        """Writers have just been kept out: not again soon. An attempt that kept nobody out may be repeated."""
        self._kept_out = now

    def _soft(self, at: Situation, idle: bool) -> Step:
        if not at.index.behind:
            return Step.NOTHING if at.parked else Step.HOP
        due = at.now - self._backfilled >= self._limits.soft_seconds
        if due and (idle or at.index.frame >= self._limits.soft_frames):
            self._backfilled = at.now
            return Step.BACKFILL
        return Step.NOTHING

    def _may_empty(self, now: float) -> bool:
        if now - self._emptied < self._limits.soft_seconds:
            return False
        self._emptied = now
        return True
