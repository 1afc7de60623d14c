"""The guestbook's data: the rules for entries, and the SQLite database that keeps them."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiosqlite

NAME_LIMIT = 80
MESSAGE_LIMIT = 2000
LARGEST_ID = 2**63 - 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    message TEXT NOT NULL,
    written_at TEXT NOT NULL
)
"""
_COLUMNS = "id, name, message, written_at"


class BadInput(ValueError):
    """A visitor's input that cannot be accepted; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the guestbook. `written_at` is UTC, like 2026-11-20T14:55:03.123Z."""

    id: int
    name: str
    message: str
    written_at: str


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is not written yet, exactly as it was sent. Raises `BadInput`."""

    name: str
    message: str

    def __post_init__(self) -> None:
        _check("name", self.name, NAME_LIMIT)
        _check("message", self.message, MESSAGE_LIMIT)


def _check(field: str, text: str, limit: int) -> None:
    if not text.strip():
        raise BadInput(f"{field} is empty")
    if len(text) > limit:
        raise BadInput(f"{field} has {len(text)} characters; at most {limit} are allowed")
    # JSON can contain both. SQLite's text functions stop at a NUL, and a lone surrogate cannot be encoded as UTF-8.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput(f"{field} has characters that are not text")


class Guestbook:
    """Entries in an open database. Every method may raise `sqlite3.Error`."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def sign(self, draft: Draft) -> Entry:
        """Write an entry; it is committed and on the disk when this returns.

        In autocommit mode each statement is its own transaction, so requests that share the connection cannot commit
        or roll back each other's changes.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = await self._connection.execute_insert(
            "INSERT INTO entries (name, message, written_at) VALUES (?, ?, ?)", (draft.name, draft.message, now)
        )
        assert row is not None  # noqa: S101 - the id of the row just inserted
        return Entry(row[0], draft.name, draft.message, now)

    async def oldest(self, *, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries with an id above `after`, in the order they were written."""
        rows = await self._connection.execute_fetchall(
            f"SELECT {_COLUMNS} FROM entries WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
            (after, limit),
        )
        return [Entry(*row) for row in rows]

    async def newest(self, *, before: int, limit: int) -> list[Entry]:
        """At most `limit` entries with an id below `before`, the latest first."""
        rows = await self._connection.execute_fetchall(
            f"SELECT {_COLUMNS} FROM entries WHERE id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants
            (before, limit),
        )
        return [Entry(*row) for row in rows]

    async def count(self) -> int:
        """The number of entries."""
        rows = await self._connection.execute_fetchall("SELECT count(*) FROM entries")
        return next(int(row[0]) for row in rows)


@contextlib.asynccontextmanager
async def open_guestbook(path: Path) -> AsyncIterator[Guestbook]:
    """Open the database, create it if necessary, and close it at the end. Raises `sqlite3.Error`."""
    # Fails here if the file cannot be opened: aiosqlite's thread would outlive the failure, and complain about the closed loop.
    sqlite3.connect(path).close()
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        # First, so that the statements below wait for other processes that have the file open.
        await connection.execute_fetchall("PRAGMA busy_timeout = 5000")
        await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        # With NORMAL, a WAL commit is not synced: it survives the app's crash but not the machine's, and an answer 201
        # would promise too much (https://sqlite.org/pragma.html#pragma_synchronous).
        await connection.execute_fetchall("PRAGMA synchronous = FULL")
        await connection.execute_fetchall(_SCHEMA)
        yield Guestbook(connection)
