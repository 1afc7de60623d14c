"""Limits on how much a follower may use of the machine and delay the app."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.database.staging import available_memory

MEMORY_SHARE = 4  # waiting images may take this fraction of the available memory: publishing and the app need the rest


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, frames of the log, and seconds.

    Waiting commits are folded beyond `fold_bytes`. The stream is cut before they exceed `cut_bytes` or `cut_share` of the
    database, whichever is more, or a share of the `available` memory.

    The log is copied into the database from `soft_frames` on, and after `idle_seconds` without a commit: `soft_tries` times
    every `again_seconds`, then every `soft_seconds`; from `long_bytes` on, each time in as many attempts as fit into
    `long_seconds`. `soft_frames` is less than 1000, from which on SQLite makes each commit of the app do that work, but not
    much less, because after a reset the next commit waits for a sync. We stand aside for the app's own checkpoint for at
    most `aside_seconds` in a row; if there is none, not again for `soft_seconds`, then twice as long, up to `rest_seconds`.

    Only if all of that fails, a reset is forced: from `forced_bytes` of log on, at most every `forced_seconds`, with writers
    blocked for at most `forced_hold`; from `urgent_bytes` on every `urgent_seconds`, because a log that fills the disk is
    worse. The database is closed once nobody else has had it open for `lone_seconds`.
    """

    fold_bytes: int = 8 << 20
    cut_bytes: int = 64 << 20
    cut_share: float = 0.1
    soft_frames: int = 800
    soft_tries: int = 3
    again_seconds: float = 0.05
    soft_seconds: float = 0.5
    aside_seconds: float = 1.0
    rest_seconds: float = 10.0
    long_bytes: int = 16 << 20
    long_seconds: float = 0.02
    idle_seconds: float = 5.0
    forced_bytes: int = 64 << 20
    forced_seconds: float = 10.0
    forced_hold: float = 0.005
    urgent_bytes: int = 256 << 20
    urgent_seconds: float = 1.0
    lone_seconds: float = 2.0
    available: Callable[[], int] = available_memory

    def room(self, database: int, waiting: int) -> int:
        """Bytes of images that may wait in memory, for a database of this size in bytes, if `waiting` bytes already wait."""
        memory = (waiting + self.available()) // MEMORY_SHARE
        return min(max(self.cut_bytes, int(database * self.cut_share)), max(self.fold_bytes, memory))
