"""Turns captured commits into segments: times by the store's clock, folding, splitting, the chain of digests. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sidecar.backup.previous_images import PreviousImages
from sidecar.database.wal import Batch, Captured, CutCause, StreamCut, fold
from sidecar.model import Commit, LogPosition, Origin
from sidecar.repository.format.differences import Smaller, encode_smaller
from sidecar.repository.format.folding import PART, Portion, split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, encode, first_prev
from sidecar.repository.keys import segment_key_of

FOLDED_BEYOND = (
    1 << 20
)  # bytes of page images in a segment that are folded beyond this, which is still exact to the second
DRIFT = 2_000_000  # microseconds by which the estimate may be ahead of a reply: its time is truncated to the second
MICROSECONDS = 1_000_000


def _microseconds(instant: datetime) -> int:
    return round(instant.timestamp() * MICROSECONDS)


class StoreTime:
    """The store's clock between its replies, extrapolated with the monotonic clock. It never goes back.

    S3 truncates the time of a reply to the second, so at that moment the store's clock shows that time or up to a second
    more. The latest of these lower bounds is the estimate, which every reply can only bring closer. If the machine was
    suspended, or a clock was set, the next reply that is off by more than two seconds corrects it.
    """

    def __init__(self, store: datetime, machine: datetime, monotonic: float) -> None:
        """`store`, `machine` and `monotonic` are the same instant by three clocks."""
        self.anchor = ClockAnchor(_microseconds(store), _microseconds(machine))
        self._monotonic = monotonic
        self._latest = 0

    def of(self, monotonic: float) -> int:
        """The time in microseconds since the epoch; never before an earlier result."""
        self._latest = max(self._latest, self._at(monotonic))
        return self._latest

    def correct(self, store: datetime, machine: datetime, monotonic: float) -> None:
        """Take the time of a reply, by the three clocks, into account."""
        ahead = _microseconds(store) - self._at(monotonic)
        if ahead > 0 or ahead < -DRIFT:
            self.anchor, self._monotonic = ClockAnchor(_microseconds(store), _microseconds(machine)), monotonic

    def _at(self, monotonic: float) -> int:
        return self.anchor.store + round((monotonic - self._monotonic) * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """The properties of a stream that are in each of its segments; see `SegmentHeader`."""

    database: str
    name: str
    holder: str
    epoch: int
    sqlite: str
    after: Origin | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A segment to be published, with its last commit and the time of that commit in microseconds.

    `since` is when its first commit was captured, in monotonic seconds. If it is not `whole`, its transaction continues in
    the next segment, and cannot be restored before the store has the last one. It would have `whole_pages` bytes with whole
    page images; `mistake` is the reason if it has them because what changed was encoded wrongly.
    """

    key: str
    data: bytes
    digest: str
    last: int
    time: int
    since: float
    whole_pages: int
    mistake: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A portion that is not encoded yet. `log` is the last frame that it covers, if known."""

    portion: Portion
    since: float
    anchor: ClockAnchor
    log: LogPosition | None


class Segmenter:
    """Collects the captured commits of one stream and turns them into segments, each of which continues the previous one."""

    def __init__(
        self, identity: StreamIdentity, time: StoreTime, images: PreviousImages | None = None, part: int = PART
    ) -> None:
        """A transaction with more than `part` bytes of page images is split over several segments.

        Without previous `images`, all pages are stored whole.
        """
        self.time = time
        self._images = images
        self._part = part
        self._identity = identity
        self._waiting: list[Captured] = []
        self._portions: deque[_Waiting] = deque()
        self._end = LogPosition(bytes(8), 0)
        self._unsummed = False
        self._last = 0
        self._prev = first_prev(identity.name)

    def add(self, batch: Batch) -> None:
        """Append captured commits. Raises `StreamCut` unless they continue the previous ones."""
        for commit in batch.commits:
            if commit.first != self._last + 1:
                raise StreamCut(CutCause.MISMATCH, f"commit {commit.first} was captured after commit {self._last}")
            self._last = commit.number
            self._waiting.append(commit)
        self._end = batch.end
        self._unsummed = self._unsummed or batch.unsummed

    @property
    def oldest(self) -> float | None:
        """When the oldest waiting commit was captured, in monotonic seconds."""
        if self._portions:
            return self._portions[0].since
        return self._waiting[0].since if self._waiting else None

    def next(self) -> Outgoing | None:
        """The next segment, with all waiting commits or the next part of them; None if nothing is waiting."""
        if not self._portions and self._waiting:
            self._portions.extend(self._split())
        if not self._portions:
            return None
        waiting = self._portions[0]
        outgoing = self._encode(waiting)
        self._portions.popleft()
        return outgoing

    def _split(self) -> Sequence[_Waiting]:
        waiting, self._waiting = self._waiting, []
        portions = split(self._commits(waiting), waiting[0].first, self._part)
        return [
            _Waiting(each, waiting[0].since, self.time.anchor, self._end if each is portions[-1] else None)
            for each in portions
        ]

    def _encode(self, waiting: _Waiting) -> Outgoing:
        identity, portion = self._identity, waiting.portion
        last = portion.commits[-1]
        header = SegmentHeader(
            identity.database,
            identity.name,
            portion.first,
            portion.last,
            len(next(iter(last.images.values()))),
            self._prev,
            identity.holder,
            identity.epoch,
            identity.sqlite,
            waiting.anchor,
            identity.after,
            waiting.log,
            self._unsummed,
        )
        smaller = self._smaller(header, portion)
        encoded = smaller.encoded
        self._prev = encoded.digest  # `unsummed` stays set: SQLite cannot recover what follows such a frame either
        key = segment_key_of(identity.database, identity.name, portion.first, portion.last, portion.time)
        return Outgoing(
            key,
            encoded.data,
            encoded.digest,
            portion.last,
            last.time,
            waiting.since,
            smaller.whole,
            smaller.mistake,
            not last.continued,
        )

    def _smaller(self, header: SegmentHeader, portion: Portion) -> Smaller:
        if self._images is None:
            encoded = encode(header, portion.commits)
            return Smaller(encoded, len(encoded.data))
        copies = self._images.copies
        start = self._images.start(portion.first, portion.commits)
        smaller = encode_smaller(header, portion.commits, start, self._images.find)
        self._images.keep(portion.commits[start:], copies)
        return smaller

    def _commits(self, waiting: Sequence[Captured]) -> list[Commit]:
        if len(waiting) > 1 and sum(each.size for each in waiting) > FOLDED_BEYOND:
            waiting = [fold(waiting)]
        return [self._commit(each) for each in waiting]

    def _commit(self, captured: Captured) -> Commit:
        time = self.time.of(captured.at)
        return Commit(captured.number, time, captured.pages, captured.images, folded=captured.folded)
