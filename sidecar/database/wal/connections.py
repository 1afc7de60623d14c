"""SQLite's connections to a followed database, which are open for some milliseconds: while it is opened, and to checkpoint.

For that long whoever closes the database is not the last one, and leaves its log behind. They are not opened through
aiosqlite, which has a thread for each connection.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.driver import IGNORE_SCHEMA_ERRORS, Driver
from sidecar.database.errors import is_busy, is_schema_error
from sidecar.database.wal.cuts import CutCause, StreamCut

if TYPE_CHECKING:
    import sqlite3

_KEEPER_WAIT = 100  # milliseconds: only a recovery makes readers wait
_LOCKER_WAIT = 50
_OPENING_WAIT = 250  # an app that closes the database locks it, copies its log and deletes that


class Connections:
    """One that checkpoints, one that cannot write (`mode=ro`), and one that keeps writers out, if it is needed."""

    def __init__(self, path: Path, driver: Driver) -> None:
        self.path, self.driver = path, driver
        self._checkpointer: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None
        self._locker: sqlite3.Connection | None = None

    @property
    def are_open(self) -> bool:
        """Whether they are."""
        return self._checkpointer is not None

    def open(self, *, first: bool = False) -> None:
        """Open them; at first, see that the database is in WAL mode. Raises SQLite's errors, and `StreamCut`."""
        self._checkpointer = connection = self._opened("rw", _OPENING_WAIT)
        if first:
            self._require_wal(connection)
        _touch(connection)
        connection.execute("PRAGMA busy_timeout=0")
        self._keeper = self._opened("ro", _KEEPER_WAIT)
        _touch(self._keeper)

    def close(self, *, tidy: bool) -> None:
        """Close them; never raises SQLite's errors.

        The last of all connections to a database copies the log into it and deletes the log, if it may write. With `tidy`
        that is done, if we are the last. Without it the last one is one that may not, so closing neither writes to a file
        that was put in the place of another nor deletes its log.
        """
        order = [self._locker, self._keeper, self._checkpointer]
        self._locker = self._keeper = self._checkpointer = None
        for connection in order if tidy else reversed(order):
            if connection:
                with suppress(self.driver.error):
                    connection.close()

    def checkpoint(self, mode: str, *, synced: bool) -> bool:
        """A checkpoint that waits for nobody; False where somebody is in the way.

        With `synced`, the disk has the log before anything is copied, and the database before that counts as copied.
        """
        if self._checkpointer is None:
            return False
        self._checkpointer.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
        try:
            busy, *_ = self._checkpointer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except self.driver.error as error:
            if is_schema_error(error):  # the app has made a definition that this SQLite does not know
                self._checkpointer.execute(IGNORE_SCHEMA_ERRORS)
                return self.checkpoint(mode, synced=synced)
            if not is_busy(error):
                raise
            return False
        finally:
            self._checkpointer.execute("PRAGMA synchronous=FULL")  # closing it may copy the log, too
        return not busy

    def lock(self) -> bool:
        """Take the lock of a writer, and write nothing; whether it was free within a moment."""
        try:
            self._locker = self._locker or self._opened("rw", _LOCKER_WAIT)
            self._locker.execute("BEGIN IMMEDIATE")
        except self.driver.error as error:
            if is_busy(error):
                return False
            raise
        return True

    def unlock(self) -> None:
        """Let writers go on."""
        if self._locker and self._locker.in_transaction:
            self._locker.execute("ROLLBACK")

    def _opened(self, mode: str, wait: int) -> "sqlite3.Connection":
        connection = self.driver.connect(self.path, mode)
        connection.execute(f"PRAGMA busy_timeout={wait}")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def _require_wal(self, connection: "sqlite3.Connection") -> None:
        self.driver.load_schema(connection)
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raise StreamCut(CutCause.MODE, f"{self.path} is in journal mode {mode}, not in WAL mode")


def _touch(connection: "sqlite3.Connection") -> None:
    """Take the lock of a reader, without reading the schema: that may have definitions that this SQLite does not know."""
    connection.execute("PRAGMA schema_version").fetchall()
