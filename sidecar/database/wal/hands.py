"""The connections of a follower to one database: two readers ("hands"), a checkpointer, and a locker when it is needed.

The readers cannot write (`mode=ro`), and so neither can the last connection that is closed, unless it is the checkpointer:
closing the connections to a replaced file never writes to the file in its place, nor deletes that one's log.
All of them stay in one thread and are not opened through aiosqlite, which has a thread for each connection: a hop is three
steps on two connections, and the proof depends on their order.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.driver import IGNORE_SCHEMA_ERRORS, Driver
from sidecar.database.errors import is_busy, is_schema_error
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Descriptors
from sidecar.database.wal.header import SIZE, UnknownVersion, WalIndex, parse

if TYPE_CHECKING:
    import sqlite3

_HAND_WAIT = 100  # milliseconds: only a recovery makes readers wait
_LOCKER_WAIT = 50
_OPENING_WAIT = 250  # an app that closes the database locks it, copies its log and deletes that
_LOOKS = 20


class NotNow(Exception):
    """Another process has a lock or is writing the header. Nothing is lost by trying again later."""


class Hands:
    """A database in WAL mode, open. `held` has a read transaction whenever the follower is between two steps."""

    def __init__(self, path: Path, driver: Driver) -> None:
        """Open it. Raises `StreamCut` if it is not in WAL mode, or other files take its place meanwhile."""
        self.path, self.driver = path, driver
        self._locker: sqlite3.Connection | None = None
        self._connections: list[sqlite3.Connection] = []
        self._files: Descriptors | None = None
        self._last: tuple[bytes, WalIndex | None] = (b"", None)
        self._looking = threading.Lock()  # another thread may read the header while this one closes the files
        try:
            self._checkpointer = self._connect("rw", _OPENING_WAIT)
            self._require_wal()
            self._checkpointer.execute("PRAGMA busy_timeout=0")
            self.held, self.free = (self._connect("ro", _HAND_WAIT) for _ in range(2))
            _touch(self.free)
            self._files = Descriptors.open(path)
        except driver.error as error:
            self.close(tidy=False)
            cause = CutCause.MODE if is_busy(error) else CutCause.ERROR
            raise StreamCut(cause, f"{path} cannot be opened: {error}") from error
        except (OSError, StreamCut) as error:
            self.close(tidy=False)
            if isinstance(error, StreamCut):
                raise
            raise StreamCut(CutCause.REPLACED, f"a file of {path} is gone: {error}") from error
        if not self._files.in_place(path):
            self.close(tidy=False)
            raise StreamCut(CutCause.REPLACED, f"the files of {path} were replaced while they were opened")

    @property
    def files(self) -> Descriptors:
        """Our own descriptors."""
        if self._files is None:
            raise StreamCut(CutCause.ERROR, f"{self.path} was closed")
        return self._files

    @property
    def pinned(self) -> bool:
        """Whether the log is kept from being reset without a transaction."""
        return self._files is not None and self._files.pin.held

    def look(self) -> bytes:
        """The header of the wal-index as it is at this moment."""
        with self._looking:
            return os.pread(self.files.shm, SIZE, 0)

    def index(self) -> WalIndex:
        """The header of the wal-index. Raises `NotNow` while it is being written."""
        for attempt in range(_LOOKS):
            try:
                found = self._parsed(self.look())
            except UnknownVersion as error:
                raise StreamCut(CutCause.UNREADABLE, f"{self.path}: {error}") from error
            if found:
                return found
            if attempt:
                self._read_header()
        raise NotNow

    def begin(self) -> None:
        """Begin a read transaction with the free reader. Raises `NotNow`."""
        try:
            self.free.execute("BEGIN")
            _touch(self.free)
        except self.driver.error as error:
            with suppress(self.driver.error):
                self._end(self.free)
            if is_busy(error) or "locking protocol" in str(error):
                raise NotNow from error
            raise

    def change(self) -> None:
        """Hold the transaction that the free reader has just begun, and end the other one."""
        self.held, self.free = self.free, self.held
        self._end(self.free)

    def let_go(self) -> None:
        """End the transaction of the free reader."""
        self._end(self.free)

    def end(self) -> None:
        """End all transactions."""
        self._end(self.held)
        self._end(self.free)

    def backfill(self) -> bool:
        """Run a PASSIVE checkpoint, which never waits. False if another process is running one."""
        return self._checkpoint("PASSIVE")

    def truncate(self) -> bool:
        """Run a TRUNCATE checkpoint without waiting. Returns whether the log is empty now."""
        return self._checkpoint("TRUNCATE") and not self.index().frame

    def lock(self) -> bool:
        """Take the writer's lock without writing. Returns whether it was free within a moment."""
        try:
            self._locker = self._locker or self._connect("rw", _LOCKER_WAIT)
            self._locker.execute("BEGIN IMMEDIATE")
        except self.driver.error as error:
            if is_busy(error):
                return False
            raise
        return True

    def unlock(self) -> None:
        """Let writers continue."""
        if self._locker:
            self._end(self._locker)

    def close(self, *, tidy: bool) -> None:
        """Close everything; never raises SQLite's errors.

        The last of all connections to a database, if it may write, copies the log into it and deletes the log. With
        `tidy` that is done, if we are the last; without it, the files are left as they are.
        """
        checkpointer, others = self._connections[:1], self._connections[1:]
        for connection in [*others, *checkpointer] if tidy else [*checkpointer, *reversed(others)]:
            with suppress(self.driver.error):
                connection.close()
        self._connections = []
        with self._looking:
            files, self._files = self._files, None
        if files:
            files.close()

    def _parsed(self, raw: bytes) -> WalIndex | None:
        last = self._last
        if raw != last[0]:
            last = self._last = (raw, parse(raw))
        return last[1]

    def _connect(self, mode: str, wait: int) -> "sqlite3.Connection":
        connection = self.driver.connect(self.path, mode)
        self._connections.append(connection)
        connection.execute(f"PRAGMA busy_timeout={wait}")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def _require_wal(self) -> None:
        self.driver.load_schema(self._checkpointer)
        mode = self._checkpointer.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raise StreamCut(CutCause.MODE, f"{self.path} is in journal mode {mode}, not in WAL mode")

    def _checkpoint(self, mode: str) -> bool:
        try:
            busy, *_ = self._checkpointer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except self.driver.error as error:
            if is_schema_error(error):  # the app has made a definition that this SQLite does not know
                self._checkpointer.execute(IGNORE_SCHEMA_ERRORS)
            elif not is_busy(error):
                raise
            return False
        return not busy

    def _read_header(self) -> None:
        """Let SQLite read the header: if its writer died at it, SQLite recovers it then."""
        with suppress(self.driver.error):
            self._checkpointer.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()

    @staticmethod
    def _end(connection: "sqlite3.Connection") -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _touch(connection: "sqlite3.Connection") -> None:
    """Take the lock of a reader, without reading the schema: that may have definitions that this SQLite does not know."""
    connection.execute("PRAGMA schema_version").fetchall()
