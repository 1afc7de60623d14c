"""A difference as SQL: one transaction that makes the later state of the earlier one.

Triggers are dropped and put back in their order, so that none fires. Where something other than the primary key is unique,
changed rows are deleted first and inserted in the end, because their values may have been swapped. So they are where the
table has another definition: what the earlier rows were need not fit into it. Hidden rowids are not part of a state. A
virtual table is made by its module, and what it stores is written into its shadow tables.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence

from sidecar.compare.pairing import is_same_but_name
from sidecar.compare.patch_schema import Plan
from sidecar.compare.reading import ComparedTable, Result, RowChange
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.tables import Table
from sidecar.compare.values import InvalidText, Shortened, Shown, literal
from sidecar.errors import UsageError


async def statements(result: Result) -> AsyncGenerator[str, None]:
    """The statements, without semicolons. The result must have all rows, and whole values.

    What was not compared stays as it is. So does, if only some tables were, whatever does not belong to them.
    """
    tables, meta = await result.tables(), await result.meta()
    encoding = str(meta["encoding_before"])
    entries = await result.schema(0), await result.schema(1)
    plan = Plan.of(*entries, tables, await result.not_compared(), everything=not meta["chosen"])
    yield "PRAGMA foreign_keys = OFF"
    yield "PRAGMA ignore_check_constraints = ON"  # a check may have been added later than a row
    yield "BEGIN IMMEDIATE"
    for statement in (*plan.drops(), *plan.creates()):
        yield statement
    async for statement in _tables(result, tables, plan, encoding):
        yield statement
    for statement in plan.puts_back():
        yield statement
    async for statement in _sequences(result, plan, encoding):
        yield statement
    for change in await result.schema_changes():
        if change.object == "number":
            yield f"PRAGMA {change.name} = {meta[change.name]}"
    yield "COMMIT"
    yield "PRAGMA ignore_check_constraints = OFF"


async def _tables(
    result: Result, tables: Sequence[ComparedTable], plan: Plan, encoding: str
) -> AsyncGenerator[str, None]:
    yield "PRAGMA legacy_alter_table = ON"
    for table in tables:
        async for statement in _redefine(result, table, plan, encoding):
            yield statement
    yield "PRAGMA legacy_alter_table = OFF"
    for table in tables:
        if table.after is not None and table.name != SEQUENCE and table.differs:
            async for statement in _rows(result, table, table.after, encoding):
                yield statement


async def _sequences(result: Result, plan: Plan, encoding: str) -> AsyncGenerator[str, None]:
    if not plan.has_sequence:
        return
    numbers = [(name, number) for name, number in await result.sequence() if plan.has_sequence_of(name)]
    names = ", ".join(literal(name, encoding) for name in plan.sequences)
    where = "" if plan.everything else f" WHERE name IN ({names})"
    yield f"DELETE FROM {SEQUENCE}{where}"
    for name, number in numbers:
        yield f"INSERT INTO {SEQUENCE} VALUES ({_literal(name, encoding)}, {_literal(number, encoding)})"


async def _redefine(result: Result, compared: ComparedTable, plan: Plan, encoding: str) -> AsyncGenerator[str, None]:
    """Rename a table, or rebuild one with another definition (https://sqlite.org/lang_altertable.html, section 7)."""
    before, after = compared.before, compared.after
    if before is None or after is None or compared.name == SEQUENCE:
        return
    if compared.former and is_same_but_name(before, after):
        between = plan.free_name(after.name) if before.name.lower() == after.name.lower() else after.name
        yield f"ALTER TABLE {quote(before.name)} RENAME TO {quote(between)}"
        if between != after.name:
            yield f"ALTER TABLE {quote(between)} RENAME TO {quote(after.name)}"
    elif _is_rebuilt(compared):  # also one that was renamed and got columns
        async for statement in _rebuild(result, compared, plan.free_name(after.name), encoding):
            yield statement


async def _rebuild(result: Result, compared: ComparedTable, old: str, encoding: str) -> AsyncGenerator[str, None]:
    """Make the table anew, of the rows that are the same in both."""
    before, after = compared.before, compared.after
    if before is None or after is None:
        return
    former = {name: compared.old_names.get(name, name) for name in before.names}
    yield f"ALTER TABLE {quote(before.name)} RENAME TO {quote(old)}"
    async for change in result.changes(compared, ("removed", "changed")):
        yield f"DELETE FROM {quote(old)} WHERE {_where(before, former, change, encoding)}"
    yield after.sql
    written = [each for each in after.columns if not each.is_generated]
    common = [each for each in written if each.name in before.names]
    new = [each for each in written if each.name not in before.names]
    values = {each.name: quote(former[each.name]) for each in common}
    values |= {each.name: _literal(each.default, encoding) for each in new}
    if before.rowid and after.rowid and after.rowid not in before.names:  # a search index may know rows by it
        values[after.rowid] = quote(former.get(before.rowid, before.rowid))
    into, taken = ", ".join(map(quote, values)), ", ".join(values.values())
    yield f"INSERT INTO {quote(after.name)}({into}) SELECT {taken} FROM {quote(old)}"
    yield f"DROP TABLE {quote(old)}"


def _is_rebuilt(compared: ComparedTable) -> bool:
    before, after = compared.before, compared.after
    if before is None or after is None or before.sql == after.sql:
        return False
    return not (compared.former and is_same_but_name(before, after))


async def _rows(result: Result, compared: ComparedTable, table: Table, encoding: str) -> AsyncGenerator[str, None]:
    """Deletions first, then changes, insertions last. From a table that was rebuilt, rows were deleted."""
    before, is_rebuilt = compared.before, _is_rebuilt(compared)
    others = before is not None and compared.key not in {
        None,
        before.key_names,
    }  # keys of rows may have been swapped, too
    anew = ("changed",) if table.unique or others or is_rebuilt else ()
    if before is not None and not is_rebuilt:
        async for change in result.changes(compared, ("removed", *anew)):
            yield f"DELETE FROM {quote(table.name)} WHERE {_where(before, {}, change, encoding)}"
        if not anew:
            async for change in result.changes(compared, ("changed",)):
                if statement := _update(table, before, change, encoding):
                    yield statement
    written = [at for at, each in enumerate(table.columns) if not each.is_generated]
    names = ", ".join(quote(table.names[at]) for at in written)
    async for change in result.changes(compared, ("added", *anew)):
        values = ", ".join(_literal((change.after or ())[at], encoding) for at in written)
        yield f"INSERT INTO {quote(table.name)}({names}) VALUES ({values})"


def _update(table: Table, before: Table, change: RowChange, encoding: str) -> str:
    sets = [
        f"{quote(table.names[at])} = {_literal((change.after or ())[at], encoding)}"
        for at in change.columns
        if not table.columns[at].is_generated
    ]
    where = _where(before, {}, change, encoding)
    return f"UPDATE {quote(table.name)} SET {', '.join(sets)} WHERE {where}" if sets else ""


def _where(before: Table, former: Mapping[str, str], change: RowChange, encoding: str) -> str:
    """A condition that only the row of the earlier state meets. `former` are names of columns that are others by now.

    It is known by its primary key, whatever key a person has chosen to match rows by: only that is surely unique.
    """
    row = change.before or ()
    key = [(before.names[at], row[at]) for at in before.key]
    if not key or any(value is None for _, value in key):
        if before.rowid:
            return f"{quote(former.get(before.rowid, before.rowid))} = {change.rowid_before}"
        if not before.without_rowid:
            raise UsageError(
                f"{before.name} has columns named rowid, oid and _rowid_, so SQL cannot name one of several equal rows",
                "name the other tables",
            )
        key = list(zip(before.names, row, strict=True))
    return " AND ".join(_is(former.get(name, name), value, encoding) for name, value in key)


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
