"""Which commit of a stream a snapshot shows: the wal-index says so before and after the snapshot's read transaction begins."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from sidecar.database.base import Feed
from sidecar.database.wal import NotNow, StreamCut, WalIndex
from sidecar.model import Followed

ATTEMPTS = 1000  # to begin between two commits, each of some microseconds


@dataclass(slots=True)
class Note:
    """One attempt to begin reading. `is_final`: its place is known, or will not be."""

    is_final: bool = True


class Place:
    """The place of a snapshot in what is followed. `noted` belongs to the thread that takes it."""

    def __init__(self, feed: Feed | None = None) -> None:
        self._feed = feed
        self._run = feed.run if feed else 0
        self._index: WalIndex | None = None
        self._attempts = 0
        self.located: Followed | None = None

    @property
    def is_followed(self) -> bool:
        """Whether a follower takes care of the log."""
        return self._feed is not None

    @property
    def index(self) -> WalIndex | None:
        """The wal-index when the read transaction had begun; None where that is not known."""
        return self._index

    @contextmanager
    def noted(self) -> Iterator[Note]:
        """Surrounds the begin of the read transaction. To be ended and repeated unless the note is final."""
        before, note = self._look(), Note()
        yield note
        self._attempts += 1
        after = self._look() if before else None
        if before and after and before.same_commit(after):
            self._index = after
        else:
            note.is_final = self._feed is None or self._attempts >= ATTEMPTS

    async def locate(self) -> None:
        """Set `located`, once the follower has passed the place; it stays None where that is not known.

        To be called as soon as reading has begun: during a long copy the follower may be cut, or forget old commits.
        """
        if self._feed is None or self._index is None:
            return
        with suppress(StreamCut):
            commit = await self._feed.locate(self._index)
            if commit is not None and self._feed.run == self._run:
                self.located = Followed(self._run, commit, self._feed.changed.wrote)

    def _look(self) -> WalIndex | None:
        try:
            return self._feed.index() if self._feed else None
        except NotNow:
            return None
        except StreamCut:
            self._feed = None
            return None


@asynccontextmanager
async def followed(feed: Feed | None) -> AsyncIterator[Place]:
    """The database stays open to the follower for as long as a snapshot is taken, if it is followed."""
    async with AsyncExitStack() as stack:
        if feed is not None and feed.run:
            try:
                await stack.enter_async_context(feed.present())
            except StreamCut:
                feed = None
        yield Place(feed if feed is not None and feed.run else None)
