"""Statements on single rows, with their values bound: exactly one row, with all the values that it is said to have. Pure."""

import math
from collections.abc import Iterable, Sequence

from sidecar.compare.schema import quote
from sidecar.compare.tables import Table
from sidecar.compare.values import InvalidText, Value, type_name

SIGN = "sidecar_sign"  # a function of ours: SQL cannot tell 0.0 from -0.0
Statement = tuple[str, tuple[object, ...]]


def bound(value: Value, encoding: str) -> tuple[str, object]:
    """A placeholder and what to bind to it, in a database of this encoding."""
    if isinstance(value, InvalidText):
        raw = value.raw if value.encoding == encoding else value.raw.decode(value.encoding, "replace").encode(encoding)
        return "CAST(? AS TEXT)", raw
    return "?", value


def sign_of(value: object) -> float | None:
    """The function `SIGN`."""
    return math.copysign(1.0, value) if isinstance(value, float) else None


class Inserts:
    """Statements that insert rows of one table, under its own name or `name`. They never replace a row, unless `plain`."""

    def __init__(
        self, table: Table, encoding: str, *, name: str = "", plain: bool = False, generated: bool = False
    ) -> None:
        """`generated`: the table has columns like any other in place of generated ones."""
        written = [at for at, each in enumerate(table.columns) if generated or not each.is_generated]
        verb = "INSERT" if plain else "INSERT OR ABORT"
        self._start = f"{verb} INTO {quote(name or table.name)}("
        self._names = [quote(table.names[at]) for at in written]
        self._written = written
        self._rowid = None if table.rowid is None or table.rowid in table.names else quote(table.rowid)
        self._encoding = encoding

    def of(self, row: Sequence[Value], rowid: int | None = None) -> Statement:
        """The statement for a row; with its hidden `rowid`, if the table has such."""
        parts = [bound(row[at], self._encoding) for at in self._written]
        names = self._names
        if rowid is not None and self._rowid:
            names, parts = [*names, self._rowid], [*parts, ("?", rowid)]
        places = ", ".join(place for place, _ in parts)
        return f"{self._start}{', '.join(names)}) VALUES ({places})", tuple(value for _, value in parts)


class Meeting:
    """Conditions that a row meets if it has these values, by type and byte; and statements with them."""

    def __init__(self, table: Table, encoding: str, *, plain: bool = False) -> None:
        """With `plain`, an update leaves it to the table what happens in a conflict."""
        self._table, self._name, self._encoding = table, quote(table.name), encoding
        self._stated = [at for at, each in enumerate(table.columns) if not each.is_generated]
        self._update = "UPDATE" if plain else "UPDATE OR ABORT"
        self._names = [quote(each) for each in table.names]
        stated = [self._names[at] for at in self._stated]
        self._columns = ", ".join(f"{name} COLLATE BINARY" for name in stated)
        self._types = ", ".join(f"typeof({name})" for name in stated)
        self._marks = ", ".join("?" * len(stated))

    def delete(self, row: Sequence[Value], rowid: int | None) -> Statement:
        """Delete the row. `rowid` is that of a row without a key."""
        where, values = self._where(row, rowid)
        return f"DELETE FROM {self._name} WHERE {where}", values

    def update(
        self, row: Sequence[Value], wanted: Sequence[Value], columns: Iterable[int], rowid: int | None
    ) -> Statement:
        """Give a row the wanted values in these columns."""
        sets = [(self._names[at], *bound(wanted[at], self._encoding)) for at in columns]
        where, values = self._where(row, rowid)
        assigned = ", ".join(f"{name} = {place}" for name, place, _ in sets)
        return f"{self._update} {self._name} SET {assigned} WHERE {where}", (*(each for *_, each in sets), *values)

    def _where(self, row: Sequence[Value], rowid: int | None) -> Statement:
        table, conditions, values = self._table, list[str](), list[object]()
        if rowid is not None and table.rowid:
            conditions.append(f"{quote(table.rowid)} = ?")
            values.append(rowid)
        for at in table.key:
            if row[at] is not None:  # so that the index of the key is used, whatever its collation is
                place, value = bound(row[at], self._encoding)
                conditions.append(f"{self._names[at]} = {place}")
                values.append(value)
        conditions.append(self._all_columns(row, values))
        for at in self._stated:
            if isinstance(row[at], float) and row[at] == 0:
                conditions.append(f"{SIGN}({self._names[at]}) = ?")
                values.append(sign_of(row[at]))
        return " AND ".join(conditions), tuple(values)

    def _all_columns(self, row: Sequence[Value], values: list[object]) -> str:
        """One comparison of row values: a long chain of AND would be too deep for SQLite in a wide table."""
        parts = [bound(row[at], self._encoding) for at in self._stated]
        values += [value for _, value in parts] + [type_name(row[at]) for at in self._stated]
        places = ", ".join(place for place, _ in parts)
        return f"({self._columns}) IS ({places}) AND ({self._types}) IS ({self._marks})"
