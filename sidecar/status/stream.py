"""The state of a database's stream, as the page, metrics and `status` show it."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sidecar.status.histogram import Histogram

OVERDUE = timedelta(days=2)  # how long a bucket may take to delete what has expired


@dataclass(slots=True)
class Waits:
    """Who waits for commits to be stored: how many `waiting` now, how long those took that succeeded, and how many `failed`."""

    waiting: int = 0
    failed: int = 0
    seconds: Histogram = field(default_factory=Histogram)

    @property
    def stored(self) -> int:
        """How many succeeded."""
        return sum(self.seconds.counts)

    @property
    def mean_seconds(self) -> float | None:
        """How long those took on average; None without any."""
        return self.seconds.total / self.stored if self.stored else None


@dataclass(slots=True)
class StreamStatus:
    """The stream of one database. Sizes in bytes, instants in UTC by this machine's clock.

    `setting` is that of `stream`. `reason` says why nothing is streamed; it is empty while a stream is `active`. `since` is
    when that began, in both cases. `protects`: what is in its segments can be restored, because its start is known.
    `pending_since` is when the oldest commit that is in no segment yet was captured.
    """

    setting: str = "off"
    reason: str = "off"
    name: str | None = None
    since: datetime | None = None
    active: bool = False
    protects: bool = False
    commits: int = 0
    segments: int = 0
    uploaded: int = 0
    whole_pages: int = 0  # what `uploaded` would be if segments had whole pages
    confirmed: int = 0  # the last commit of the current stream that is in the store
    pending_since: datetime | None = None
    wal_frames: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    last_cut: str | None = None
    last_cut_at: datetime | None = None
    resting_until: datetime | None = None
    refused: str = ""  # the last cut, if it was because the store refuses segments, until it takes one
    waits: Waits = field(default_factory=Waits)
    oldest: datetime | None = None  # segment in the store, as of the last look

    @property
    def is_wanted(self) -> bool:
        """Whether the settings ask for a stream, or allow it."""
        return self.setting != "off"

    def lag_seconds(self, now: datetime) -> float:
        """The age of the oldest commit that is in no segment yet."""
        return max(0.0, (now - self.pending_since).total_seconds()) if self.pending_since else 0.0

    def is_resting(self, now: datetime) -> bool:
        """Whether streaming pauses after repeated cuts."""
        return not self.active and self.resting_until is not None and now < self.resting_until

    def expires(self, now: datetime, days: int) -> bool:
        """Whether no segment is older than a rule of the bucket would leave it that expires them after so many days."""
        return self.oldest is None or now - self.oldest <= timedelta(days=days) + OVERDUE

    def is_missing(self, now: datetime, longest: timedelta) -> bool:
        """Whether `stream=on` asks for a stream, and there has been none for longer than that."""
        return self.setting == "on" and not self.active and self.since is not None and now - self.since > longest
