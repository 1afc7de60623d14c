"""A result for people: the summary first, then rows, with signs that need no colour."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

import click

from sidecar.cli.diff.view import Overview, View
from sidecar.compare.display import NEW_COLUMN, format_change, format_value, visible
from sidecar.compare.pairing import SchemaChange
from sidecar.compare.reading import KINDS, ComparedTable, Result, RowChange
from sidecar.compare.schema import SEQUENCE
from sidecar.compare.tables import Table
from sidecar.compare.values import Shown

SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": "~"}
_COLOURS = {"+": "green", "-": "red", "~": "yellow"}


@dataclass(frozen=True, slots=True)
class Style:
    """How wide lines may be, in characters, and whether they may have colour."""

    width: int = 120
    colour: bool = False

    def sign(self, kind: str) -> str:
        """The sign of a kind of change."""
        return self.painted(kind, SIGNS[kind])

    def painted(self, kind: str, text: str) -> str:
        """Text in the colour of a kind of change."""
        return click.style(text, fg=_COLOURS[SIGNS[kind]]) if self.colour else text

    def bold(self, text: str) -> str:
        """A heading."""
        return click.style(text, bold=True) if self.colour else text


async def lines(result: Result, overview: Overview, view: View, style: Style) -> AsyncGenerator[str, None]:
    """All lines, without their ends."""
    for line in _summary(overview, style):
        yield line
    if view.summary:
        return
    for table in overview.different:
        if (table.virtual or table.name == SEQUENCE) and len(overview.tables) > 1:
            continue  # of interest only to who asks for it
        yield ""
        yield _heading(table, overview.count(table), view, style)
        left = view.limit
        for kind in view.kinds:
            async for change in result.changes(table, (kind,), -1 if left is None else left):
                left = None if left is None else left - 1
                for line in _row(table, change, style):
                    yield line


def _summary(overview: Overview, style: Style) -> Iterator[str]:
    meta = overview.meta
    read = f"compared {meta['differing_chunks']:,} of {meta['chunks']:,} chunks in {overview.seconds:.1f} s"
    yield style.bold(
        f"{visible(overview.database)}   {visible(meta['before'])}  ->  {visible(meta['after'])}   ({read})"
    )
    if meta["encoding_before"] != meta["encoding_after"] and overview.tables:
        yield f"encoding  {meta['encoding_before']} -> {meta['encoding_after']}"
    for change in overview.schema:
        yield f"schema   {style.sign(change.kind)} {visible(format_schema_change(change))}"
    yield from _counts(overview, style)
    for name, reason in overview.not_compared:
        yield f"not compared: {visible(name)}: {visible(reason)}"
    yield total(overview)


def total(overview: Overview) -> str:
    """A sentence: how many tables differ."""
    different = len({each.virtual or each.name for each in overview.different})
    tables = len({each.virtual or each.name for each in overview.tables})
    missing = len(overview.not_compared)
    left = f", {missing} {'was' if missing == 1 else 'were'} not compared" if missing else ""
    if len(overview.kinds) < len(KINDS):  # the others may differ as well, in a way that was not asked for
        what = " or ".join(overview.kinds)
        rows = (
            f"Rows were {what} in {different} of {_tables(tables)}"
            if different
            else f"No row was {what} in {_tables(tables)}"
        )
        return f"{rows}{left}."
    if not different:
        return f"No row differs in {_tables(tables)}{left}."
    same = tables - different
    others = f", {same} {'is' if same == 1 else 'are'} the same" if same else ""
    return f"{_tables(different)} {'differs' if different == 1 else 'differ'}{others}{left}."


def _tables(count: int) -> str:
    return "1 table" if count == 1 else f"{count} tables"


def _counts(overview: Overview, style: Style) -> Iterator[str]:
    """One line a table. The tables in which a virtual table stores its content are one line together."""
    counted: dict[str, list[int]] = {}
    for table in overview.different:
        name = f"{table.virtual} (virtual table)" if table.virtual else table.name
        if table.state != "both" and not table.virtual:
            name += f" ({table.state})"
        found = counted.setdefault(visible(name), [0, 0, 0])
        for at, count in enumerate((table.added, table.removed, table.changed)):
            found[at] += count
    width = max(map(len, counted), default=0)
    for name, numbers in counted.items():
        cells = [
            style.painted(kind, f"{SIGNS[kind]}{number:,}".rjust(9)) if number and kind in overview.kinds else " " * 9
            for kind, number in zip(("added", "removed", "changed"), numbers, strict=True)
        ]
        yield f"{name.ljust(width)} {''.join(cells)}".rstrip()


def format_schema_change(change: SchemaChange) -> str:
    """Like `orders: column note added: TEXT (default NULL)`."""
    what = f"{change.object} {change.name}"
    where = "" if change.table == change.name else f"{change.table}: "
    return f"{where}{what} {change.kind}{f': {change.detail}' if change.detail else ''}"


def _heading(table: ComparedTable, count: int, view: View, style: Style) -> str:
    key = f"   key {', '.join(table.key)}" if table.key else "   no key: rows are compared as a whole"
    most = min(count, table.kept, count if view.limit is None else view.limit)
    hint = "--all" if most == table.kept else "--limit 0"
    first = f"   [first {most:,} of {count:,}; {hint} shows more]" if most < count else ""
    return style.bold(visible(f"{table.name}{key}{first}"))


def _row(table: ComparedTable, change: RowChange, style: Style) -> Iterator[str]:
    sign, key = style.sign(change.kind), _key(change)
    start = f"{sign} {key}   " if key else f"{sign} "
    if change.kind != "changed":
        side = table.after if change.after is not None else table.before
        yield start + _whole(side, change.after or change.before or (), table.key or (), style.width - len(key) - 5)
        return
    after, before = table.after, table.before
    if after is None or before is None or change.after is None or change.before is None:
        return
    indent = " " * (len(key) + 5 if key else 2)
    names = [visible(after.names[at]) for at in change.columns]
    width = max(map(len, names))
    old = dict(zip(before.names, change.before, strict=True))
    for number, at in enumerate(change.columns):
        was = old[after.names[at]] if after.names[at] in old else after.columns[at].default
        one, other, note = format_change(was, change.after[at])
        if after.names[at] not in old:
            one, note = NEW_COLUMN, ""
        line = f"{names[number].ljust(width)}   {style.painted('removed', one)}  ->  {style.painted('added', other)}"
        yield f"{start if not number else indent}{line}{f'   {note}' if note else ''}"


def _key(change: RowChange) -> str:
    """The key; of a row that changed and has none, its hidden rowid."""
    if change.key:
        return ", ".join(map(format_value, change.key))
    return f"rowid {change.rowid_after}" if change.kind == "changed" and change.rowid_after is not None else ""


def _whole(table: Table | None, row: Sequence[Shown], key: Sequence[str], width: int) -> str:
    """As many columns as fit on a line, at least one."""
    if table is None:
        return ""
    parts = [
        f"{visible(name)} {format_value(value)}"
        for name, value in zip(table.names, row, strict=True)
        if name not in key
    ]
    shown, used = 0, 0
    for part in parts:
        used += len(part) + 3
        if shown and used > width - 20:
            break
        shown += 1
    left = len(parts) - shown
    more = f"   … {left} more {'column' if left == 1 else 'columns'}" if left else ""
    return "   ".join(parts[:shown]) + more
