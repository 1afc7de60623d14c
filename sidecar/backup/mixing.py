"""Suspects copies of a database whose file was replaced under its log: SQLite may have mixed the two."""

from sidecar.database import Feed
from sidecar.database.wal import CutCause, StreamCut

MIXED = "its file was replaced, but not its log, which SQLite may have read over the new file"


class Mixing:
    """Remembers the cut at which that was noticed until a restore point says so. The feed keeps a cut for much longer."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._cut: StreamCut | None = None
        self._copied: StreamCut | None = None  # as of the last copy
        self._told: StreamCut | None = None

    @property
    def suspicion(self) -> str:
        """Why a copy that is taken now may have wrong content, or empty."""
        found = self._feed.status
        cut = found.cut
        if cut and cut is not self._told and cut.cause is CutCause.REPLACED and found.leaves_log:
            self._cut = cut
        return MIXED if self._cut else ""

    def suspect(self) -> str:
        """The suspicion of the copy that was just taken."""
        found = self.suspicion
        self._copied = self._cut
        return found

    def copied(self) -> None:
        """Note that a restore point has that copy. What was replaced since the copy is still suspected."""
        self._told = self._copied or self._told
        if self._cut is self._copied:
            self._cut = None
