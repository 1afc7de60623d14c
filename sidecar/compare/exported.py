"""The rows of one state for the library: read in threads, a few at a time."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from anyio import to_thread

from sidecar.compare.export import chosen_tables, rows_of, sql
from sidecar.compare.opening import Opened
from sidecar.compare.values import Value

T = TypeVar("T")
_BATCH, _BATCH_BYTES = 200, 1 << 20  # rows or statements that are made together: one may be as large as memory allows


class ExportedState:
    """A state whose rows can be iterated over."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, shadow tables included."""
        return tuple(self._opened.schema.tables)

    async def rows(self, table: str) -> AsyncGenerator[Mapping[str, Value], None]:
        """The rows of a table as they are stored, in the order of their rowids or keys. Raises `UsageError`."""
        (chosen,) = chosen_tables(self._opened, (table,))
        async for row in in_threads(rows_of(self._opened, chosen)):
            yield dict(zip(chosen.names, row, strict=True))

    async def sql(self, *tables: str) -> AsyncGenerator[str, None]:
        """The statements that make the database anew, or these tables. Raises `UsageError`."""
        async for statement in in_threads(sql(self._opened, tables)):
            yield statement


def _weight(item: object) -> int:
    """About how many bytes a statement or a row needs."""
    return sum(len(each) for each in (item if isinstance(item, tuple) else (item,)) if isinstance(each, str | bytes))


async def in_threads(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """The items, which are made in threads."""

    def batch() -> Sequence[T]:
        found, size = list[T](), 0
        for item in islice(items, _BATCH):
            found.append(item)
            size += _weight(item)
            if size > _BATCH_BYTES:
                break
        return found

    while found := await to_thread.run_sync(batch):
        for each in found:
            yield each
