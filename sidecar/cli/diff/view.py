"""What a person asked to see of a result, and what the exit status is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.compare.pairing import SchemaChange
from sidecar.compare.reading import KINDS, ComparedTable, Result


@dataclass(frozen=True, slots=True)
class View:
    """What to show: these `kinds` of changes, no rows with `summary`, at most `limit` rows of a table; None for all."""

    kinds: Sequence[str] = KINDS
    summary: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything in a result but the rows."""

    database: str
    meta: Mapping[str, Any]
    tables: Sequence[ComparedTable]
    schema: Sequence[SchemaChange]
    not_compared: Sequence[tuple[str, str]]
    kinds: Sequence[str]
    seconds: float

    @classmethod
    async def of(cls, result: Result, database: str, view: View, seconds: float) -> "Overview":
        """Read it."""
        meta = await result.meta()
        unknown = await result.not_compared() if meta["differing_chunks"] else []
        return cls(database, meta, await result.tables(), await result.schema_changes(), unknown, view.kinds, seconds)

    def count(self, table: ComparedTable) -> int:
        """How many rows of a table differ in the way that was asked for."""
        return sum(getattr(table, kind) for kind in self.kinds)

    @property
    def different(self) -> list[ComparedTable]:
        """The tables with such rows."""
        return [each for each in self.tables if self.count(each)]

    @property
    def is_same(self) -> bool:
        """Whether nothing differs, as far as was asked. What could not be compared is not the same."""
        return not (self.different or self.schema or self.not_compared)
