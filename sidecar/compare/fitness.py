"""Whether tables can be brought back into a live database, and what a person is to know before that is done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.image import Entry
from sidecar.compare.reading import ComparedTable
from sidecar.compare.record import Record
from sidecar.compare.schema import is_known_module, quote
from sidecar.compare.search_indexes import SearchIndexes, search_indexes, source_of
from sidecar.compare.tables import Table
from sidecar.database.driver import Connection
from sidecar.errors import UsageError

SQL_INSTEAD = "`sidecar diff --sql` prints the statements, for a connection of the app's own"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What becomes of a table: how many rows are `added`, `removed` and `changed`. `left` are those that are left as they are.

    Those of a `virtual` table are rows in which its module stores its content.
    """

    name: str
    added: int
    removed: int
    changed: int
    left_changed: int = 0
    left_newer: int = 0
    created: bool = False
    dropped: bool = False
    virtual: bool = False

    @property
    def rows(self) -> int:
        """All rows that are written or removed."""
        return self.added + self.removed + self.changed


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done. `triggers` do not fire, `search_indexes` are rebuilt, `seconds` is for how long writers have to wait.

    `state` is where the rows come from.
    """

    state: str
    tables: tuple[TablePlan, ...]
    triggers: tuple[str, ...]
    search_indexes: tuple[str, ...]
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """All rows that are written or removed."""
        return sum(each.rows for each in self.tables)

    @property
    def is_nothing(self) -> bool:
        """Whether everything is there."""
        return not self.rows and not any(each.created or each.dropped for each in self.tables)


def require_fit(record: Record, wanted: Sequence[str], *, exact: bool) -> None:
    """Raise `UsageError` for a table that cannot be brought back as it is now.

    `wanted` are the names that were given, virtual tables themselves among them; `exact`: newer rows are removed.
    """
    state = record.meta()["after"]
    for name, reason in record.not_compared():
        raise UsageError(f"the table {name} cannot be compared: {reason}", SQL_INSTEAD)
    for compared in record.tables():
        before, after = compared.before, compared.after
        if compared.virtual:
            _require_whole(record, compared, wanted, exact=exact)
        if after is None:
            raise UsageError(f"{state} has no table {compared.name}", "name another state, or another table")
        if after.rowid is None and not after.without_rowid and not after.key:
            raise UsageError(f"the rows of {compared.name} cannot be told apart: columns hide the rowid", SQL_INSTEAD)
        if before is not None and (compared.former or _shape(before) != _shape(after)):
            changed = (
                f"{after.name} was renamed to {before.name}"
                if compared.former
                else f"the columns of {after.name} changed"
            )
            raise UsageError(f"{changed} since {state}", _as_another(after.name))
        if before is None and (there := _taken(record, compared.name)):
            raise UsageError(
                f"{compared.name} cannot be created again: the {there.type} {there.name} belongs to {there.table} now",
                f"if that is its new name, {_as_another(after.name)}",
            )


def _as_another(name: str) -> str:
    return f"bring its rows into a new table: `sidecar restore --into live --as {name}_old`"


def _taken(record: Record, name: str) -> Entry | None:
    """What has the name of an index or trigger of a table that is gone: it went on with a renamed one."""
    own = {each.name.lower() for each in record.entries(1) if each.table == name and each.sql and each.type != "table"}
    return next((each for each in record.entries(0) if each.name.lower() in own), None)


def _require_whole(record: Record, compared: ComparedTable, wanted: Sequence[str], *, exact: bool) -> None:
    """What a virtual table stores only makes sense as a whole, and to a table that was made in the same way."""
    name = compared.virtual
    if name not in wanted:
        raise UsageError(f"{compared.name} holds the content of the virtual table {name}", f"bring back {name} itself")
    source = next((source_of(each) for each in record.entries(0) if each.name == name), "")
    if source:
        raise UsageError(
            f"the search index {name} takes its text from {source}", f"bring back {source}: the index is rebuilt then"
        )
    if not exact:
        raise UsageError(
            f"{name} is a virtual table, which is brought back as a whole",
            "bring it back exactly: `sidecar restore --rows exact`",
        )
    if not all(is_known_module(each) for each in record.entries(0) if each.name == name):
        raise UsageError(f"which tables {name} stores its content in is known to its module alone", SQL_INSTEAD)
    one, other = ([each.sql for each in record.entries(side) if each.name == name] for side in (0, 1))
    if one != other or compared.state != "both":
        raise UsageError(
            f"the virtual table {name} is gone, or is not defined as it was",
            "`sidecar restore --output` brings it back in a file of its own",
        )


def _shape(table: Table) -> tuple[object, ...]:
    columns = tuple((each.name, each.type.upper(), each.is_generated) for each in table.columns)
    return columns, table.key_names, table.without_rowid


def preview(record: Record, *, triggers: bool) -> Preview:
    """What a person is to know. Raises `UsageError` where a search index would be wrong afterwards."""
    plans = tuple(_plans(record))
    names = {each.name.lower() for each in plans if each.rows}
    entries = record.entries(0)
    indexes: SearchIndexes = search_indexes(entries, names)
    if indexes.copies and not triggers:
        raise UsageError(
            f"the search index {indexes.copies[0]} has a text of its own, which triggers keep",
            "have the triggers fire: `sidecar restore --triggers`",
        )
    return Preview(str(record.meta()["after"]), plans, () if triggers else _triggers(entries, names), indexes.rebuilt)


def _plans(record: Record) -> Iterator[TablePlan]:
    """One for each table, and one for all in which a virtual table stores its content."""
    tables = record.tables()
    yield from (_plan(record, each) for each in tables if not each.virtual)
    for name in sorted({each.virtual for each in tables} - {""}):
        stored = [_plan(record, each) for each in tables if each.virtual == name]
        yield TablePlan(
            name,
            sum(each.added for each in stored),
            sum(each.removed for each in stored),
            sum(each.changed for each in stored),
            virtual=True,
        )


def _plan(record: Record, table: ComparedTable) -> TablePlan:
    added, removed, changed = (record.count(table, kind) for kind in ("added", "removed", "changed"))
    is_new = table.state == "added"
    if record.inverse:
        return TablePlan(table.name, added, removed, changed, dropped=is_new)
    return TablePlan(
        table.name,
        added,
        removed,
        changed,
        left_changed=table.changed - changed,
        left_newer=table.removed - removed,
        created=is_new,
    )


def _triggers(entries: Sequence[Entry], names: set[str]) -> tuple[str, ...]:
    return tuple(each.name for each in entries if each.type == "trigger" and each.table.lower() in names)


def require_own_indexes(connection: Connection, record: Record, tick: Callable[[], None]) -> None:
    """Raise `UsageError` if an index of the tables is not in the order that this SQLite gives it.

    An app may have replaced a function or collation of SQLite's own: then what we would write into such an index is wrong, and
    nothing else would say so.
    """
    for table in record.tables():
        tick()
        if table.before is None or not _may_be_replaced(connection, table.name):
            continue
        found = connection.execute(f"PRAGMA integrity_check({quote(table.name)})").fetchone()[0]
        if found != "ok":
            raise UsageError(
                f"an index of {table.name} is not as SQLite's own functions would have it: {found}", SQL_INSTEAD
            )


def _may_be_replaced(connection: Connection, table: str) -> bool:
    """Whether an index depends on more than the bytes of columns: on an expression, a condition, a collation."""
    if any(row[6] in (2, 3) for row in connection.execute(f"PRAGMA table_xinfo({quote(table)})")):
        return True
    for row in connection.execute(f"PRAGMA index_list({quote(table)})").fetchall():
        columns = connection.execute(f"PRAGMA index_xinfo({quote(row[1])})").fetchall()
        if row[4] or any(each[1] == -2 or str(each[4]).upper() != "BINARY" for each in columns if each[5]):
            return True
    return False
