"""Which tables and columns of two states are the same ones, perhaps under another name, and what changed in the schema. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.compare.schema import Schema, quote
from sidecar.compare.tables import Column, Pair, Table

_ANOTHER_KEY = "another primary key: all of its rows are removed and added"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A change of the schema. `kind` is added, removed, changed or renamed; `object` is table, column, index and so on.

    `name` is its name, after a rename the new one; `table` is the table that it belongs to; `detail` says what is new.
    """

    kind: str
    object: str
    name: str
    table: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pairing:
    """The tables of both states, those of one alone, and the changes of the schema."""

    pairs: tuple[Pair, ...]
    removed: tuple[Table, ...]
    added: tuple[Table, ...]
    changes: tuple[SchemaChange, ...]


def pair_tables(before: Schema, after: Schema) -> Pairing:
    """Pair tables by name, or as renamed, and columns likewise."""
    replaced = _replaced_virtual(before, after)
    old, new = ({n: t for n, t in each.tables.items() if t.virtual not in replaced} for each in (before, after))
    gone = [table for name, table in before.tables.items() if name not in new or name not in old]
    come = [table for name, table in after.tables.items() if name not in old or name not in new]
    pairs = [(old[name], new[name]) for name in new if name in old]
    changes: list[SchemaChange] = []
    for one, other in [each for each in pairs if _is_another(*each)]:
        pairs.remove((one, other))
        gone.append(one)
        come.append(other)
        changes.append(SchemaChange("changed", "table", other.name, other.name, _ANOTHER_KEY))
    replaced_tables = {each.name for each in gone} & {each.name for each in come}
    for table in list(come):
        former = next((each for each in gone if _is_renamed(each, table)), None)
        if former:
            changes.append(SchemaChange("renamed", "table", table.name, table.name, f"was {former.name}"))
            pairs.append((former, table))
            gone.remove(former)
            come.remove(table)
    changes += [
        SchemaChange("removed", "table", each.name, each.name)
        for each in gone
        if not each.virtual and each.name not in replaced_tables
    ]
    changes += [
        SchemaChange("added", "table", each.name, each.name)
        for each in come
        if not each.virtual and each.name not in replaced_tables
    ]
    found = [_pair_columns(*each) for each in pairs]
    for pair in found:
        changes += _column_changes(pair)
    changes += _object_changes(before, after)
    return Pairing(tuple(found), tuple(gone), tuple(come), tuple(changes))


def _is_another(before: Table, after: Table) -> bool:
    """Whether no row can be recognised: neither by a key that both have, nor by a rowid."""
    names = dict(_renamed_columns(before, after)) if before.root == after.root else {}
    key = tuple(names.get(each, each) for each in before.key_names)
    return key != after.key_names and (before.rowid is None or after.rowid is None)


def _replaced_virtual(before: Schema, after: Schema) -> set[str]:
    """Virtual tables with another definition: a new one has its content in tables of its own."""
    one, other = before.virtual(), after.virtual()
    return {name for name in one.keys() | other.keys() if _sql(one, name) != _sql(other, name)}


def _sql(entries: dict, name: str) -> str | None:  # type: ignore[type-arg]
    return entries[name].sql if name in entries else None


def _is_renamed(former: Table, table: Table) -> bool:
    """Whether ALTER TABLE RENAME made one of the other: the same root and columns, and the new name in quotes.

    ALTER TABLE ADD COLUMN may have added some at the end, as migrations do in the same step.
    """
    written = table.sql.startswith(f"CREATE TABLE {quote(table.name)}")
    same = former.root == table.root and former.key == table.key and former.names == table.names[: len(former.names)]
    return same and written and (is_same_but_name(former, table) or _has_more_columns(former, table))


def is_same_but_name(former: Table, table: Table) -> bool:
    """Whether the definitions differ in nothing but the names of the tables."""
    return _without_name(former) == _without_name(table)


def _has_more_columns(former: Table, table: Table) -> bool:
    """Whether the definition has something more in one place."""
    old, new = _without_name(former), _without_name(table)
    same = _common(old, new) + _common(old[::-1], new[::-1])
    return len(table.names) > len(former.names) and same >= len(old)


def _common(one: str, other: str) -> int:
    """With how many equal characters they begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _without_name(table: Table) -> str:
    return table.sql.replace(quote(table.name), "").replace(table.name, "")


def _pair_columns(before: Table, after: Table) -> Pair:
    """Columns are renamed if they are in the place of another one, of the same type, in the same b-tree."""
    if before.sql == after.sql or before.root != after.root:
        return Pair(before, after)
    renamed = dict(_renamed_columns(before, after))
    return Pair(before.with_names(renamed), after, {new: old for old, new in renamed.items()})


def _renamed_columns(before: Table, after: Table) -> Iterator[tuple[str, str]]:
    """Old and new names. New columns are at the end; those that were dropped leave no gap."""
    new = iter(_stored(after))
    column = next(new, None)
    for old in _stored(before):
        if column is None:
            return
        if old.name != column.name:
            if (
                old.name in after.names
                or column.name in before.names
                or not _may_be_renamed(before, old, after, column)
            ):
                continue
            yield old.name, column.name
        column = next(new, None)


def _may_be_renamed(before: Table, old: Column, after: Table, new: Column) -> bool:
    return old.type == new.type and (old.name in before.key_names) == (new.name in after.key_names)


def _stored(table: Table) -> list[Column]:
    return [table.columns[at] for at in table.order]


def _column_changes(pair: Pair) -> Iterator[SchemaChange]:
    before, after = pair.before, pair.after
    if before.sql == after.sql:
        return
    name, said = after.name, False
    old = {each.name: each for each in before.columns}
    for column in after.columns:
        former = old.pop(column.name, None)
        if former is None:
            written = f"{column.type} NOT NULL" if column.not_null else column.type
            if column.default_sql is not None or not column.not_null:
                written = f"{written} (default {'NULL' if column.default_sql is None else column.default_sql})".strip()
            change = SchemaChange("added", "column", column.name, name, written)
        elif column.name in pair.old_names:
            change = SchemaChange("renamed", "column", column.name, name, f"was {pair.old_names[column.name]}")
        elif former.type != column.type:
            change = SchemaChange("changed", "column", column.name, name, f"{former.type} -> {column.type}")
        else:
            continue
        said = True
        yield change
    for column_name in old:
        said = True
        yield SchemaChange("removed", "column", column_name, name)
    if not said and before.name == after.name:
        yield SchemaChange("changed", "table", name, name, "its definition")


def _object_changes(before: Schema, after: Schema) -> Iterator[SchemaChange]:
    one, other = before.objects(), after.objects()
    for key in sorted(one.keys() | other.keys()):
        kind, name = key
        if key not in other:
            yield SchemaChange("removed", kind, name, one[key].table)
        elif key not in one:
            yield SchemaChange("added", kind, name, other[key].table)
        elif one[key].sql != other[key].sql:
            yield SchemaChange("changed", kind, name, other[key].table)
    virtual, now = before.virtual(), after.virtual()
    for name in sorted(virtual.keys() | now.keys()):
        if name not in now:
            yield SchemaChange("removed", "virtual table", name, name)
        elif name not in virtual:
            yield SchemaChange("added", "virtual table", name, name)
        elif virtual[name].sql != now[name].sql:
            yield SchemaChange("changed", "virtual table", name, name)
