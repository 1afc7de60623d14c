"""Plans restore points of which only what has changed is read in place, and the store copies the rest from the one before.

What a chunk contains is known if this process has published it, and no commit of the same run of the follower has written
there since: then it is neither read nor hashed. A write past the log would go unnoticed so. Therefore each restore point
also compares a sixty-fourth of those chunks with the live database, the last one compares all of them, and everything is
copied once in a drill interval, and whenever anything is in doubt.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sidecar.database import Choice, Snapshotter
from sidecar.model import Followed, RestorePoint, Snapshot
from sidecar.repository import Parent, TakeOver, take_over
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.repository.reuse import PartLimits

SMALL = 16 << 20  # bytes of a database that is always copied whole: it takes milliseconds, and the copy can be checked
TURNS = 64
AT_ONCE = 256  # chunks that are compared in one read transaction, in a fraction of a second
DAY = timedelta(days=1)


def count_chunks(snapshot: Snapshot) -> dict[str, int]:
    """How many chunks of a database were read, taken over unread, and compared."""
    count = -(-snapshot.size // CHUNK_SIZE)
    read = count if snapshot.read is None else len(snapshot.read)
    return {"read": read, "taken_over": count - read, "compared": snapshot.compared}


def seconds_to_compare(snapshot: Snapshot) -> float:
    """How long it would take to compare everything that was not read, at the pace of what was."""
    chunks = count_chunks(snapshot)
    return snapshot.seconds.get("snapshot", 0.0) * chunks["taken_over"] / (chunks["read"] + chunks["compared"])


class Offer:
    """What the next restore point may take over from a parent. The thread that copies calls `choose` and `choose_some`.

    `plan` is what was chosen. `compared_all`: `choose_some` has had all chunks compared that must not differ.
    """

    def __init__(self, parent: Parent, since: Followed, limits: Callable[[int], PartLimits], turn: int) -> None:
        """`since` is the place of the parent in what is followed."""
        self.parent = parent
        self.plan: TakeOver | None = None
        self._since, self._limits, self._turn = since, limits, turn
        self._compared: set[int] = set()
        self.compared_all = False

    def choose(self, place: Followed, size: int, page_size: int) -> Choice | None:
        """See `database.Choose`: everything that may differ from the parent, and a few chunks that must not."""
        self.plan = self._planned(place, size, page_size)
        if self.plan is None:
            return None
        known = [each for each in self.plan.untouched if self._is_due(each, place)]
        return Choice(sorted(self.plan.read), self._digests(known))

    def choose_some(self, place: Followed, size: int, page_size: int) -> Choice | None:
        """See `database.Choose`: nothing but chunks that must not differ and were not compared yet; None if there are no more."""
        plan = self._planned(place, size, page_size)
        known = [each for each in plan.untouched if each not in self._compared][:AT_ONCE] if plan else []
        self._compared.update(known)
        self.compared_all = plan is not None and not known
        return Choice((), self._digests(known)) if known else None

    def _is_due(self, chunk: int, place: Followed) -> bool:
        """Without a commit since the parent, nothing explains why the files have changed: then all chunks are compared."""
        idle = place.commit == self._since.commit
        return chunk not in self._compared and (idle or chunk % TURNS == self._turn)

    def _planned(self, place: Followed, size: int, page_size: int) -> TakeOver | None:
        since = self._since
        if place.run != since.run or place.commit < since.commit or size < SMALL:
            return None
        return take_over(self.parent, size, page_size, lambda each: place.wrote(each, since.commit), self._limits(size))

    def _digests(self, chunks: list[int]) -> dict[int, bytes]:
        return {each: self.parent.contents.index.digest(each) for each in chunks}


class InPlace:
    """Remembers where in the commits the newest restore point of this process is, and decides when all is copied."""

    def __init__(self, limits: Callable[[int], PartLimits]) -> None:
        """`limits` are those of the store for a database of that many bytes."""
        self._limits = limits
        self._since: tuple[str, Followed] | None = None  # the key of a restore point, and its place
        self._whole_at = 0.0
        self._turn = 0

    def offer(self, base: Parent | RestorePoint | None, now: float, every: timedelta | None) -> Offer | None:
        """What may be taken over from `base`; None if everything must be copied, as it is once in `every`.

        `now` is in monotonic seconds.
        """
        if not isinstance(base, Parent) or self._since is None or base.contents.index.position is None:
            return None
        key, place = self._since
        if base.info.key != key or now - self._whole_at > (every or DAY).total_seconds():
            return None
        return Offer(base, place, self._limits, self._turn)

    def published(self, base: Parent, snapshot: Snapshot, now: float) -> None:
        """Record that the store has this restore point."""
        self._since = (base.info.key, snapshot.followed) if snapshot.followed else None
        if snapshot.read is None:
            self._whole_at = now
        else:
            self._turn = (self._turn + 1) % TURNS


async def compare_all(offer: Offer, database: Path, snapshotter: Snapshotter) -> tuple[int, ...]:
    """The chunks of the live database that differ from those on offer although no commit wrote there.

    `offer.compared_all` says whether that is known of all of them. Raises as `Snapshotter.compare`.
    """
    while not offer.compared_all:
        found = await snapshotter.compare(database, offer.choose_some)
        if found or found is None:
            return found or ()
    return ()
