"""A difference as SQL: one transaction that makes the later state of the earlier one.

Triggers are dropped and put back in their order, so that none fires. Where something other than the primary key is unique,
changed rows are deleted first and inserted in the end, because their values may have been swapped. Hidden rowids are not
part of a state. A virtual table is made by its module, and what it stores is written into its shadow tables.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.image import Entry
from sidecar.compare.pairing import is_same_but_name
from sidecar.compare.reading import ComparedTable, Result, RowChange
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.tables import Table
from sidecar.compare.values import InvalidText, Shortened, Shown, literal

_OTHERS = ("trigger", "view", "index")


async def statements(result: Result) -> AsyncGenerator[str, None]:
    """The statements, without semicolons. The result must have all rows, and whole values."""
    before, after = await result.schema(0), await result.schema(1)
    tables, meta = await result.tables(), await result.meta()
    encoding = str(meta["encoding_before"])
    plan = _Plan(before, after, tables, encoding)
    yield "PRAGMA foreign_keys = OFF"
    yield "BEGIN IMMEDIATE"
    for statement in (*plan.drops(), *plan.creates(), *plan.rebuilds()):
        yield statement
    for table in tables:
        if table.after is not None and table.name != SEQUENCE and table.differs:
            async for statement in _rows(result, table, table.after, encoding):
                yield statement
    for statement in plan.puts_back():
        yield statement
    if plan.has_sequence:
        yield f"DELETE FROM {SEQUENCE}"
        for name, number in await result.sequence():
            yield f"INSERT INTO {SEQUENCE} VALUES ({_literal(name, encoding)}, {_literal(number, encoding)})"
    for change in await result.schema_changes():
        if change.object == "number":
            yield f"PRAGMA {change.name} = {meta[change.name]}"
    yield "COMMIT"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the schema needs, before and after the rows."""

    before: Sequence[Entry]
    after: Sequence[Entry]
    tables: Sequence[ComparedTable]
    encoding: str

    @property
    def has_sequence(self) -> bool:
        """Whether there is a table of sequences to be written to in the end."""
        later = any(each.name == SEQUENCE for each in self.after)
        makes_one = any(re.search(r"\bAUTOINCREMENT\b", each.sql, re.IGNORECASE) for each in self.after)
        return later and (makes_one or any(each.name == SEQUENCE for each in self.before))

    def drops(self) -> Iterator[str]:
        """Drop triggers, changed indexes and views, and the tables that are no more."""
        for kind in _OTHERS:
            for each in self.before:
                if each.type == kind and each.sql and not self._stays(each):
                    yield f"DROP {kind.upper()} IF EXISTS {quote(each.name)}"
        later = {each.name: each.sql for each in self._virtual(self.after)}
        for each in self._virtual(self.before):
            if later.get(each.name) != each.sql:
                yield f"DROP TABLE {quote(each.name)}"
        for table in self.tables:
            if table.state == "removed" and table.name != SEQUENCE:
                yield f"DROP TABLE IF EXISTS {quote(table.name)}"

    def creates(self) -> Iterator[str]:
        """Create the tables that are new; a virtual one makes its shadow tables, which are emptied."""
        known = {each.name: each.sql for each in self._virtual(self.before)}
        made = [each for each in self._virtual(self.after) if known.get(each.name) != each.sql]
        yield from (each.sql for each in made)
        names = {each.name for each in made}
        for table in self.tables:
            if table.state == "added" and table.name != SEQUENCE and table.after is not None:
                is_shadow = table.after.virtual in names
                yield f"DELETE FROM {quote(table.name)}" if is_shadow else table.after.sql

    def rebuilds(self) -> Iterator[str]:
        """Rename tables, and rebuild those with another definition (https://sqlite.org/lang_altertable.html, section 7)."""
        yield "PRAGMA legacy_alter_table = ON"
        for each in self.tables:
            if each.before is None or each.after is None or each.name == SEQUENCE:
                continue
            if each.former and is_same_but_name(each.before, each.after):
                yield f"ALTER TABLE {quote(each.former)} RENAME TO {quote(each.name)}"
            elif each.before.sql != each.after.sql:  # also one that was renamed and got columns
                yield from self._rebuild(each, each.before, each.after)
        yield "PRAGMA legacy_alter_table = OFF"

    def _rebuild(self, compared: ComparedTable, before: Table, after: Table) -> Iterator[str]:
        old = quote(f"~{after.name}")
        yield f"ALTER TABLE {quote(before.name)} RENAME TO {old}"
        yield after.sql
        written = [each for each in after.columns if not each.is_generated]
        common = [each for each in written if each.name in before.names]
        new = [each for each in written if each.name not in before.names]
        former = {name: compared.old_names.get(name, name) for name in before.names}
        values = {each.name: quote(former[each.name]) for each in common}
        values |= {each.name: _literal(each.default, self.encoding) for each in new}
        if before.rowid and after.rowid and after.rowid not in before.names:  # rows without a key are known by it
            values[after.rowid] = quote(former.get(before.rowid, before.rowid))
        into, taken = ", ".join(map(quote, values)), ", ".join(values.values())
        yield f"INSERT OR REPLACE INTO {quote(after.name)}({into}) SELECT {taken} FROM {old}"
        yield f"DROP TABLE {old}"

    def puts_back(self) -> Iterator[str]:
        """Create the indexes, views and triggers that are not there, in the order of the later schema."""
        kept = {(each.type, each.name) for each in self.before if self._stays(each)}
        for kind in reversed(_OTHERS):
            for each in self.after:
                if each.type == kind and each.sql and (kind, each.name) not in kept:
                    yield each.sql

    def _stays(self, entry: Entry) -> bool:
        """Whether an index or view is the same in both, on a table that is not rebuilt."""
        if entry.type == "trigger" or entry.table in self._rebuilt():
            return False
        return any((each.type, each.name, each.sql) == (entry.type, entry.name, entry.sql) for each in self.after)

    def _rebuilt(self) -> set[str]:
        changed = set()
        for each in self.tables:
            if each.before and each.after and each.before.sql != each.after.sql:
                changed |= {each.before.name, each.after.name}
        return changed

    def _virtual(self, entries: Sequence[Entry]) -> list[Entry]:
        return [each for each in entries if each.type == "table" and not each.root]


async def _rows(result: Result, compared: ComparedTable, table: Table, encoding: str) -> AsyncGenerator[str, None]:
    """Deletions first, then changes, insertions last."""
    anew = ("changed",) if table.unique else ()
    async for change in result.changes(compared, ("removed", *anew)):
        yield f"DELETE FROM {quote(table.name)} WHERE {_where(table, compared, change, encoding)}"
    if not anew:
        async for change in result.changes(compared, ("changed",)):
            if statement := _update(table, compared, change, encoding):
                yield statement
    written = [at for at, each in enumerate(table.columns) if not each.is_generated]
    names = ", ".join(quote(table.names[at]) for at in written)
    async for change in result.changes(compared, ("added", *anew)):
        values = ", ".join(_literal((change.after or ())[at], encoding) for at in written)
        yield f"INSERT INTO {quote(table.name)}({names}) VALUES ({values})"


def _update(table: Table, compared: ComparedTable, change: RowChange, encoding: str) -> str:
    """Set only what differs; empty if that is computed from other columns."""
    columns = [at for at in change.columns if not table.columns[at].is_generated]
    if not columns:
        return ""
    values = ", ".join(f"{quote(table.names[at])} = {_literal((change.after or ())[at], encoding)}" for at in columns)
    return f"UPDATE {quote(table.name)} SET {values} WHERE {_where(table, compared, change, encoding)}"


def _where(table: Table, compared: ComparedTable, change: RowChange, encoding: str) -> str:
    """A condition that only the row of the earlier state meets."""
    if change.key is not None and compared.key is not None:
        return " AND ".join(_is(name, value, encoding) for name, value in zip(compared.key, change.key, strict=True))
    if table.rowid:
        return f"{quote(table.rowid)} = {change.rowid_before}"
    names = compared.before.names if compared.before else table.names
    return " AND ".join(_is(name, value, encoding) for name, value in zip(names, change.before or (), strict=True))


def _is(name: str, value: Shown, encoding: str) -> str:
    """That a column has exactly this value. The first condition can use an index, whatever the column's collation is."""
    column, text = quote(name), _literal(value, encoding)
    match value:
        case int():
            return f"{column} IS {text} AND typeof({column}) = 'integer'"
        case float():
            return f"{column} IS {text} AND typeof({column}) = 'real'"
        case str() | InvalidText():
            return f"{column} IS {text} AND {column} IS {text} COLLATE BINARY"
    return f"{column} IS {text}"


def _literal(value: Shown, encoding: str) -> str:
    if isinstance(value, Shortened):
        raise TypeError("a patch needs whole values")
    return literal(value, encoding)
