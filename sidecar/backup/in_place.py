"""Plans restore points of which only what has changed is read in place, and the store copies the rest from the one before.

What a chunk contains is known if this process has published it, and no commit of the same run of the follower has written
there since: then it is neither read nor hashed. A write past the log would go unnoticed so. Therefore each restore point
also compares a sixty-fourth of those chunks with the live database, as far as a second goes; cycles without changes go on
with the rest; the last one compares all that is left; and everything is copied once in a drill interval, and whenever
anything is in doubt.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from sidecar.database import Choice
from sidecar.model import Followed, RestorePoint, Snapshot
from sidecar.repository import Parent, TakeOver, take_over
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.repository.reuse import PartLimits

SMALL = 16 << 20  # bytes of a database that is always copied whole: it takes milliseconds, and the copy can be checked
TURNS = 64
AT_ONCE = 256  # chunks that are compared in one read transaction at most, in a fraction of a second
DAY = timedelta(days=1)


def may_be_in_place(size: int) -> bool:
    """Whether a database of so many bytes is large enough."""
    return size >= SMALL


def count_chunks(snapshot: Snapshot) -> dict[str, int]:
    """How many chunks of a database were read, and how many taken over unread."""
    count = -(-snapshot.size // CHUNK_SIZE)
    read = count if snapshot.read is None else len(snapshot.read)
    return {"read": read, "taken_over": count - read}


def seconds_to_compare(snapshot: Snapshot) -> float:
    """How long it would take to compare everything that was not read, at the pace of what was."""
    chunks = count_chunks(snapshot)
    return snapshot.seconds.get("snapshot", 0.0) * chunks["taken_over"] / (chunks["read"] + len(snapshot.compared))


class Offer:
    """What the next restore point may take over from a parent. The thread that copies calls `choose` and `choose_some`.

    `plan` is what was chosen. `left` are the chunks that must not differ and were not compared yet, and `differing` those
    that did. `late`: there was no time to compare all.
    """

    def __init__(
        self,
        parent: Parent,
        since: Followed,
        limits: Callable[[int], PartLimits],
        start: int = 0,
        left: Sequence[int] = (),
    ) -> None:
        """`since` is the place of the parent in what is followed, and `start` the chunk at which comparing goes on."""
        self.parent = parent
        self.plan: TakeOver | None = None
        self.start, self.left = start, left
        self.differing: tuple[int, ...] = ()
        self.late = False
        self._since, self._limits = since, limits

    def choose(self, place: Followed, size: int, page_size: int) -> Choice | None:
        """See `database.Choose`: everything that may differ from the parent, and a few chunks that must not.

        More of them without a commit since the parent: nothing explains then why the files have changed.
        """
        self.plan = self._planned(place, size, page_size)
        if self.plan is None:
            return None
        untouched = self.plan.untouched
        self.left = sorted(untouched, key=lambda each: each < self.start)
        count = AT_ONCE if place.commit == self._since.commit else min(AT_ONCE, -(-self.plan.chunks // TURNS))
        return Choice(sorted(self.plan.read), self._digests(self.left[:count]))

    def choose_some(self, place: Followed, size: int, page_size: int) -> Choice | None:
        """See `database.Choose`: nothing but some of what is `left`, without what was written meanwhile; None without any."""
        if not self._goes_on(place) or page_size != self.parent.contents.index.page_size:
            return None
        written, some = set[int](), list[int]()
        for each in self.left:
            if len(some) == AT_ONCE:
                break
            fits = min((each + 1) * CHUNK_SIZE, size) - each * CHUNK_SIZE == self.parent.contents.index.chunk_size(each)
            if fits and not place.wrote(each, self._since.commit):
                some.append(each)
            else:
                written.add(each)
        self.left = [each for each in self.left if each not in written]
        return Choice((), self._digests(some)) if some else None

    def learn(self, compared: Collection[int], differing: tuple[int, ...]) -> None:
        """These of the chunks on offer were compared."""
        done = [each for each in self.left if each in compared]
        self.left = [each for each in self.left if each not in compared]
        self.start = done[-1] + 1 if done else self.start
        self.differing = self.differing or differing

    def _goes_on(self, place: Followed) -> bool:
        return place.run == self._since.run and place.commit >= self._since.commit

    def _planned(self, place: Followed, size: int, page_size: int) -> TakeOver | None:
        if not may_be_in_place(size) or not self._goes_on(place):
            return None
        since = self._since.commit
        return take_over(self.parent, size, page_size, lambda each: place.wrote(each, since), self._limits(size))

    def _digests(self, chunks: Sequence[int]) -> dict[int, bytes]:
        return {each: self.parent.contents.index.digest(each) for each in chunks}


class InPlace:
    """Remembers where in the commits the newest restore point of this process is, and decides when all is copied.

    `left` are the chunks which that restore point took over, and which were not compared with the database since.
    """

    def __init__(self, limits: Callable[[int], PartLimits]) -> None:
        """`limits` are those of the store for a database of that many bytes."""
        self.left: Sequence[int] = ()
        self._limits = limits
        self._since: tuple[str, Followed] | None = None  # the key of a restore point, and its place
        self._whole_at = 0.0
        self._next = 0

    def offer(
        self, base: Parent | RestorePoint | None, now: float, every: timedelta | None, *, last: bool = False
    ) -> Offer | None:
        """What may be taken over from `base`; None if everything must be copied, as it is once in `every`.

        `now` is in monotonic seconds. The `last` restore point compares everything and need not copy it.
        """
        if not isinstance(base, Parent) or self._since is None or base.contents.index.position is None:
            return None
        key, place = self._since
        is_due = now - self._whole_at > (every or DAY).total_seconds()
        if base.info.key != key or (is_due and not last):
            return None
        return Offer(base, place, self._limits, self._next, self.left)

    def published(self, base: Parent, snapshot: Snapshot, offer: Offer | None, now: float) -> None:
        """Record that the store has this restore point. With an `offer`, it took over the rest by its plan."""
        self._since = (base.info.key, snapshot.followed) if snapshot.followed else None
        self.agrees(offer, now)

    def agrees(self, offer: Offer | None, now: float) -> None:
        """The newest restore point is what the database has: all of it, or as far as the `offer` says, by whose plan it was read."""
        if offer:
            self.learn(offer)
        else:
            self.left, self._whole_at = (), now

    def learn(self, offer: Offer) -> None:
        """Record what was compared for the newest restore point."""
        self.left, self._next = offer.left, offer.start

    def takes_over(self, size: int) -> bool:
        """Whether the next restore point of a database of `size` bytes may take over anything, while it is streamed."""
        return self._since is not None and may_be_in_place(size)
