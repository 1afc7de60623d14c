"""What happened to one row between two states, and the row as one state has it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.compare.lookup import find_row
from sidecar.compare.opening import Opened
from sidecar.compare.rows import differences
from sidecar.compare.tables import Pair, Table
from sidecar.compare.values import Row, Value

KeyOf = Callable[[Table], Row]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row as the state `name` has it. `table` and `row` are None if there is none."""

    name: str
    table: Table | None = None
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """A value of a row that changed."""

    column: str
    before: Value
    after: Value


@dataclass(frozen=True, slots=True)
class Version:
    """A row was added, removed or changed between two states. `values` are those that a changed row has other ones of."""

    kind: str
    before: Seen
    after: Seen
    values: tuple[ChangedValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A state in which a row was looked for, `done` of `total`. `problem` says why it could not be looked at.

    `version` is what happened between it and the state after it. The last step has the row as the `oldest` state has it.
    """

    done: int
    total: int
    version: Version | None = None
    problem: str = ""
    oldest: Seen | None = None


def see(opened: Opened, table: str, key_of: KeyOf) -> Seen:
    """Find a row. Raises `Malformed`, what `key_of` raises for the table, and what reading the state raises."""
    name, found = opened.named.name, opened.schema.tables.get(table)
    if found is None:
        return Seen(name)
    return Seen(name, found, find_row(opened.image, opened.entries, found, key_of(found)))


def version_between(before: Seen, after: Seen) -> Version | None:
    """What happened to the row between two states; None if nothing did."""
    if before.row is None or after.row is None:
        kind = "removed" if before.row is not None else "added"
        return None if before.row is after.row else Version(kind, before, after)
    assert before.table is not None  # noqa: S101 - the row has one
    assert after.table is not None  # noqa: S101 - the same
    was = Pair(before.table, after.table).as_after()(before.row)
    values = tuple(
        ChangedValue(after.table.names[at], was[at], after.row[at]) for at in differences(was, after.row, frozenset())
    )
    return Version("changed", before, after, values) if values else None
