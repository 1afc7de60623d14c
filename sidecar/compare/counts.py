"""How many rows of which tables differ between two restore points: kept by their root digests, so that it is learned once.

Names of tables and numbers are kept, and nothing of what is in the rows.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sidecar.compare.reading import Result
from sidecar.repository import Entry

MOST_KEPT = 5000  # files of about 300 bytes
_FORMAT = 1  # raised when the same states would be counted otherwise


@dataclass(frozen=True, slots=True)
class TableCounts:
    """A table that differs. `state` says whether it is in both states, was added or was removed."""

    name: str
    state: str = "both"
    added: int = 0
    removed: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What differs between two states: tables with rows that do, the number of schema changes, and what was not compared."""

    tables: tuple[TableCounts, ...] = ()
    schema_changes: int = 0
    not_compared: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether nothing differs. What could not be compared is not the same."""
        return not (self.tables or self.schema_changes or self.not_compared)

    @property
    def removed(self) -> int:
        """How many rows are gone, in all tables."""
        return sum(each.removed for each in self.tables)

    @property
    def rows(self) -> int:
        """How many rows differ, in all tables."""
        return sum(each.added + each.removed + each.changed for each in self.tables)

    def of(self, table: str) -> "Counts":
        """What differs in one table."""
        return Counts(
            tuple(each for each in self.tables if each.name == table),
            0,
            tuple(each for each in self.not_compared if each == table),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "tables": [asdict(each) for each in self.tables]}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Counts":
        """The inverse of `as_dict`. Raises KeyError, TypeError."""
        tables = tuple(TableCounts(**each) for each in values["tables"])
        return cls(tables, int(values["schema_changes"]), tuple(values["not_compared"]))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the restore points, newest first, of `total` in the store; `before` is the one before the last of them."""

    entries: tuple[Entry, ...]
    before: Entry | None
    total: int


async def counts_of(result: Result) -> Counts:
    """The counts of a finished comparison; tables in which a virtual table stores its content are not among them."""
    tables = [
        TableCounts(each.name, each.state, each.added, each.removed, each.changed)
        for each in await result.tables()
        if (each.differs or each.state != "both") and not each.virtual and not each.name.startswith("sqlite_")
    ]
    meta = await result.meta()
    missing = [name for name, _ in await result.not_compared()] if meta["differing_chunks"] else []
    return Counts(tuple(tables), len(await result.schema_changes()), tuple(missing))


class CountsCache:
    """Keeps counts in a private directory. What cannot be kept is counted again the next time."""

    def __init__(self, directory: Path | None) -> None:
        """Without a `directory` nothing is kept."""
        self._directory = directory
        if directory is not None:
            with suppress(OSError):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _forget_oldest(directory)

    def load(self, before: str, after: str) -> Counts | None:
        """The counts between states with these root digests, if they are known."""
        if self._directory is None:
            return None
        try:
            return Counts.of_dict(json.loads(self._path(before, after).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, before: str, after: str, counts: Counts) -> None:
        """Keep them."""
        if self._directory is None:
            return
        with suppress(OSError):
            handle, name = tempfile.mkstemp(dir=self._directory)
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(counts.as_dict(), file)
                os.replace(name, self._path(before, after))
            except OSError:
                os.unlink(name)

    def _path(self, before: str, after: str) -> Path:
        assert self._directory is not None  # noqa: S101 - asked before
        return self._directory / f"{before[:32]}-{after[:32]}.{_FORMAT}.json"


def _forget_oldest(directory: Path) -> None:
    files: Sequence[os.DirEntry[str]] = [each for each in os.scandir(directory) if each.is_file()]
    if len(files) > MOST_KEPT:
        for each in sorted(files, key=lambda entry: entry.stat().st_mtime)[: MOST_KEPT // 5]:
            os.unlink(each.path)
