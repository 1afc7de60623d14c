"""Writes the rows of one state as NDJSON, CSV or SQL. Only the chunks of the tables asked for are read.

NDJSON and SQL are exact: typed and byte for byte. CSV has no types.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.fileformat import Malformed
from sidecar.compare.image import Entry
from sidecar.compare.opening import Opened
from sidecar.compare.rows import Side, cells_of
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.tables import Table, row_maker
from sidecar.compare.trees import Rows
from sidecar.compare.values import InvalidText, Row, Value, literal, to_json
from sidecar.errors import DamagedDatabase, UsageError

PRAGMA_ENCODINGS = {"utf-8": "UTF-8", "utf-16-le": "UTF-16le", "utf-16-be": "UTF-16be"}
LARGEST_ROWID = (1 << 63) - 1  # after which SQLite chooses at random
_AFTER_ROWS = ("index", "view", "trigger")


def rows_of(opened: Opened, table: Table) -> Iterator[Row]:
    """The rows of a table, in the order of their rowids or keys. Raises `DamagedDatabase`."""
    return (row for _, row in numbered_rows_of(opened, table))


def numbered_rows_of(opened: Opened, table: Table) -> Iterator[tuple[int | None, Row]]:
    """The same with the rowid of each, which is None in a WITHOUT ROWID table."""
    image, make = opened.image, row_maker(table)
    try:
        for cell in cells_of(image, table.root, Rows(whole=True), Side.BEFORE):
            yield cell.key, make(cell.key, image.record(cell))
    except Malformed as error:
        raise DamagedDatabase(
            f"the table {table.name} of {opened.named.name} is damaged: {error}",
            "export the other tables, or another state",
        ) from error


def chosen_tables(opened: Opened, names: Sequence[str]) -> list[Table]:
    """The tables with these names, in that order; else all that are not internal.

    Raises `UsageError`, and `DamagedDatabase` for a table whose definition is not understood.
    """
    tables, problems = opened.schema.tables, opened.schema.problems
    wrong = next((each for each in names or problems if each in problems), None)
    if wrong is not None:
        raise DamagedDatabase(
            f"the table {wrong} of {opened.named.name} cannot be read: {problems[wrong]}", "name the other tables"
        )
    for name in names:
        if name in opened.schema.virtual():
            stored = ", ".join(sorted(each.name for each in tables.values() if each.virtual == name)) or "nothing"
            raise UsageError(
                f"{name} is a virtual table, whose rows only its module can read",
                f"name what it stores in the database: {stored}",
            )
        if name not in tables:
            known = ", ".join(sorted(tables)[:20]) or "none"
            raise UsageError(f"{opened.named.name} has no table {name}", f"its tables are {known}")
    return [tables[name] for name in names] if names else [each for name, each in tables.items() if name != SEQUENCE]


def ndjson(opened: Opened, table: Table) -> Iterator[str]:
    """One object a row. ASCII, so that no encoding can change it."""
    names = table.names
    for row in rows_of(opened, table):
        yield json.dumps(dict(zip(names, map(to_json, row), strict=True)))


def csv(opened: Opened, table: Table) -> Iterator[str]:
    """The names of the columns, then the rows (RFC 4180). NULL is empty, empty text is quoted, a BLOB is in Base64."""
    yield ",".join(map(_csv_text, table.names))
    for row in rows_of(opened, table):
        yield ",".join(map(_csv_value, row))


def sql(opened: Opened, names: Sequence[str]) -> Iterator[str]:
    """The statements, without semicolons, that make the database anew; with `names` these tables and their indexes."""
    dump = _Dump(opened, chosen_tables(opened, names), whole=not names)
    yield f"PRAGMA encoding = '{PRAGMA_ENCODINGS[opened.image.header.encoding]}'"
    yield "PRAGMA foreign_keys = OFF"
    yield "PRAGMA ignore_check_constraints = ON"  # a check may have been added later than a row
    yield "BEGIN IMMEDIATE"
    yield from dump.tables()
    yield from dump.rest()
    yield "COMMIT"
    yield "PRAGMA ignore_check_constraints = OFF"


@dataclass(frozen=True, slots=True)
class _Dump:
    opened: Opened
    chosen: Sequence[Table]
    whole: bool

    def tables(self) -> Iterator[str]:
        """Create and fill the tables. A virtual one makes its shadow tables, which are emptied first."""
        virtual = self.opened.schema.virtual() if self.whole else {}
        yield from (each.sql for each in virtual.values())
        for table in self.chosen:
            yield f"DELETE FROM {quote(table.name)}" if table.virtual in virtual else table.sql
        for table in self.chosen:
            yield from self._rows(table)

    def _rows(self, table: Table) -> Iterator[str]:
        encoding = self.opened.image.header.encoding
        written = [at for at, each in enumerate(table.columns) if not each.is_generated]
        columns, hidden = ", ".join(quote(table.names[at]) for at in written), table.alias is None and table.rowid
        expected: int | None = (
            1  # the rowid that SQLite chooses for the next row; a search index may know rows by theirs
        )
        for rowid, row in numbered_rows_of(self.opened, table):
            values = ", ".join([literal(row[at], encoding) for at in written])
            if hidden and rowid is not None and rowid != expected:
                yield f"INSERT INTO {quote(table.name)}({hidden}, {columns}) VALUES ({rowid}, {values})"
            else:
                yield f"INSERT INTO {quote(table.name)}({columns}) VALUES ({values})"
            expected = None if rowid is None or rowid == LARGEST_ROWID else rowid + 1

    def rest(self) -> Iterator[str]:
        """Indexes, views and triggers in their order, sequences, and the numbers in the header."""
        for kind in _AFTER_ROWS:
            yield from (each.sql for each in self.opened.entries if self._has(each, kind))
        sequence, names = self.opened.schema.tables.get(SEQUENCE), {each.name for each in self.chosen}
        if sequence and any("AUTOINCREMENT" in each.sql.upper() for each in self.chosen):
            encoding = self.opened.image.header.encoding
            yield f"DELETE FROM {SEQUENCE}"
            for name, number in rows_of(self.opened, sequence):
                if name in names:
                    yield f"INSERT INTO {SEQUENCE} VALUES ({literal(name, encoding)}, {literal(number, encoding)})"
        if self.whole:
            header = self.opened.image.header
            yield f"PRAGMA user_version = {header.user_version}"
            yield f"PRAGMA application_id = {header.application_id}"

    def _has(self, entry: Entry, kind: str) -> bool:
        chosen = self.whole or (kind == "index" and entry.table in {each.name for each in self.chosen})
        return chosen and entry.type == kind and bool(entry.sql)


def _csv_value(value: Value) -> str:
    match value:
        case None:
            return ""
        case str():
            return _csv_text(value)
        case bytes():
            return b64encode(value).decode()
        case InvalidText():
            return _csv_text(value.raw.decode(value.encoding, "replace"))
    return repr(value)


def _csv_text(text: str) -> str:
    plain = text and not any(each in text for each in ',"\r\n') and text.strip() == text
    return text if plain else '"' + text.replace('"', '""') + '"'


TableFormat = Callable[[Opened, Table], Iterator[str]]
TABLE_FORMATS: dict[str, TableFormat] = {"ndjson": ndjson, "csv": csv}
ENDS = {"ndjson": "\n", "csv": "\r\n", "sql": "\n"}
