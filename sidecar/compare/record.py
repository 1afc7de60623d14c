"""The record of rows that are brought back into a live database: what becomes of which row, with all values before and after.

It is the file of a comparison, of which only what is to be done is left. What is overwritten or removed is in it once more as
plain tables, for whoever wants to look at it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.compare.binding import Inserts
from sidecar.compare.image import Entry
from sidecar.compare.reading import TABLES_QUERY, ComparedTable, change_of, table_of
from sidecar.compare.schema import quote
from sidecar.compare.tables import Table
from sidecar.compare.values import Value, of_json
from sidecar.database import Driver
from sidecar.database.driver import Connection

FORMAT = 1
LOADED_BYTES = 16 << 20  # of JSON; in memory it takes some times as much
BEFORE = "before_"  # in the names of the plain tables
_CHANGES = (
    "SELECT id, kind, key, before, after, columns, rowid_before, rowid_after FROM changes "
    "WHERE table_id = ? AND kind = ? ORDER BY id"
)
_INVERSE = {"added": "removed", "removed": "added", "changed": "changed"}


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one row: it is `added`, `removed` or `changed`. `columns` are the positions of values that change."""

    kind: str
    key: tuple[Value, ...] | None
    before: tuple[Value, ...]
    after: tuple[Value, ...]
    columns: tuple[int, ...]
    rowid: int | None

    @property
    def hidden_rowid(self) -> int | None:
        """What a row without a key is known by."""
        return self.rowid if self.key is None else None

    @property
    def name(self) -> str:
        """What a person knows the row by, in its table."""
        known = self.key if self.key is not None else (self.rowid,)
        return ", ".join("NULL" if each is None else str(each)[:40] for each in known)


@dataclass(frozen=True, slots=True)
class Record:
    """An open record. `inverse`: what was done is to be undone."""

    connection: Connection
    inverse: bool = False
    _loaded: dict[tuple[int, str], list[Step]] = field(default_factory=dict)

    def load(self) -> None:
        """Read all rows, if they fit into memory: nobody is to wait for that while we have the lock."""
        size = self.connection.execute("SELECT total(length(before)) + total(length(after)) FROM changes").fetchone()[0]
        if size <= LOADED_BYTES:
            for table in self.tables():
                for kind in _INVERSE:
                    self._loaded[table.number, kind] = list(self.steps(table, kind))

    def meta(self) -> dict[str, Any]:
        """Facts about it."""
        return dict(self.connection.execute("SELECT name, value FROM meta"))

    def tables(self) -> list[ComparedTable]:
        """The tables, by name."""
        return [table_of(row) for row in self.connection.execute(TABLES_QUERY)]

    def entries(self, side: int) -> list[Entry]:
        """The schema of the live database as it was compared (0), or that of the other state (1)."""
        rows = self.connection.execute(
            "SELECT type, name, table_name, root, sql FROM objects WHERE side = ? ORDER BY id", (side,)
        )
        return [Entry(*row) for row in rows]

    def sequences(self) -> dict[str, int]:
        """The numbers that AUTOINCREMENT had given out in the other state."""
        rows = [(of_json(json.loads(name)), of_json(json.loads(number))) for name, number in self._sequence()]
        return {name: number for name, number in rows if isinstance(name, str) and isinstance(number, int)}

    def not_compared(self) -> list[tuple[str, str]]:
        """Tables that could not be compared, and why."""
        return self.connection.execute("SELECT name, reason FROM not_compared").fetchall()

    def count(self, table: ComparedTable, kind: str) -> int:
        """How many rows of a table are `added`, `removed` or `changed`."""
        stored = _INVERSE[kind] if self.inverse else kind
        counted = "SELECT count(*) FROM changes WHERE table_id = ? AND kind = ?"
        return int(self.connection.execute(counted, (table.number, stored)).fetchone()[0])

    def steps(self, table: ComparedTable, kind: str) -> Iterator[Step]:
        """What becomes of the rows of a table that are `added`, `removed` or `changed`."""
        loaded = self._loaded.get((table.number, kind))
        if loaded is not None:
            yield from loaded
            return
        stored = _INVERSE[kind] if self.inverse else kind
        for row in self.connection.execute(_CHANGES, (table.number, stored)):
            change = change_of(row)
            one, other = (change.before or (), change.rowid_before), (change.after or (), change.rowid_after)
            (before, old), (after, new) = (other, one) if self.inverse else (one, other)
            rowid = new if kind == "added" else old
            yield Step(kind, change.key, before, after, change.columns, rowid)  # type: ignore[arg-type]

    def _sequence(self) -> list[tuple[str, str]]:
        return self.connection.execute("SELECT name, seq FROM sequence").fetchall()


@contextmanager
def opened_record(driver: Driver, path: Path, *, inverse: bool = False) -> Iterator[Record]:
    """Open a record. Raises what SQLite raises, as ours."""
    with driver.translated(path), closing(driver.connect(path, "ro&immutable=1")) as connection:
        yield Record(connection, inverse)


def keep_only(
    driver: Driver, path: Path, kinds: Sequence[str], facts: dict[str, object], tick: Callable[[], None]
) -> None:
    """Make a record of the file of a comparison: of its changes these kinds are left, and they are shown as plain tables."""
    with driver.translated(path), closing(driver.connect(path, "rw")) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        marks = ", ".join("?" * len(kinds))
        connection.execute(f"DELETE FROM changes WHERE kind NOT IN ({marks})", tuple(kinds))
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [("record", FORMAT), *((k, v) for k, v in facts.items())]
        )
        record = Record(connection)
        for table in record.tables():
            if table.before:
                _show(connection, record, table, table.before, tick)
        connection.execute("COMMIT")


def _show(
    connection: Connection, record: Record, compared: ComparedTable, table: Table, tick: Callable[[], None]
) -> None:
    """The rows that are overwritten or removed, as they are, in a table without constraints."""
    inserts, made = Inserts(table, "utf-8", name=BEFORE + table.name, generated=True), False
    for kind in ("changed", "removed"):
        for step in record.steps(compared, kind):
            if not made:
                connection.execute(plain_definition(table, BEFORE + table.name))
                made = True
            tick()
            connection.execute(*inserts.of(step.before))


def plain_definition(table: Table, name: str) -> str:
    """A table with the same columns and nothing else: no key, no constraint, nothing that refers to other tables."""
    columns = ", ".join(f"{quote(each.name)} {_plain_type(each.type)}".strip() for each in table.columns)
    return f"CREATE TABLE {quote(name)}({columns})"


def _plain_type(kind: str) -> str:
    """ANY keeps values as they are in a STRICT table alone."""
    return "" if kind.upper() == "ANY" else kind
