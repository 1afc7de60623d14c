"""A live database with an accident in it, whose rows are brought back, for tests."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import sidecar
from tests.harness.database_states import LIBRARY

SCHEMA = (
    "CREATE TABLE customers(id INTEGER PRIMARY KEY, name)",
    "CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, customer INT REFERENCES customers ON DELETE CASCADE, state TEXT COLLATE NOCASE, total)",
    "CREATE TABLE log(text)",
    "CREATE TRIGGER second AFTER UPDATE ON orders BEGIN INSERT INTO log VALUES ('second'); END",
    "CREATE TRIGGER first AFTER UPDATE ON orders BEGIN INSERT INTO log VALUES ('first'); END",
)


def connect(path: Path) -> Any:
    """A connection as an app has it; it leaves the journal mode alone."""
    return LIBRARY.connect(str(path), isolation_level=None)


def make(path: Path, *more: str, rows: int = 20) -> None:
    """A shop in WAL mode."""
    with closing(connect(path)) as app:
        app.execute("PRAGMA journal_mode = WAL")
        for statement in SCHEMA:
            app.execute(statement)
        app.executemany("INSERT INTO customers VALUES (?, ?)", [(n, f"c{n}") for n in range(1, 4)])
        app.executemany(
            "INSERT INTO orders VALUES (?, ?, 'open', ?)", [(n, n % 3 + 1, n / 2) for n in range(1, rows + 1)]
        )
        for statement in more:
            app.execute(statement)


@asynccontextmanager
async def session_of(database: Path) -> AsyncIterator[sidecar.Sidecar]:
    """A session with a store beside the database, and the SQLite library that the tests use."""
    async with sidecar.open(databases=[database], store=f"file://{database.parent}/store", sqlite=LIBRARY) as session:
        yield session


def rows(database: Path, query: str) -> list[Any]:
    """What a query of the live database returns, through a connection of its own."""
    with closing(connect(database)) as reader:
        return list(reader.execute(query).fetchall())


def in_child(work: Callable[[], None]) -> int:
    """Run this in a child of this process. Returns its exit status, -9 if it was killed; 70 if it has raised."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:  # noqa: BLE001 - it must not go on as a second test run
            os._exit(70)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """The end of this process, without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)
