"""A log that stays beside a database because its last program closed it while we had it open for a copy.

SQLite's last close copies the log into the database and deletes it, and one beside a connection of ours is not the last. But
SQLite reads a log that lies beside a file as that file's own: over another file that has been put in the place of the
database. A follower empties such a log at once. Where nothing is followed, whoever has made the copy does it.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.driver import Driver
from sidecar.database.wal.cuts import StreamCut
from sidecar.database.wal.descriptors import (
    Stamps,
    borrowed,
    borrowed_index,
    borrowed_log,
    close_kept,
    is_open_here,
    is_used_by_others,
)
from sidecar.database.wal.frames import image_of, newest
from sidecar.database.wal.header import SIZE, UnknownVersion, parse
from sidecar.log import log

if TYPE_CHECKING:
    import sqlite3


@contextmanager
def leaving_no_log(path: Path, driver: Driver, *, tends: bool) -> Iterator[tuple["sqlite3.Connection", "Leftover"]]:
    """A connection to copy from, and the log that may stay beside it; with `tends`, that is emptied in the end."""
    leftover = Leftover(path, driver)
    try:
        with closing(driver.connect(path, "ro")) as source:
            try:
                yield source, leftover
            finally:
                if tends:
                    source.rollback()
                    leftover.empty()
    finally:
        close_kept()


class Leftover:
    """The log of one database, which is copied in one thread. Make it before the copy's own connections."""

    def __init__(self, path: Path, driver: Driver) -> None:
        self._path = path
        self._driver = driver
        self._stamps: Stamps | None = None
        self._log: Stamps | None = None
        self._inside = self._used = True
        with suppress(OSError):
            self._inside = is_open_here(path)  # by a program in this process, whose locks cannot be told from ours
            self._used = self._is_used()

    def begun(self) -> None:
        """The copy's read transaction has begun."""
        with suppress(OSError):
            self._stamps, self._log = Stamps.of(self._path), self._stamps_of_log()

    @property
    def is_there(self) -> bool:
        """Whether there is something to be emptied by now. Ask often, if others may checkpoint during the transaction."""
        try:
            return not self._inside and self._is_left()
        except OSError:
            return False

    def empty(self) -> None:
        """Empty the log if whoever had the database open has closed it, and its file is still the same; never raises.

        A log that nobody has used since the copy began is not our doing, and stays as it is. The copy's connection must be
        open, so that ours is not the last, but must not read.
        """
        try:
            if self._inside or not self._is_left():
                return
            with closing(self._driver.connect(self._path, "rw")) as connection:
                connection.execute("PRAGMA busy_timeout=0")
                if self._is_left():
                    # PASSIVE first: TRUNCATE keeps writers out, and has nothing to copy then.
                    busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    if not busy and frames == copied:
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (OSError, self._driver.error) as error:
            log.debug("log not emptied", path=str(self._path), error=str(error))

    def _is_left(self) -> bool:
        database, log = Stamps.of(self._path), self._stamps_of_log()
        if self._is_used():
            if self._stamps is not None and database.inode == self._stamps.inode:
                self._stamps = database  # somebody has copied more of the log into it, and it was still the same file
            return False
        changed = self._log is None or log.essence != self._log.essence
        same = self._stamps is not None and database.essence == self._stamps.essence
        return bool(log.size and (self._used or changed) and (same or self._is_inside(database)))

    def _is_inside(self, database: Stamps) -> bool:
        """Whether the database is still the same file because everything in the log is in it, so that nothing is lost or written."""
        if self._stamps is None or database.inode != self._stamps.inode:
            return False
        try:
            return self._has_all()
        except (StreamCut, UnknownVersion):
            return False

    def _has_all(self) -> bool:
        with borrowed(self._path) as file, borrowed_index(self._path, file) as shared, borrowed_log(self._path) as log:
            index = parse(os.pread(shared, SIZE, 0))
            if index is None or not index.frame or index.behind:
                return False
            return all(
                image_of(log, frame, index.page_size) == os.pread(file, index.page_size, (page - 1) * index.page_size)
                for page, frame in newest(log, index, 0).items()
                if page <= index.pages
            )

    def _is_used(self) -> bool:
        with borrowed(self._path) as file:
            return is_used_by_others(file)

    def _stamps_of_log(self) -> Stamps:
        return Stamps.of(Path(f"{self._path}-wal"))
