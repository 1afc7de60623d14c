"""Queries of a file that nobody writes to, from the event loop: statistics and integrity checks, through aiosqlite.

Nothing else goes through aiosqlite. Its `Connection.backup` crashes the interpreter when it is cancelled, and the order
in which connections to a live database are closed matters: both stay in one worker thread (see `snapshot`).
"""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from sidecar.database.base import YieldToApp
from sidecar.database.driver import IGNORE_SCHEMA_ERRORS, Driver
from sidecar.database.errors import is_schema_error
from sidecar.database.staging import require_opened

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

OFTEN = 500  # steps of SQLite's virtual machine or pages of a check: a few milliseconds
SELDOM = 100_000
CLOSE_SECONDS = 10.0  # longer only on a disk that does not answer


class OpenDatabase:
    """A database that is open for reading. Text is returned as bytes in UTF-8: a name need not be valid text."""

    def __init__(self, connection: "aiosqlite.Connection") -> None:
        self._connection = connection

    async def load_schema(self) -> None:
        """See `Driver.load_schema`."""
        try:
            await self.rows("SELECT 1 FROM sqlite_schema LIMIT 1")
        except Exception as error:
            if not is_schema_error(error):
                raise
            await self.rows(IGNORE_SCHEMA_ERRORS)

    async def rows(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[Any]]:
        """All rows that a statement returns. Raises SQLite's errors."""
        return [tuple(row) for row in await self._connection.execute_fetchall(statement, parameters)]

    async def drain(self, statement: str) -> None:
        """Step through all rows that a statement returns, a few at a time, and drop them. Raises SQLite's errors."""
        async with self._connection.execute(statement) as cursor:
            async for _row in cursor:
                pass

    async def value(self, statement: str) -> Any:
        """The first value of the first row."""
        return (await self.rows(statement))[0][0]


@asynccontextmanager
async def reading(
    driver: Driver,
    path: Path,
    *,
    file: int | None = None,
    yield_to_app: YieldToApp | None = None,
    live: bool = False,
) -> AsyncIterator[OpenDatabase]:
    """Open a file that nobody writes to, or a `live` database, with its locks and its WAL. Raises SQLite's errors.

    With `file` the path must lead to the file with this descriptor. A query that is cancelled ends at once; its thread
    has closed the connection when the block is left.
    """
    import aiosqlite  # not before the first query, which most commands never make

    stopped = threading.Event()

    def progress() -> bool:
        if yield_to_app:
            yield_to_app(stopped.wait)
        return stopped.is_set()

    def connect() -> "sqlite3.Connection":
        connection = driver.connect(path, "ro" if live else "ro&immutable=1")
        try:
            if file is not None:
                require_opened(path, file)
        except BaseException:
            connection.close()
            raise
        connection.text_factory = bytes
        connection.set_progress_handler(progress, OFTEN if yield_to_app else SELDOM)
        return connection

    connection = aiosqlite.Connection(connect, iter_chunk_size=64)
    with anyio.CancelScope(shield=True):  # cancelled here, aiosqlite would lose the connection that its thread makes
        await connection
    try:
        yield OpenDatabase(connection)
    finally:
        # Both: `interrupt` ends a statement that is running, the flag one that its thread has yet to begin.
        stopped.set()
        await connection.interrupt()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await connection.close()
