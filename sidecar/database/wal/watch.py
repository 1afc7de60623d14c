"""What others do to the files of a database that is open, seen by stat(2) and by their locks."""

import time
from dataclasses import dataclass

from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.reader import NotNow

PATIENCE = 10.0  # seconds: the last close of a database locks it exclusively, too, while it copies the log


class Departed(Exception):
    """Whoever had the database open has closed it, and its log is gone: all of it is in the database."""


@dataclass(frozen=True, slots=True)
class _Content:
    """The database's file at a moment, and how many frames of which log were copied into it: else nothing changes it."""

    salts: bytes
    backfilled: int
    stamps: Stamps
    is_short: bool  # it lacks pages that it must have


class Watch:
    """Looks at the surroundings of one open database, in the thread that follows it."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._content: _Content | None = None
        self._pinned: Stamps | None = None
        self.used = False  # whether somebody was seen to have the database open while it was as it is known
        self._wanted_since: float | None = None  # since when another connection has an exclusive lock, or waits for one

    def require_files(self) -> Stamps:
        """The names must still lead to our files, and nobody may have written the database past the log.

        Raises `StreamCut`, `Departed`, and `NotNow` while somebody closes the database.
        """
        hands = self._hands
        self.require_welcome()  # the last close holds an exclusive lock until the log is gone
        used = hands.files.shared() or (not hands.connections.are_open and hands.files.attached())
        stamps = hands.files.in_place(hands.path)
        if stamps is None:
            self._require_departed()
            raise Departed
        if not stamps.size:
            raise StreamCut(CutCause.REPLACED, f"{hands.path} was truncated to nothing")
        now = self._content_now()
        pinned = self._pinned if self._hands.held.reads_database else None
        if (pinned and stamps.essence != pinned.essence) or (now and now.is_short) or self._was_written(now):
            raise StreamCut(
                CutCause.REPLACED, f"{hands.path} was written past its log: another file may have been copied over it"
            )
        self._content, self.used = now, self.used or used
        return stamps

    @property
    def is_undisturbed(self) -> bool:
        """Whether the files of a parked database are as they were when its read transaction began, and nobody checkpoints."""
        files, pinned = self._hands.files, self._pinned
        status = files.status(self._hands.path)
        if status is None or pinned is None:
            return False
        now = files.inodes[0], status.st_size, status.st_mtime_ns
        return now == pinned.essence and not files.checkpointing()

    def pin(self) -> None:
        """A read transaction was begun. Where it reads the database alone, nothing can be copied there before it ends."""
        self._pinned = Stamps.of(self._hands.path) if self._hands.held.reads_database else None

    def is_untouched(self) -> bool | None:
        """Whether nothing was written past the log since the last look; None where that cannot be known."""
        written = self._was_written(self._content_now())
        return None if written is None else not written

    def _was_written(self, now: _Content | None) -> bool | None:
        """Whether the file has changed since the last look without a checkpoint; None where one may have come between."""
        last = self._content
        if now is None or last is None or (last.salts, last.backfilled) != (now.salts, now.backfilled):
            return None
        return last.stamps.essence != now.stamps.essence

    def require_welcome(self) -> None:
        """Raise `NotNow` while another connection has an exclusive lock, and `StreamCut` when that does not end."""
        hands = self._hands
        if not hands.files.wanted():
            self._wanted_since = None
            return
        now = time.monotonic()
        self._wanted_since = self._wanted_since or now
        if now - self._wanted_since > PATIENCE:
            raise StreamCut(
                CutCause.EXCLUSIVE, f"a program has locked {hands.path} exclusively (PRAGMA locking_mode=EXCLUSIVE)"
            )
        raise NotNow

    def _content_now(self) -> _Content | None:
        """None while somebody copies frames into the database, or may do so."""
        hands = self._hands
        before = hands.index()
        if hands.files.checkpointing():
            return None
        stamps, after = Stamps.of(hands.path), hands.index()
        if _progress(before) != _progress(after) or after.attempted > after.backfilled:
            return None
        is_short = not after.behind and stamps.size < after.pages * after.page_size
        return _Content(after.salts, after.backfilled, stamps, is_short)

    def _require_departed(self) -> None:
        hands, files = self._hands, self._hands.files
        if files.removed() is None or files.attached():
            raise StreamCut(CutCause.REPLACED, f"{hands.path}, its -wal or its -shm was replaced or removed")


def _progress(index: WalIndex) -> tuple[bytes, int, int]:
    return index.salts, index.backfilled, index.attempted
