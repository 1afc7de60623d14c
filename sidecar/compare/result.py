"""The result of a comparison is a SQLite file: command line, JSON and SQL are views of it.

Rows are kept as JSON arrays in the order of the table's columns, with the forms of `values.to_json`.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.compare.image import Entry
from sidecar.compare.pairing import SchemaChange
from sidecar.compare.rows import Change
from sidecar.compare.tables import Table
from sidecar.compare.values import Row, shortened, to_json
from sidecar.database import Driver
from sidecar.database.driver import Connection

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_PLAIN = {int, str, type(None)}
_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value);
CREATE TABLE tables(id INTEGER PRIMARY KEY, name TEXT, former TEXT, state TEXT, how TEXT, virtual TEXT,
    added INT, removed INT, changed INT, kept INT, before TEXT, after TEXT, key TEXT, old_names TEXT);
CREATE TABLE schema_changes(id INTEGER PRIMARY KEY, kind TEXT, object TEXT, name TEXT, table_name TEXT, detail TEXT);
CREATE TABLE objects(id INTEGER PRIMARY KEY, side INT, type TEXT, name TEXT, table_name TEXT, root INT, sql TEXT);
CREATE TABLE sequence(name TEXT, seq TEXT);
CREATE TABLE not_compared(name TEXT, reason TEXT);
CREATE TABLE changes(id INTEGER PRIMARY KEY, table_id INT, kind TEXT, key TEXT, before TEXT, after TEXT, columns TEXT,
    rowid_before INT, rowid_after INT);
"""


@dataclass(slots=True)
class Counts:
    """How many rows of a table were added, removed and changed, and how many of them are kept."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    kept: int = 0

    def count(self, kind: str) -> None:
        """Count a change of this kind."""
        setattr(self, kind, getattr(self, kind) + 1)


@dataclass(frozen=True, slots=True)
class Compared:
    """A table of the result. `state` is both, added or removed; `how` says how much of it was read: pages or whole."""

    name: str
    state: str
    how: str
    before: Table | None
    after: Table | None
    key: tuple[int, ...] | None
    old_names: dict[str, str]


class ResultWriter:
    """Writes the result to a new private file."""

    def __init__(self, driver: Driver, path: Path, *, keep: int | None, whole_values: bool = False) -> None:
        """`keep` is how many rows of a table are kept, None for all; with `whole_values` none is shortened."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._connection: Connection = driver.connect(path, "rw")
        self._keep, self._whole_values = keep, whole_values
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            self._connection.execute(f"PRAGMA {pragma}")
        for statement in _SCHEMA.split(";"):
            self._connection.execute(statement)
        self._connection.execute("BEGIN")
        self._tables = 0

    def meta(self, **values: object) -> None:
        """Note facts about the comparison."""
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def schema(self, entries: Iterable[Entry], side: int) -> None:
        """Keep the schema of one state, in its order."""
        rows = [(side, each.type, each.name, each.table, each.root, each.sql) for each in entries]
        self._connection.executemany(
            "INSERT INTO objects(side, type, name, table_name, root, sql) VALUES (?, ?, ?, ?, ?, ?)", rows
        )

    def schema_changes(self, changes: Iterable[SchemaChange]) -> None:
        """Keep the changes of the schema."""
        rows = [(each.kind, each.object, each.name, each.table, each.detail) for each in changes]
        self._connection.executemany(
            "INSERT INTO schema_changes(kind, object, name, table_name, detail) VALUES (?, ?, ?, ?, ?)", rows
        )

    def sequence(self, rows: Iterable[Row]) -> None:
        """Keep the numbers that AUTOINCREMENT has given out in the later state."""
        self._connection.executemany(
            "INSERT INTO sequence VALUES (?, ?)", [[json.dumps(to_json(each)) for each in row] for row in rows]
        )

    def not_compared(self, name: str, reason: str) -> None:
        """Note what could not be compared."""
        self._connection.execute("INSERT INTO not_compared VALUES (?, ?)", (name, reason))

    def table(self, compared: Compared, changes: Iterable[Change]) -> Counts:
        """Keep the changes of one table. Raises what iterating over them raises, and then keeps none."""
        self._tables += 1
        number = self._tables
        try:
            counts = self._keep_changes(number, changes)
        except BaseException:
            self._connection.execute("DELETE FROM changes WHERE table_id = ?", (number,))
            raise
        self._connection.execute(
            "INSERT INTO tables VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, *_described(compared), *_counted(counts), *_columns(compared)),
        )
        return counts

    def _keep_changes(self, number: int, changes: Iterable[Change]) -> Counts:
        counts = Counts()
        self._connection.executemany(
            "INSERT INTO changes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", self._rows_to_keep(number, changes, counts)
        )
        return counts

    def _rows_to_keep(self, number: int, changes: Iterable[Change], counts: Counts) -> Iterator[tuple[object, ...]]:
        """One at a time: each may be as large as memory allows."""
        for change in changes:
            counts.count(change.kind)
            if self._keep is None or counts.kept < self._keep:
                counts.kept += 1
                yield self._as_row(number, change)

    def finish(self) -> None:
        """Complete the file."""
        self._connection.execute("CREATE INDEX changes_by_table ON changes(table_id, kind, id)")
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file, complete or not."""
        self._connection.close()

    def _as_row(self, table: int, change: Change) -> tuple[object, ...]:
        return (
            table,
            change.kind,
            self._json(change.key),
            self._json(change.before),
            self._json(change.after),
            _ENCODER.encode(change.columns),
            change.rowid_before,
            change.rowid_after,
        )

    def _json(self, row: Row | None) -> str | None:
        if row is None:
            return None
        shown = row if self._whole_values else map(shortened, row)
        return _ENCODER.encode([each if type(each) in _PLAIN else to_json(each) for each in shown])


def _described(compared: Compared) -> tuple[object, ...]:
    before, after = compared.before, compared.after
    table = after or before
    former = before.name if before and after and before.name != after.name else None
    return compared.name, former, compared.state, compared.how, table.virtual if table else ""


def _counted(counts: Counts) -> tuple[int, ...]:
    return counts.added, counts.removed, counts.changed, counts.kept


def _columns(compared: Compared) -> tuple[str | None, ...]:
    key = None if compared.key is None else json.dumps(compared.key)
    return _table_json(compared.before), _table_json(compared.after), key, json.dumps(compared.old_names)


def _table_json(table: Table | None) -> str | None:
    """What the views need of a table."""
    if table is None:
        return None
    shown = asdict(table)
    shown["columns"] = [{**column, "default": to_json(column["default"])} for column in shown["columns"]]
    return json.dumps(shown)
