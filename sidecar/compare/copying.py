"""A table of an earlier state under another name, as a record: its columns and rows, without anything that binds others."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from sidecar.compare.export import chosen_tables, rows_of
from sidecar.compare.opening import Opened
from sidecar.compare.record import FORMAT, plain_definition
from sidecar.compare.result import Compared, ResultWriter
from sidecar.compare.rows import Change
from sidecar.compare.tables import Table
from sidecar.database import Driver
from sidecar.errors import UsageError

_TICK_EVERY = 500  # rows


def write_copy(
    driver: Driver, state: Opened, live: Opened, table: str, name: str, path: Path, tick: Callable[[], None]
) -> None:
    """Write the record that makes the table `name` in the live database. Raises `UsageError` if something is named so."""
    if any(each.name.lower() == name.lower() for each in live.entries) or name.lower().startswith("sqlite_"):
        raise UsageError(f"there is something named {name}, or the name is SQLite's own", "choose another name")
    (source,) = chosen_tables(state, (table,))
    made = _plain(source, name)

    def changes() -> Iterator[Change]:
        for number, row in enumerate(rows_of(state, source), 1):
            if not number % _TICK_EVERY:
                tick()
            yield Change("added", None, None, row, rowid_after=number)

    with driver.translated(path), closing(ResultWriter(driver, path, keep=None, whole_values=True)) as writer:
        writer.meta(
            record=FORMAT, before="live", after=state.named.name, encoding_before=live.image.header.encoding, triggers=0
        )
        writer.schema(live.entries, 0)
        writer.table(Compared(name, "added", "whole", None, made, None, {}), changes())
        writer.finish()


def _plain(table: Table, name: str) -> Table:
    columns = tuple(replace(each, not_null=False, default=None, is_generated=False) for each in table.columns)
    hidden = {each.name.lower() for each in columns}
    rowid = next((each for each in ("rowid", "_rowid_", "oid") if each not in hidden), None)
    return Table(
        name,
        0,
        plain_definition(table, name),
        columns,
        tuple(range(len(columns))),
        (),
        None,
        without_rowid=False,
        collations=(),
        rowid=rowid,
        unique=False,
    )
