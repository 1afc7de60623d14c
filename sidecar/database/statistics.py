"""How much is in a database, as suspicion needs it: tables, what they take without a row, what is unused, rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

ROWS_COUNTED = 4 << 20  # bytes in use, up to which counting rows takes a few milliseconds


@dataclass(frozen=True, slots=True)
class Contents:
    """`roots` counts the pages that tables and indexes have without a row, `unused` those on the freelist."""

    tables: int
    roots: int
    unused: int
    rows: int | None


def contents_of(connection: "sqlite3.Connection") -> Contents:
    """What is in a database that nobody writes to. Raises SQLite's errors when it is none.

    SQLite's own tables are not counted: those of AUTOINCREMENT and ANALYZE stay when all others are dropped
    (https://sqlite.org/fileformat2.html#internal_schema_objects). What is deleted leaves unused pages until VACUUM
    (https://sqlite.org/fileformat2.html#the_freelist).
    """
    connection.text_factory = bytes  # as UTF-8, whatever the database's encoding; a name need not be text at all
    tables = connection.execute(
        "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
    ).fetchall()
    roots = connection.execute("SELECT count(*) FROM sqlite_schema WHERE rootpage > 0").fetchone()[0]
    unused, pages, page_size = (_pragma(connection, name) for name in ("freelist_count", "page_count", "page_size"))
    small = (pages - unused) * page_size <= ROWS_COUNTED
    rows = _rows(connection, (name for name, root in tables if root)) if small else None  # virtual tables have none
    return Contents(len(tables), int(roots) + 1, unused, rows)


def _rows(connection: "sqlite3.Connection", tables: Iterable[bytes]) -> int | None:
    """How many there are in all of these; None where that cannot be asked: a table may need what only the app has."""
    counted = 0
    try:
        for table in tables:
            name = table.decode().replace('"', '""')
            # NOT INDEXED: an index may need a collation of the app's.
            counted += connection.execute(f'SELECT count(*) FROM "{name}" NOT INDEXED').fetchone()[0]  # noqa: S608
    except (ValueError, connection.Error):  # of whichever of the two libraries it is
        return None
    return counted


def _pragma(connection: "sqlite3.Connection", name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
