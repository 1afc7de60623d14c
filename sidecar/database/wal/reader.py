"""A reader's place in a log: what keeps captured and uncaptured commits there, without a connection to the database.

A connection has two locks more than a reader needs, on the database's file and on the shared memory as a whole. For as long
as any process has them, no connection that is closed is the last one, which copies the log into the database and deletes
it: an app that closes its database and puts another file in its place would read the old log over the new file. So the
place is taken here as SQLite does (wal.c: walTryBeginRead; https://sqlite.org/walformat.html#wal_locks), with locks that
belong to the open file and not to the process: they neither replace nor lose those of a connection beside them.
"""

import os
import struct
import time

from sidecar.database.wal.header import SIZE, WalIndex, parse
from sidecar.database.wal.locks import lock_of_file, share_of_file, unlock_of_file

_PLACES = 123  # the lock of the first of five
_MARKS = struct.Struct("=100x5I")
_MARK, _MARKS_AT = struct.Struct("=I"), 100
_ATTEMPTS = 50
_PAUSE = 0.0002  # seconds


class NotNow(Exception):
    """Somebody has a lock, or writes the header, at this moment. Nothing is lost by trying again later."""


class Reader:
    """One place, by a descriptor of the shared memory of its own, which must be open for writing."""

    def __init__(self, shm: int) -> None:
        self.shm = shm
        self.place: int | None = None

    def begin(self) -> WalIndex:
        """Take a place whose snapshot is the newest; the header that shows it. Raises `NotNow`."""
        for attempt in range(_ATTEMPTS):
            if attempt > 1:
                time.sleep(_PAUSE)
            raw = os.pread(self.shm, SIZE, 0)
            now = parse(raw)
            if now and self._take(now, _MARKS.unpack_from(raw)):
                return now
        raise NotNow

    @property
    def reads_database(self) -> bool:
        """Whether its snapshot is in the database alone, so that nobody copies anything there before it ends."""
        return self.place == 0

    def end(self) -> None:
        """Give it up."""
        if self.place is not None:
            unlock_of_file(self.shm, _PLACES + self.place)
            self.place = None

    def _take(self, now: WalIndex, marks: tuple[int, ...]) -> bool:
        """Take the place of the database alone, if all of the log is in it; else one whose mark is as near as can be."""
        if not now.behind and self._share(0, now, marks[0]):
            return True
        place = max((each for each in range(1, 5) if marks[each] <= now.frame), key=marks.__getitem__, default=None)
        if place is None or marks[place] < now.frame:
            claimed = next((each for each in range(1, 5) if lock_of_file(self.shm, _PLACES + each)), None)
            if claimed is not None:
                os.pwrite(self.shm, _MARK.pack(now.frame), _MARKS_AT + 4 * claimed)
                return self._share(claimed, now, now.frame)
        return place is not None and self._share(place, now, marks[place])

    def _share(self, place: int, now: WalIndex, mark: int) -> bool:
        """Have the place, unless anything has changed before that."""
        if not share_of_file(self.shm, _PLACES + place):
            return False
        raw = os.pread(self.shm, SIZE, 0)
        again = parse(raw)
        if again and again.same_commit(now) and _MARKS.unpack_from(raw)[place] == mark:
            self.place = place
            return True
        unlock_of_file(self.shm, _PLACES + place)
        return False
