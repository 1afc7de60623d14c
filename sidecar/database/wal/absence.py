"""A database that nobody has open any more, and the proof, once it is open again, that nothing was missed in between.

Whoever closes a database as the last one copies the log into it and removes the log: that is SQLite's own doing, and our
read transaction, which has no lock on the database's file, does not hold it up. What was committed until then is still in
our descriptors of the removed log. From then on the file may be replaced, and must be proved to be the same.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar.database.wal import frames
from sidecar.database.wal.births import Births
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Descriptors, Inode, Stamps, borrowed, is_exclusive
from sidecar.database.wal.glance import glance
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.hold import Hold, has_more
from sidecar.database.wal.reader import NotNow
from sidecar.database.wal.rest import is_same

_RACY = 1.0  # seconds: a later write within the same tick of the file system's clock would leave the same stamps
_LATER = 1.0  # seconds: far more than such a tick
_COMPARED, _LATEST = 64, 1000  # pages, of so many frames


@dataclass(frozen=True, slots=True)
class Absence:
    """A database as it was left: what stat(2) said, some of the pages that were written last, by number from 1, and when.

    `births`, of its log, where a program that came and went since would not have changed the stamps.
    """

    stamps: Stamps
    pages: Mapping[int, bytes]
    births: Births | None = None
    since: float = field(default_factory=time.monotonic)

    def is_same(self, path: Path) -> bool:
        """Whether the file is as it was left, so that the log beside it is the first one since then."""
        try:
            if not is_same(path, self.stamps) or _has_come_and_gone(self.births):
                return False
            if not self.pages:
                return True
            with borrowed(path) as file:
                return self.is_in(file)
        except OSError:
            return False

    def settled(self, path: Path) -> "Absence":
        """The same without the pages, if the file still has them and no later write can leave the same stamps."""
        latest = max(self.stamps.written, self.stamps.changed) / 1e9
        if not self.pages or time.time() - latest < _LATER or not self.is_same(path):
            return self
        return replace(self, pages={})

    def is_in(self, file: int) -> bool:
        """Whether a file has these pages. Raises OSError."""
        return all(os.pread(file, len(image), (page - 1) * len(image)) == image for page, image in self.pages.items())


def leave(hold: Hold) -> Absence | None:
    """Close everything that is open; None if somebody came at this moment.

    From then on a commit can only be in the first generation of the log, or have changed the database's file: a log is reset
    only after all of it was copied there.
    """
    hands = hold.hands
    hold.hop()
    stamps, index = Stamps.of(hands.path), hands.index()
    racy = time.time() - max(stamps.written, stamps.changed) / 1e9 < _RACY
    if racy or index.frame or index != hold.mark.index or not hold.parked or not hands.is_alone(beside=False):
        return None
    hands.close(tidy=True)
    return Absence(stamps, {})


def refresh(hold: Hold) -> None:
    """Nobody else has the database open, and we keep it open: have SQLite forget what it knows of the log, once that is empty.

    Whoever opens the database next would else find the number of its pages in the shared memory, and not in the file.
    """
    hands, index = hold.hands, hold.hands.index()
    if not index.pages or not hold.parked or index != hold.mark.index or os.fstat(hands.files.wal).st_size:
        return
    left = Absence(Stamps.of(hands.path), {})
    hands.disconnect()
    try:
        hands.connections.open()
    except hands.driver.error:
        hands.disconnect()
        return
    hold.start_at_first_frame(lambda: left.is_same(hands.path))


def depart(hold: Hold) -> Absence:
    """Capture the rest of a log that was removed by whoever closed the database, and close it, too.

    Raises `StreamCut`, and captures nothing, unless all of the log is in the database, and nothing else.
    """
    hands, files = hold.hands, hold.hands.files
    try:
        index = hands.index()
        rest, untouched = hold.read_to(index), hold.watch.is_untouched()
    except NotNow:
        raise StreamCut(CutCause.UNREADABLE, f"the wal-index of {hands.path} was left half written") from None
    found = rest[1].frames > 0
    hold.forget()
    if index.behind or has_more(hold, index):
        raise StreamCut(CutCause.MISMATCH, f"the log of {hands.path} was removed, and is not what was copied from it")
    try:
        stamps = Stamps.of(hands.path)
        left = Absence(stamps, _latest(files.wal, index), hands.births if stamps.changed == files.removed() else None)
        same = left.stamps.inode == files.inodes[0] and _is_since(left, files, untouched=untouched)
    except OSError:
        same = False
    if not same:
        doubt = "was changed or replaced before or after a program had it open"
        raise altered(hands.path, files.inodes[0], doubt)
    if found and not hold.watch.used:
        raise StreamCut(
            CutCause.REPLACED, f"{hands.path} was changed or replaced before a program was seen to have it open"
        )
    hold.keep(*rest)
    hold.forget()
    hands.close(tidy=False)
    return left


def is_back(path: Path, left: Absence) -> bool:
    """Whether somebody has opened the database since. Raises `StreamCut` if they have closed it already."""
    came = left.births is not None and left.births.count() != 0  # before: who comes after this is still there
    if any(os.path.lexists(f"{path}{suffix}") for suffix in ("-wal", "-shm")):
        return True
    if left.is_same(path) and not came:
        return False
    raise altered(path, left.stamps.inode, "was changed, and closed or replaced, before it could be followed again")


def altered(path: Path, inode: Inode, doubt: str) -> StreamCut:
    """The cut of a database that is not as it was, with what its file tells of the reason, or else a doubt."""
    try:
        seen = glance(path)
        if seen is None:
            doubt = "was truncated to nothing" if path.exists() else "was removed"
        elif seen.stamps.inode != inode:
            doubt = "was replaced: another file has its name"
        elif not seen.is_wal:
            return StreamCut(CutCause.MODE, f"{path} is no longer in WAL mode: a program has set another journal mode")
    except OSError:
        pass
    return StreamCut(CutCause.REPLACED, f"{path} {doubt}")


def require_unlocked(path: Path) -> None:
    """Raise `NotNow` while another process has locked a database exclusively, as its last close does."""
    try:
        with borrowed(path) as file:
            if is_exclusive(file):
                raise NotNow
    except OSError:
        return


def _is_since(left: Absence, files: Descriptors, *, untouched: bool | None) -> bool:
    """Whether the file is what the log was copied into, and was not written after the log had been removed.

    Both times are of the same clock. Within one tick of it the pages decide, and whether another program has come and gone.
    """
    if untouched is False or not left.is_in(files.database) or _has_come_and_gone(left.births):
        return False
    removed = files.removed()
    if removed is None or left.stamps.changed > removed:
        return False
    return bool(left.stamps.changed < removed or untouched or left.pages)


def _has_come_and_gone(births: Births | None) -> bool:
    """Whether anybody may have opened the database, and closed it again: whoever comes next makes the log once more."""
    if births is None:
        return False
    count = births.count()
    return count is None or count > 1


def _latest(wal: int, index: WalIndex) -> dict[int, bytes]:
    """The images of the pages that were written last, of those that the database still has."""
    found: dict[int, bytes] = {}
    for frame in range(index.frame, max(0, index.frame - _LATEST), -1):
        if len(found) == _COMPARED:
            break
        page = int.from_bytes(frames.header_of(wal, frame, index.page_size)[:4], "big")
        if page <= index.pages and page not in found:
            found[page] = frames.image_of(wal, frame, index.page_size)
    return found
