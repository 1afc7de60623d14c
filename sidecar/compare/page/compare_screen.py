"""The second screen: what changed between two states, table by table, row by row."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.compare.lookup import text_of_key
from sidecar.compare.page.values import Field, fields_of
from sidecar.compare.pairing import SchemaChange
from sidecar.compare.reading import KINDS, ComparedTable, Result, RowChange, Wanted
from sidecar.compare.values import InvalidText, Shortened

PAGE_ROWS = 50
_NUMBER = re.compile(r"\d{1,18}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for. Whatever makes no sense is left out."""

    table: str = ""
    kinds: tuple[str, ...] = KINDS
    text: str = ""
    column: str = ""
    page: int = 1
    everything: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], kinds: Sequence[str]) -> "Asked":
        """Read it."""
        number = query.get("page", "1")
        return cls(
            query.get("table", ""),
            tuple(each for each in KINDS if each in kinds) or KINDS,
            query.get("q", "").encode("utf-8", "replace").decode(),
            query.get("column", ""),
            max(1, int(number)) if _NUMBER.fullmatch(number) else 1,
            query.get("all") == "1",
        )


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row that differs. `link` is its key for the screen of its life; None if it has none."""

    change: RowChange
    fields: Sequence[Field]
    link: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one page. `found` is how many are wanted in all, `kept` how many of the table were kept."""

    rows: Sequence[ShownRow]
    found: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything in a result but its rows."""

    meta: Mapping[str, Any]
    tables: Sequence[ComparedTable]
    schema: Sequence[SchemaChange]
    not_compared: Sequence[tuple[str, str]]

    @classmethod
    async def of(cls, result: Result) -> "Overview":
        """Read it."""
        meta = await result.meta()
        missing = await result.not_compared() if meta["differing_chunks"] else []
        return cls(meta, await result.tables(), await result.schema_changes(), missing)

    @property
    def different(self) -> list[ComparedTable]:
        """The app's own tables that differ, those with most changes first."""
        found = [each for each in self.tables if each.differs and not _is_inner(each)]
        return sorted(found, key=lambda each: (-(each.added + each.removed + each.changed), each.name))

    @property
    def inner(self) -> list[ComparedTable]:
        """Tables that differ in which SQLite or a virtual table keeps something."""
        return [each for each in self.tables if each.differs and _is_inner(each)]

    @property
    def same(self) -> list[ComparedTable]:
        """The app's own tables that are the same."""
        return [each for each in self.tables if not each.differs and not _is_inner(each)]

    def table(self, name: str) -> ComparedTable | None:
        """A table that differs, by default the one with most changes."""
        found = [*self.different, *self.inner]
        return next((each for each in found if each.name == name), found[0] if found else None)

    def total(self, kind: str) -> int:
        """How many rows of all the app's tables were added, removed or changed."""
        return sum(getattr(each, kind) for each in self.different)


async def rows_of(result: Result, table: ComparedTable, asked: Asked) -> Rows:
    """The rows of one page; the last page, if there are not so many."""
    names = table.table.names
    column = names.index(asked.column) if asked.column in names else None
    wanted = Wanted(asked.kinds, asked.text, column)
    found = await result.count_found(table, wanted)
    pages = max(1, -(-found // PAGE_ROWS))
    page = min(asked.page, pages)
    changes = await result.found(table, wanted, (page - 1) * PAGE_ROWS, PAGE_ROWS)
    shown = [
        ShownRow(each, fields_of(table, each, everything=asked.everything), _link(table, each)) for each in changes
    ]
    return Rows(shown, found, page, pages)


def _link(table: ComparedTable, change: RowChange) -> str | None:
    if not change.key or table.key != table.table.key_names or _is_inner(table):
        return None
    values = [each for each in change.key if not isinstance(each, Shortened)]
    return text_of_key(values) if len(values) == len(change.key) and InvalidText not in map(type, values) else None


def _is_inner(table: ComparedTable) -> bool:
    return bool(table.virtual) or table.name.startswith("sqlite_")
