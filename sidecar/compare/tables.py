"""What a table is: its columns as they are stored, its key, and how a row is made of a record. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.compare.values import Row, Value, projection

KNOWN_COLLATIONS = frozenset({"BINARY", "NOCASE", "RTRIM"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is stored. `is_real`: its whole numbers are stored as integers, but are REAL.

    `default` is the value of rows that are older than the column, and `default_sql` how it is written.
    """

    name: str
    type: str
    not_null: bool
    default: Value
    default_sql: str | None
    is_real: bool
    is_generated: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One table of one state.

    `order` has the column at each place of a record. `key` are the columns of the primary key, and `alias` is the one that
    is the rowid. `collations` has the order of a WITHOUT ROWID table, or of the index `primary` of its primary key: name and
    whether descending, for each column of the key.
    `rowid` is a name of the rowid that no column hides. `unique`: something other than the primary key is unique.
    `virtual` is the virtual table whose content it holds.
    """

    name: str
    root: int
    sql: str
    columns: tuple[Column, ...]
    order: tuple[int, ...]
    key: tuple[int, ...]
    alias: int | None
    without_rowid: bool
    collations: tuple[tuple[str, bool], ...]
    rowid: str | None
    unique: bool
    virtual: str = ""
    primary: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the columns of the primary key."""
        return tuple(self.columns[at].name for at in self.key)

    @property
    def is_ordered(self) -> bool:
        """Whether the order of its rows is known here: no collation of the app is part of it."""
        return all(name in KNOWN_COLLATIONS for name, _ in self.collations)

    def with_names(self, names: Mapping[str, str]) -> "Table":
        """The same table whose columns have these later names."""
        columns = tuple(replace(each, name=names.get(each.name, each.name)) for each in self.columns)
        return replace(self, columns=columns)

    def reads_like(self, other: "Table") -> bool:
        """Whether equal records are equal rows of both."""
        return (
            self.without_rowid == other.without_rowid
            and self.order == other.order
            and self.alias == other.alias
            and [(each.name, each.is_real, each.type) for each in self.columns]
            == [(each.name, each.is_real, each.type) for each in other.columns]
            and all(map(same_default, self.columns, other.columns))
        )


def same_default(one: Column, other: Column) -> bool:
    """Whether a row that lacks the column has the same value in both."""
    return (one.default_sql, one.type) == (other.default_sql, other.type)


def row_maker(table: Table) -> Callable[[int | None, Sequence[Value]], Row]:
    """Makes a row of a rowid and the values of a record: missing columns have their defaults."""
    places: list[int] = [0] * len(table.columns)
    for place, column in enumerate(table.order):
        places[column] = place
    defaults = [column.default for column in table.columns]
    reals = frozenset(at for at, column in enumerate(table.columns) if column.is_real)
    alias = table.alias

    def row(rowid: int | None, values: Sequence[Value]) -> Row:
        stored = len(values)
        found = [values[place] if place < stored else defaults[at] for at, place in enumerate(places)]
        if alias is not None:
            found[alias] = rowid
        for at in reals:
            if type(found[at]) is int:
                found[at] = float(found[at])  # type: ignore[arg-type]
        return tuple(found)

    return row


@dataclass(frozen=True, slots=True)
class Pair:
    """A table in both states. The columns of `before` have their names in `after`; `old_names` are what they were, by these."""

    before: Table
    after: Table
    old_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, ...] | None:
        """The columns of `after` that identify a row in both; None if there is no such key."""
        return self.after.key if self.after.key and self.after.key_names == self.before.key_names else None

    def as_after(self) -> Callable[[Row], Row]:
        """Gives a row of `before` the columns of `after`."""
        at = {name: position for position, name in enumerate(self.before.names)}
        positions = [at.get(name) for name in self.after.names]
        return projection(positions, [column.default for column in self.after.columns])

    @property
    def needs_all(self) -> bool:
        """Whether rows may differ although their pages are the same: short records get other defaults, or columns moved."""
        before, after = self.before, self.after
        if before.sql == after.sql:
            return False
        columns = {each.name: each for each in after.columns}
        defaults = all(same_default(each, columns[each.name]) for each in before.columns if each.name in columns)
        reals = all(each.is_real == columns[each.name].is_real for each in before.columns if each.name in columns)
        stored = [before.columns[at].name for at in before.order]
        now = [after.columns[at].name for at in after.order][: len(stored)]
        alias = [t.names[t.alias] if t.alias is not None else None for t in (before, after)]
        return not (defaults and reals and stored == now and alias[0] == alias[1])

    @property
    def is_walked(self) -> bool:
        """Whether the owners of its pages cannot be found from below: only walking its b-trees does."""
        before, after = self.before, self.after
        if not (before.without_rowid or after.without_rowid):
            return False
        if before.without_rowid != after.without_rowid:
            return True
        same_order = before.collations == after.collations and before.order == after.order
        return not (same_order and after.is_ordered)
