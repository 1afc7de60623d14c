"""Writes some tables of a state, with their indexes, triggers and sequences, as a new database. Only their chunks are read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from sidecar.compare.binding import Inserts, bound
from sidecar.compare.export import PRAGMA_ENCODINGS, chosen_tables, numbered_rows_of, rows_of
from sidecar.compare.image import Entry
from sidecar.compare.opening import Opened
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.tables import Table
from sidecar.database import Driver
from sidecar.database.driver import Connection
from sidecar.database.errors import is_app_only
from sidecar.errors import UsageError

_TICK_EVERY = 500  # rows


def write_tables(driver: Driver, opened: Opened, names: Sequence[str], path: Path, tick: Callable[[], None]) -> None:
    """Write these tables to an empty file. `tick` is called now and then, and may raise to end the work.

    Raises `UsageError` for a table that is not there, or that needs a function or collation of the app, and what reading the
    state raises.
    """
    virtual, tables = _expanded(opened, names)
    with driver.translated(path), closing(driver.connect(path, "rw")) as connection:
        for pragma in _pragmas(opened):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        try:
            for entry in virtual:
                connection.execute(entry.sql)  # its module makes the tables that it stores its content in
            for table in tables:
                is_made = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table.name,)).fetchone()
                connection.execute(f"DELETE FROM {quote(table.name)}" if is_made else table.sql)  # noqa: S608 - quoted
                _fill(connection, opened, table, tick)
            for sql in _belonging(opened, names):
                connection.execute(sql)
            _set_sequences(connection, opened, names)
        except driver.error as error:
            if not is_app_only(error):
                raise
            raise UsageError(
                f"the tables {', '.join(names)} need something of the app's own: {error}",
                "`sidecar export --table` writes their rows; `sidecar restore --output` brings back the whole database",
            ) from error
        connection.execute("COMMIT")


def _expanded(opened: Opened, names: Sequence[str]) -> tuple[list[Entry], list[Table]]:
    """The virtual tables among these, and the tables that are filled: what virtual ones store, and all others."""
    known, tables = opened.schema.virtual(), opened.schema.tables.values()
    stored = [each.name for each in tables if each.virtual in names]
    others = [each for each in names if each not in known and each not in stored]
    return [known[each] for each in names if each in known], chosen_tables(
        opened, [*stored, *others]
    ) if stored or others else []


def _pragmas(opened: Opened) -> Iterable[str]:
    header = opened.image.header
    yield "journal_mode = OFF"
    yield "synchronous = OFF"
    yield f"page_size = {header.page_size}"
    yield f"encoding = '{PRAGMA_ENCODINGS[header.encoding]}'"
    yield f"user_version = {header.user_version}"
    yield f"application_id = {header.application_id}"
    yield "ignore_check_constraints = ON"  # a check may have been added later than a row


def _fill(connection: Connection, opened: Opened, table: Table, tick: Callable[[], None]) -> None:
    """Insert rows by the thousand: most have the same statement."""
    inserts = Inserts(table, opened.image.header.encoding)

    def ticking() -> Iterator[tuple[str, tuple[object, ...]]]:
        for number, (rowid, row) in enumerate(numbered_rows_of(opened, table)):
            if not number % _TICK_EVERY:
                tick()
            yield inserts.of(row, rowid)

    for sql, values in ticking():
        connection.execute(sql, values)


def _belonging(opened: Opened, names: Sequence[str]) -> Iterator[str]:
    """The indexes of these tables, then their triggers, in their order."""
    tables = {each.lower() for each in names}  # a trigger has the table's name as it was written in it
    for kind in ("index", "trigger"):
        yield from (
            each.sql for each in opened.entries if each.type == kind and each.sql and each.table.lower() in tables
        )


def _set_sequences(connection: Connection, opened: Opened, names: Sequence[str]) -> None:
    sequence = opened.schema.tables.get(SEQUENCE)
    made = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (SEQUENCE,)).fetchone()
    if sequence is None or not made:
        return
    connection.execute(f"DELETE FROM {SEQUENCE}")  # noqa: S608 - a name of SQLite's own
    encoding = opened.image.header.encoding
    for name, number in rows_of(opened, sequence):
        if name in names:
            places, values = zip(*(bound(each, encoding) for each in (name, number)), strict=True)
            connection.execute(f"INSERT INTO {SEQUENCE} VALUES ({', '.join(places)})", values)  # noqa: S608 - as above
