"""How much a database contains, which is what suspicion compares: tables, unused pages, rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.driver import Driver, pragma
from sidecar.database.findings import is_about_content
from sidecar.database.queries import OpenDatabase, reading

if TYPE_CHECKING:
    import sqlite3

ROWS_COUNTED = 4 << 20  # bytes in use, up to which counting rows takes a few milliseconds
_TABLES = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
_ROOTS = "SELECT count(*) FROM sqlite_schema WHERE rootpage > 0"
_AT_ONCE = 100  # tables whose rows one statement counts; SQLite allows 500 terms


@dataclass(frozen=True, slots=True)
class Contents:
    """`roots` counts the pages that tables and indexes have without a row, `unused` those on the freelist, `used` the others.

    `rows` are counted in small databases only.
    """

    tables: int
    roots: int
    unused: int
    used: int
    rows: int | None


async def contents_of(driver: Driver, path: Path, file: int | None = None) -> Contents:
    """Statistics of a database that nobody writes to. Raises SQLite's errors when it is not a database.

    With `file` the path must lead to the file with this descriptor. SQLite's own tables are not counted: those of
    AUTOINCREMENT and ANALYZE stay when all others are dropped
    (https://sqlite.org/fileformat2.html#internal_schema_objects). Deleting leaves unused pages until VACUUM
    (https://sqlite.org/fileformat2.html#the_freelist).
    """
    async with reading(driver, path, file=file) as database:
        await database.load_schema()
        tables = await database.rows(_TABLES)
        roots = await database.value(_ROOTS)
        unused = await database.value("PRAGMA freelist_count")
        used = await database.value("PRAGMA page_count") - unused
        rows = None
        if used * await database.value("PRAGMA page_size") <= ROWS_COUNTED:
            rows = await _rows(database, driver, [name for name, root in tables if root])  # virtual tables have none
    return Contents(len(tables), roots + 1, unused, used, rows)


def contents_in(connection: "sqlite3.Connection", pages: int) -> Contents:
    """The same, but for the rows, of a live database of so many pages in a transaction. Raises SQLite's errors."""
    connection.text_factory = bytes
    tables = connection.execute(_TABLES).fetchall()
    roots = connection.execute(_ROOTS).fetchone()[0]
    unused = pragma(connection, "freelist_count")
    return Contents(len(tables), roots + 1, unused, pages - unused, None)


async def _rows(database: OpenDatabase, driver: Driver, tables: Sequence[bytes]) -> int | None:
    """The number of rows in all of these tables; None if SQLite cannot count them: one may need what only the app has."""
    counted = 0
    try:
        names = [table.decode().replace('"', '""') for table in tables]
        for begin in range(0, len(names), _AT_ONCE):
            # NOT INDEXED: an index may need a collation of the app's.
            counts = [f'SELECT count(*) FROM "{name}" NOT INDEXED' for name in names[begin : begin + _AT_ONCE]]  # noqa: S608
            counted += sum(count for (count,) in await database.rows(" UNION ALL ".join(counts)))
    except (ValueError, driver.error) as error:
        if isinstance(error, driver.error) and not is_about_content(error):
            raise
        return None
    return counted
