"""What a follower may take of the machine and of the app's patience."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.database.staging import available_memory

MEMORY_SHARE = 4  # of what is available may wait: publishing needs some of it again, and the app the rest


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, frames of the log, and seconds.

    Waiting commits are folded beyond `fold_bytes`, and the stream is cut rather than to hold more than `cut_bytes` or
    `cut_share` of the database, whichever is more, and never more than a share of the `available` memory. The log is
    copied into the database from `soft_frames` on, and after `idle_seconds` without a commit: `soft_tries` times every
    `again_seconds`, then every `soft_seconds`; from `long_bytes` on each time in as many attempts as `long_seconds` have room for. `soft_frames` is less than the 1000 from which on
    SQLite lets each of the app's commits do that work, and not much less, for after a reset the next commit waits for a
    sync. We stand aside for the app's own checkpoint for at most `aside_seconds` in a row, and after one that was not made
    not again for `soft_seconds`, then for twice as long, up to `rest_seconds`.

    Only where all of that has failed a reset is forced: from `forced_bytes` of log on, at most every `forced_seconds`,
    with writers held up for at most `forced_hold`; from `urgent_bytes` on every `urgent_seconds`, for a log that fills the
    disk is worse. `embedded`: the app is this very process, so whether somebody else has the database open cannot be
    seen; else it is closed after `lone_seconds` without anybody.
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
    embedded: bool = False
    available: Callable[[], int] = available_memory

    def room(self, database: int, waiting: int) -> int:
        """Bytes of images that may wait in memory, for a database of this size in bytes; so many wait already."""
        memory = (waiting + self.available()) // MEMORY_SHARE
        return min(max(self.cut_bytes, int(database * self.cut_share)), max(self.fold_bytes, memory))
