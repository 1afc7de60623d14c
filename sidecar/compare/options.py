"""What a person wants compared, and what that means for a table."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.compare.matching import Match
from sidecar.compare.schema import SEQUENCE, Schema
from sidecar.compare.tables import Pair, Table
from sidecar.errors import UsageError

KEPT_ROWS = 100_000  # of a table


@dataclass(frozen=True, slots=True)
class Options:
    """What to compare: these `tables` alone, without these `ignored` columns, with other `keys` than the primary ones.

    A virtual table among them stands for those that it stores its content in.

    An ignored column is `column` or `table.column`. `pages`: whether pages may be compared; else all is read. Of `merged`
    bytes and more, whole tables are compared by SQL. With `skip_damaged`, tables that cannot be read are left out and listed.
    `kept` is how many rows of a table the result has at most.
    """

    tables: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pages: bool = True
    merged: int = 16 << 20
    skip_damaged: bool = False
    kept: int = KEPT_ROWS

    def wants(self, *tables: Table) -> bool:
        """Whether one of these is to be compared."""
        return not self.tables or any(each.name in self.tables or each.virtual in self.tables for each in tables)

    def table_by_table(self) -> "Options":
        """Read each table alone and whole, so that what is damaged concerns no other one."""
        return replace(self, pages=False, merged=sys.maxsize)


def match_of(pair: Pair, options: Options) -> Match:
    """How the rows of a pair are matched. Raises `UsageError` for a column of --key that one of the two lacks."""
    table = pair.after
    ignored = frozenset(
        at
        for at, name in enumerate(table.names)
        if name in options.ignored or f"{table.name}.{name}" in options.ignored
    )
    chosen = options.keys.get(table.name)
    if table.name == SEQUENCE:
        return Match(pair, (0,), ignored)  # its rows have the names of tables
    if chosen is None:
        return Match(pair, pair.key, ignored)
    for name in chosen:
        if name not in table.names or name not in pair.before.names:
            raise UsageError(
                f"{table.name} does not have the column {name} in both states, so it cannot be its key",
                f"its columns are {', '.join(table.names)}",
            )
    return Match(pair, tuple(table.names.index(name) for name in chosen), ignored, chosen=True)


def require_known(options: Options, before: Schema, after: Schema) -> None:
    """Raise `UsageError` for a table or column that neither state has."""
    tables = [*before.tables.values(), *after.tables.values()]
    names = {each.name for each in tables} | before.problems.keys() | after.problems.keys()
    virtual = {each.virtual for each in tables} - {""}
    for name in options.tables:
        if name in {*before.virtual(), *after.virtual()} - virtual:
            raise UsageError(f"{name} is a virtual table that stores nothing in the database", "leave it out")
    for known, chosen in ((names | virtual, options.tables), (names, options.keys)):
        for name in chosen:
            if name not in known:
                raise UsageError(f"neither state has a table {name}", _listed("the tables are", sorted(known)))
    columns = {f"{each.name}.{column}" for each in tables for column in each.names}
    for name in options.ignored:
        if name not in columns and not any(each.endswith(f".{name}") for each in columns):
            raise UsageError(f"no table has a column {name}", "write column or table.column")


def _listed(what: str, names: Sequence[str], most: int = 20) -> str:
    if not names:
        return "there is none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{what} {', '.join(names[:most])}{more}"
