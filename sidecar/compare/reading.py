"""Reads a result, from the event loop."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.compare.image import Entry
from sidecar.compare.pairing import SchemaChange
from sidecar.compare.tables import Column, Table
from sidecar.compare.values import Shown, of_json
from sidecar.database import Driver
from sidecar.database.queries import OpenDatabase, reading

KINDS = ("changed", "removed", "added")
TABLES_QUERY = (
    "SELECT id, name, former, state, how, virtual, added, removed, changed, kept, before, after, key, old_names "
    "FROM tables ORDER BY name = 'sqlite_sequence', name"
)
_BATCH, _FIRST = 50, 4  # rows that are read together
_BATCH_BYTES = 1 << 20  # and about how much they may be: each may have long values
_COLUMNS = "id, kind, key, before, after, columns, rowid_before, rowid_after"
_ORDER = "CASE kind WHEN 'changed' THEN 0 WHEN 'removed' THEN 1 ELSE 2 END"
_HAS_TEXT = (  # the second form finds what follows a NUL, where `lower` ends
    "EXISTS (SELECT 1 FROM json_each({}) WHERE instr(lower(value), lower(?)) OR instr(value, ?))"
)
_CHANGES = (
    f"SELECT {_COLUMNS} FROM changes "  # noqa: S608
    "WHERE table_id = ? AND kind = ? AND id > ? ORDER BY id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """A table of the result, and how many of its rows were added, removed and changed; `kept` of them can be read.

    `state` is both, added or removed. `former` is its name in the earlier state if that was another one. `key` are the
    columns that rows were matched by. `virtual` is the virtual table that it stores the content of.
    """

    number: int
    name: str
    former: str | None
    state: str
    how: str
    virtual: str
    added: int
    removed: int
    changed: int
    kept: int
    before: Table | None
    after: Table | None
    key: tuple[str, ...] | None
    old_names: dict[str, str]

    @property
    def differs(self) -> bool:
        """Whether any row does."""
        return bool(self.added or self.removed or self.changed)

    @property
    def table(self) -> Table:
        """The later state's table, or that of the earlier one if it was removed."""
        table = self.after or self.before
        assert table is not None  # noqa: S101 - a table is in one of both
        return table


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was added, removed or changed. Values are in the order of the columns of each state's table."""

    kind: str
    key: tuple[Shown, ...] | None
    before: tuple[Shown, ...] | None
    after: tuple[Shown, ...] | None
    columns: tuple[int, ...]
    rowid_before: int | None
    rowid_after: int | None


class Result:
    """A finished comparison."""

    def __init__(self, database: OpenDatabase) -> None:
        self._database = database

    async def meta(self) -> dict[str, Any]:
        """Facts about the comparison."""
        rows = await self._database.rows("SELECT name, value FROM meta")
        return {_text(name): _text(value) if isinstance(value, bytes) else value for name, value in rows}

    async def tables(self) -> list[ComparedTable]:
        """All tables that were compared, by name."""
        return [table_of(row) for row in await self._database.rows(TABLES_QUERY)]

    async def schema_changes(self) -> list[SchemaChange]:
        """What changed in the schema."""
        rows = await self._database.rows(
            "SELECT kind, object, name, table_name, detail FROM schema_changes ORDER BY table_name, id"
        )
        return [SchemaChange(*map(_text, row)) for row in rows]

    async def schema(self, side: int) -> list[Entry]:
        """The schema of the earlier (0) or the later (1) state."""
        rows = await self._database.rows(
            f"SELECT type, name, table_name, root, sql FROM objects WHERE side = {int(side)} ORDER BY id"  # noqa: S608
        )
        return [
            Entry(_text(kind), _text(name), _text(table), root, _text(sql)) for kind, name, table, root, sql in rows
        ]

    async def sequence(self) -> list[tuple[Shown, Shown]]:
        """The rows of sqlite_sequence in the later state."""
        rows = await self._database.rows("SELECT name, seq FROM sequence")
        return [(of_json(json.loads(name)), of_json(json.loads(number))) for name, number in rows]

    async def not_compared(self) -> list[tuple[str, str]]:
        """Tables that could not be compared, and why."""
        return [(_text(name), _text(why)) for name, why in await self._database.rows("SELECT * FROM not_compared")]

    async def changes(
        self, table: ComparedTable, kinds: Sequence[str] = KINDS, limit: int = -1
    ) -> AsyncGenerator[RowChange, None]:
        """The changes of one table that were kept, at most `limit` of each kind; -1 for all."""
        for kind in kinds:
            last, left, most = 0, limit, _FIRST
            while left:
                wanted = most if left < 0 else min(left, most)
                rows = await self._database.rows(_CHANGES, (table.number, kind, last, wanted))
                for row in rows:
                    yield change_of(row)
                if len(rows) < wanted:
                    break
                most = _fitting(rows)
                last, left = rows[-1][0], left - len(rows) if left > 0 else left

    async def count_found(self, table: ComparedTable, wanted: "Wanted") -> int:
        """How many of the changes that were kept are wanted."""
        where, parameters = wanted.sql(table)
        rows = await self._database.rows(f"SELECT count(*) FROM changes WHERE {where}", parameters)  # noqa: S608
        return int(rows[0][0])

    async def found(self, table: ComparedTable, wanted: "Wanted", start: int, count: int) -> list[RowChange]:
        """So many of the wanted changes from `start` on: changed, removed, added rows."""
        where, parameters = wanted.sql(table)
        statement = f"SELECT {_COLUMNS} FROM changes WHERE {where} ORDER BY {_ORDER}, id LIMIT ? OFFSET ?"  # noqa: S608
        return [change_of(row) for row in await self._database.rows(statement, [*parameters, count, start])]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes of a table: these kinds, with this text in a value of either state, that changed this column.

    Without `text` or `column` (its number in the later table), all. Letters of ASCII are the same in upper and lower case.
    """

    kinds: Sequence[str] = KINDS
    text: str = ""
    column: int | None = None

    def sql(self, table: ComparedTable) -> tuple[str, list[object]]:
        """A condition, and its parameters."""
        where = f"table_id = ? AND kind IN ({', '.join('?' * len(self.kinds))})"
        parameters: list[object] = [table.number, *self.kinds]
        if self.text:
            either = " OR ".join(_HAS_TEXT.format(side) for side in ("before", "after"))
            where += f" AND ({either})"
            parameters += [self.text, self.text] * 2
        if self.column is not None:
            where += " AND EXISTS (SELECT 1 FROM json_each(columns) WHERE value = ?)"
            parameters.append(self.column)
        return where, parameters


@asynccontextmanager
async def opened_result(driver: Driver, path: Path) -> AsyncIterator[Result]:
    """Open the file of a finished comparison."""
    async with reading(driver, path) as database:
        yield Result(database)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _fitting(rows: Sequence[Sequence[Any]]) -> int:
    """How many rows like these are read together."""
    size = sum(len(value) for row in rows for value in row if isinstance(value, bytes))
    return max(1, min(_BATCH, _BATCH_BYTES * len(rows) // (size + 1)))


def _values(text: bytes | str | None) -> tuple[Shown, ...] | None:
    return None if text is None else tuple(of_json(each) for each in json.loads(text))


def change_of(row: Sequence[Any]) -> RowChange:
    """A change from a row of `changes`."""
    _, kind, key, before, after, columns, rowid_before, rowid_after = row
    values = _values(key), _values(before), _values(after)
    return RowChange(_text(kind), *values, tuple(json.loads(columns)), rowid_before, rowid_after)


def table_of(row: Sequence[Any]) -> ComparedTable:
    """A table from a row of `TABLES_QUERY`."""
    number, name, former, state, how, virtual, added, removed, changed, kept, before, after, key, old_names = row
    one, other = _described(before), _described(after)
    table = other or one
    positions = None if key is None else json.loads(key)
    names = None if positions is None or table is None else tuple(table.names[at] for at in positions)
    return ComparedTable(
        number,
        _text(name),
        None if former is None else _text(former),
        _text(state),
        _text(how),
        _text(virtual),
        added,
        removed,
        changed,
        kept,
        one,
        other,
        names,
        json.loads(old_names),
    )


def _described(text: bytes | str | None) -> Table | None:
    if text is None:
        return None
    shown: dict[str, Any] = json.loads(text)
    shown["columns"] = tuple(Column(**{**each, "default": of_json(each["default"])}) for each in shown["columns"])
    shown["collations"] = tuple((name, descending) for name, descending in shown["collations"])
    for name in ("order", "key"):
        shown[name] = tuple(shown[name])
    return Table(**shown)
