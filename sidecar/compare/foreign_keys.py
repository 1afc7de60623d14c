"""Rows whose parents are missing after rows were brought back: only the keys that were touched are looked at.

SQLite's own enforcement is off meanwhile: it would carry out ON DELETE CASCADE, and count what was missing before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.binding import bound
from sidecar.compare.reading import ComparedTable
from sidecar.compare.record import Record, Step
from sidecar.compare.schema import quote
from sidecar.compare.tables import Table
from sidecar.compare.values import Value
from sidecar.database.driver import Connection

MOST = 5  # that are named
_GONE = "temp.sidecar_gone"
Steps = Callable[[str], Iterable[Step]]


@dataclass(frozen=True, slots=True)
class _Key:
    """A foreign key: columns of `child` that refer to columns of `parent`."""

    child: str
    parent: str
    columns: tuple[str, ...]
    referred: tuple[str, ...]


def orphans(connection: Connection, record: Record, encoding: str) -> list[str]:
    """Rows without a parent that there would be by now, a few of them, as sentences."""
    found = list[str]()
    keys = list(_keys(connection))
    for compared in record.tables():
        table = compared.table
        for key in keys:
            if key.child.lower() == table.name.lower() and len(found) < MOST:
                found += _children(connection, record, compared, key, encoding)
            if key.parent.lower() == table.name.lower() and len(found) < MOST:
                found += _parents(connection, record, compared, key, encoding)
    return found[:MOST]


def _keys(connection: Connection) -> Iterator[_Key]:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0").fetchall()
    for (name,) in names:
        rows = connection.execute(f"PRAGMA foreign_key_list({quote(name)})").fetchall()
        for number in sorted({row[0] for row in rows}):
            parts = sorted((row for row in rows if row[0] == number), key=lambda row: row[1])
            parent = str(parts[0][2])
            referred = tuple(row[4] for row in parts)
            if None in referred:
                referred = _primary_key(connection, parent)
            yield _Key(str(name), parent, tuple(str(row[3]) for row in parts), referred)


def _primary_key(connection: Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    return tuple(str(row[1]) for row in sorted((row for row in rows if row[5]), key=lambda row: row[5]))


def _children(
    connection: Connection, record: Record, compared: ComparedTable, key: _Key, encoding: str
) -> Iterator[str]:
    """Rows that were written, and refer to a row that is not there."""
    at = _positions(compared.table, key.columns)
    if at is None:
        return
    for kind in ("added", "changed"):
        for step in record.steps(compared, kind):
            values = tuple(step.after[each] for each in at)
            was = tuple(step.before[each] for each in at) if step.before else None
            if None in values or values == was or _exists(connection, key, values, encoding):
                continue
            yield f"{key.child} {step.name} refers to a row of {key.parent} that is not there"


def _exists(connection: Connection, key: _Key, values: Sequence[Value], encoding: str) -> bool:
    there = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (key.parent,)
    ).fetchone()
    if not there or len(key.referred) != len(values):
        return False
    parts = [bound(each, encoding) for each in values]
    where = " AND ".join(f"{quote(name)} = {place}" for name, (place, _) in zip(key.referred, parts, strict=True))
    query = f"SELECT 1 FROM {quote(key.parent)} WHERE {where}"
    return connection.execute(query, [value for _, value in parts]).fetchone() is not None


def _parents(
    connection: Connection, record: Record, compared: ComparedTable, key: _Key, encoding: str
) -> Iterator[str]:
    """Rows that refer to a row that was removed, or has another key now. One query for all: the column may have no index."""
    at = _positions(compared.table, key.referred)
    if at is None:
        return
    columns = [f"p{number}" for number in range(len(at))]
    connection.execute(f"CREATE TEMP TABLE sidecar_gone({', '.join(columns)})")
    try:
        for kind in ("removed", "changed"):
            for step in record.steps(compared, kind):
                values = tuple(step.before[each] for each in at)
                kept = step.after and values == tuple(step.after[each] for each in at)
                if None in values or kept or _exists(connection, key, values, encoding):
                    continue
                parts = [bound(each, encoding) for each in values]
                places = ", ".join(place for place, _ in parts)
                connection.execute(f"INSERT INTO {_GONE} VALUES ({places})", [value for _, value in parts])
        child, gone = ", ".join(map(quote, key.columns)), ", ".join(columns)
        query = f"SELECT {child} FROM {quote(key.child)} WHERE ({child}) IN (SELECT {gone} FROM {_GONE}) LIMIT {MOST}"
        for row in connection.execute(query).fetchall():
            yield f"a row of {key.child} refers to {key.parent} {', '.join(map(str, row))}, which would be removed"
    finally:
        connection.execute(f"DROP TABLE {_GONE}")


def _positions(table: Table, names: Sequence[str]) -> tuple[int, ...] | None:
    """Where these columns are; None if one of them is not stored."""
    at = {name.lower(): position for position, name in enumerate(table.names)}
    found = tuple(at[each.lower()] for each in names if each.lower() in at)
    return found if names and len(found) == len(names) else None
