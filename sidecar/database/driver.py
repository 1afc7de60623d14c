"""The SQLite library that opens databases, as a value that is handed in.

One process must open one database with one library only. SQLite's locks are POSIX locks, which belong to the process: a
second library does not know the descriptors of the first, and closing one of its own drops the locks of both
(https://sqlite.org/howtocorrupt.html#posix_advisory_locks_canceled_by_a_separate_thread_doing_close_). The daemon has a
process of its own and takes the newest library it finds. A program that embeds sidecar hands in the module that it
already uses for its database.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from sidecar.database.errors import is_schema_error, translate
from sidecar.host import failed

if TYPE_CHECKING:
    import sqlite3

# For those who use a connection that was given to them: they need not know the module that it comes from.
Connection: TypeAlias = "sqlite3.Connection"

LOCK_WAIT = 2.0  # seconds
# Held while a database's file is opened. Whoever closes a descriptor of a database holds it, too, so that it can know that
# no connection of this process is there whose locks that would drop.
OPENING = threading.Lock()
# Not before the file was seen to be whole: it makes SQLite accept one that was cut short, too.
IGNORE_SCHEMA_ERRORS = "PRAGMA writable_schema=ON"


class Driver:
    """A module with the interface of `sqlite3` (PEP 249), and what its version of SQLite can be trusted with."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.error: type[Exception] = module.Error
        self.version = str(module.sqlite_version)
        self.version_info: tuple[int, ...] = module.sqlite_version_info

    @property
    def may_checkpoint(self) -> bool:
        """Whether this SQLite may checkpoint while another process does (https://sqlite.org/wal.html#walresetbug)."""
        return is_fixed(self.version_info)

    def connect(self, path: Path, mode: str) -> "sqlite3.Connection":
        """A connection that never creates a database. It waits for others' locks as long as it holds none itself."""
        name = f"file:{quote(os.fsencode(path))}?mode={mode}"
        with OPENING:
            connection: sqlite3.Connection = self._module.connect(
                name, uri=True, isolation_level=None, timeout=LOCK_WAIT
            )
        return connection

    def in_memory(self) -> "sqlite3.Connection":
        """A new empty database in memory."""
        connection: sqlite3.Connection = self._module.connect(":memory:", isolation_level=None)
        return connection

    def scratch(self) -> "sqlite3.Connection":
        """A new empty database in an unnamed file, which is gone once it is closed.

        Not SQLite's own temporary database: pysqlite3 is built to keep that in memory (SQLITE_TEMP_STORE=3).
        """
        file, name = tempfile.mkstemp(prefix="sidecar-scratch-")
        os.close(file)
        try:
            connection: sqlite3.Connection = self._module.connect(name, isolation_level=None)
            for pragma_ in ("journal_mode = OFF", "synchronous = OFF"):
                connection.execute(f"PRAGMA {pragma_}")
            touch(connection)
        finally:
            os.unlink(name)
        return connection

    def load_schema(self, connection: "sqlite3.Connection") -> None:
        """Read the schema. A definition that this SQLite does not understand is left out: the app may have another one.

        Raises SQLite's error for a file that is no database, or is damaged.
        """
        try:
            touch(connection)
        except self.error as error:
            if not is_schema_error(error):
                raise
            connection.execute(IGNORE_SCHEMA_ERRORS)

    def journal_mode(self, path: Path, mode: str) -> str:
        """The journal mode, by a connection that is opened for this alone; one for writing recovers the database."""
        with closing(self.connect(path, mode)) as connection:
            self.load_schema(connection)
            touch(connection)
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

    @contextmanager
    def translated(self, path: Path) -> Iterator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except self.error as error:
            raise translate(error, path) from error
        except MemoryError as error:  # what Python makes of SQLITE_NOMEM
            raise failed(path, "out of memory") from error


def default_driver() -> Driver:
    """pysqlite3 where a wheel of it is installed, for its SQLite without the WAL-reset bug; else the standard library."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        import sqlite3 as dbapi2
    return Driver(dbapi2)


def standard_driver() -> Driver:
    """The standard library's, which most programs in Python use for their databases."""
    import sqlite3

    return Driver(sqlite3)


def is_fixed(version: tuple[int, ...]) -> bool:
    """Whether this version is without the WAL-reset bug, and so may checkpoint while another process does."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def touch(connection: "sqlite3.Connection") -> None:
    """Make a connection open its file, which SQLite puts off, and take its lock inside a transaction."""
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()


def pragma(connection: "sqlite3.Connection", name: str) -> int:
    """The value of a numeric pragma."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
