"""The state of a database's stream, as the page, metrics and `status` show it."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class StreamStatus:
    """The stream of one database. Sizes in bytes, instants in UTC by this machine's clock.

    `reason` says why nothing is streamed; it is empty while a stream is `active`. `protects`: what is in its segments can
    be restored, because its start is known. `pending_since` is the age of the oldest commit that is in no segment yet.
    """

    reason: str = "off"
    name: str | None = None
    since: datetime | None = None
    active: bool = False
    protects: bool = False
    commits: int = 0
    segments: int = 0
    uploaded: int = 0
    confirmed: int = 0  # the last commit of the current stream that is in the store
    pending_since: datetime | None = None
    wal_frames: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    last_cut: str | None = None
    last_cut_at: datetime | None = None
    resting_until: datetime | None = None

    def lag_seconds(self, now: datetime) -> float:
        """The age of the oldest commit that is in no segment yet."""
        return max(0.0, (now - self.pending_since).total_seconds()) if self.pending_since else 0.0
