"""Decides when the log is copied into the database and reset, so that it stays short without affecting the app."""

from dataclasses import dataclass
from enum import Enum, auto

from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.limits import Limits


class Step(Enum):
    """What to do about a log."""

    NOTHING = auto()
    HOP = auto()  # to the newest snapshot, so that it does not prevent a reset
    BACKFILL = auto()
    MAKE_ROOM = auto()  # backfill, and then stand aside for the app's own checkpoint
    FORCE = auto()  # block writers for a moment in which the log can be reset
    EMPTY = auto()  # truncate it
    LEAVE = auto()  # close the database, because no other process has it open


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known about a log at the monotonic time `now`, in seconds.

    `parked`: our read transaction is in nobody's way; `aside`: we have none, and the log is pinned. `alone_since`: since when nobody else has the database open.
    `used`: when the last commit was captured. `unsummed`: SQLite could not recover this log after a crash.
    """

    index: WalIndex
    now: float
    parked: bool
    alone_since: float | None
    used: float
    unsummed: bool = False
    aside: bool = False


class Tending:
    """Chooses the next step. A step that achieved nothing because of another process is not repeated at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._backfilled = self._emptied = self._force_due = self._kept_out = float("-inf")
        self._aside_until = self._rest_until = float("-inf")
        self._tries = self._fruitless = 0

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
        stuck = self._tries >= limits.soft_tries and not at.aside and index.size >= limits.forced_bytes
        if stuck and at.now >= max(self._force_due, self._kept_out + rest):
            self._force_due = at.now + limits.soft_seconds
            return Step.FORCE
        return self._soft(at, idle)

    def kept_out(self, now: float) -> None:
        """Note that writers were blocked, so that it does not happen again soon. An attempt that blocked none may be repeated."""
        self._kept_out = now

    def _soft(self, at: Situation, idle: bool) -> Step:
        if not at.index.behind:
            self._tries = self._fruitless = 0
            return Step.NOTHING if at.parked else Step.HOP
        if not idle and at.index.frame < self._limits.soft_frames:
            self._tries = 0
            return Step.HOP if at.aside else Step.NOTHING
        if at.aside and at.now >= self._aside_until:
            self._rest_until = at.now + min(self._limits.soft_seconds * 2**self._fruitless, self._limits.rest_seconds)
            self._fruitless += 1
            return Step.HOP
        return self._copy(at)

    def _copy(self, at: Situation) -> Step:
        limits = self._limits
        pause = limits.soft_seconds if self._tries >= limits.soft_tries else limits.again_seconds
        if at.now - self._backfilled < pause:
            return Step.NOTHING
        self._backfilled, self._tries = at.now, self._tries + 1
        if at.now < self._rest_until:
            return Step.BACKFILL
        if not at.aside:
            self._aside_until = at.now + limits.aside_seconds
        return Step.MAKE_ROOM

    def _may_empty(self, now: float) -> bool:
        if now - self._emptied < self._limits.soft_seconds:
            return False
        self._emptied = now
        return True
