"""A live database as it is at one moment, read in place for as long as a read transaction of our own is open.

Nothing follows the database here, so the wal-index itself is asked which commit the transaction shows: it must be the same
before it begins and after it has read.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.driver import Driver, pragma, touch
from sidecar.database.followed import ATTEMPTS
from sidecar.database.in_place import LiveParts, NotInPlace, Shown, live_parts
from sidecar.database.locking import LockGuard
from sidecar.database.wal import WalIndex, leaving_no_log
from sidecar.database.wal.descriptors import borrowed, borrowed_index
from sidecar.database.wal.header import SIZE, UnknownVersion, parse
from sidecar.database.wal.leftover import Leftover

if TYPE_CHECKING:
    import sqlite3

LOOK_EVERY = 0.01  # seconds: a look takes some hundredths of a millisecond


@contextmanager
def live_now(path: Path, driver: Driver) -> Iterator[LiveParts]:
    """The newest commit of a database that a program has open in WAL mode. All in one thread.

    Raises `NotInPlace`, also at the end, if one of the files was replaced meanwhile; and `OtherLocks`. So does `look` of what
    is yielded, once that program has closed the database: because of us its log is still there, and must not be by the
    time that another file is put in the place of this one.
    """
    LockGuard().require(path)
    with ExitStack() as stack:
        try:
            inode = os.stat(path).st_ino
            source, leftover = stack.enter_context(leaving_no_log(path, driver, tends=driver.may_checkpoint))
            driver.load_schema(source)
            if source.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                raise NotInPlace("it is not in WAL mode")
            index = _begun(source, path, inode)
            leftover.begun()
            shown = Shown(index, pragma(source, "page_size"), pragma(source, "page_count"))
        except (OSError, driver.error) as error:
            raise NotInPlace(str(error)) from error
        parts = stack.enter_context(live_parts(path, inode, shown, driver.version_info))
        parts.look = _Look(leftover)
        yield parts


class _Look:
    """Looks whether a log is left, but not too often."""

    def __init__(self, leftover: Leftover) -> None:
        self._leftover = leftover
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_EVERY
            if self._leftover.is_there:
                raise NotInPlace("the program that had it open has closed it")


def _begun(source: "sqlite3.Connection", path: Path, inode: int) -> WalIndex:
    """Begin a read transaction. Returns the wal-index of what it shows."""
    with borrowed(path) as database, borrowed_index(path, database) as shared:
        if os.fstat(database).st_ino != inode:
            raise NotInPlace("its file was replaced before it was read")
        for _ in range(ATTEMPTS):
            before = _look(shared)
            source.execute("BEGIN")
            touch(source)
            after = _look(shared)
            if before and after and before.same_commit(after):
                return after
            source.execute("ROLLBACK")
    raise NotInPlace("others commit faster than a read transaction begins")


def _look(shared: int) -> WalIndex | None:
    try:
        return parse(os.pread(shared, SIZE, 0))
    except UnknownVersion as error:
        raise NotInPlace(str(error)) from error
