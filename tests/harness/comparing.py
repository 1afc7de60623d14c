"""A comparison of two files, as the command makes it, for tests."""

import os
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio

from sidecar.compare.engine import compare
from sidecar.compare.files import opened_file
from sidecar.compare.opening import Named
from sidecar.compare.options import Options
from sidecar.compare.pairing import SchemaChange
from sidecar.compare.patch import statements
from sidecar.compare.reading import ComparedTable, RowChange, opened_result
from sidecar.compare.result import ResultWriter
from sidecar.database import default_driver


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison found. `patch` makes the later state of the earlier one."""

    tables: dict[str, ComparedTable]
    changes: dict[str, list[RowChange]]
    schema: list[SchemaChange]
    not_compared: list[tuple[str, str]]
    patch: list[str]

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many rows of each table are only in the later state, and only in the earlier one."""
        return {
            name: (each.added + each.changed, each.removed + each.changed)
            for name, each in self.tables.items()
            if each.differs
        }


def compare_files(before: Path, after: Path, options: Options | None = None) -> Outcome:
    """Compare two files, and read the whole result."""
    result = before.with_name(f"{before.name}-{os.getpid()}.result")
    result.unlink(missing_ok=True)
    driver = default_driver()
    with ExitStack() as stack:
        states = [stack.enter_context(opened_file(path)) for path in (before, after)]
        writer = ResultWriter(driver, result, keep=None, whole_values=True)
        one, other = (
            Named(str(path), state, state.learn_digests()) for path, state in zip((before, after), states, strict=True)
        )
        try:
            compare(driver, one, other, writer, options or Options(), before.parent, lambda _done, _total: None)
            writer.finish()
        finally:
            writer.close()
    try:
        return anyio.run(_read, result)
    finally:
        result.unlink()


async def _read(path: Path) -> Outcome:
    async with opened_result(default_driver(), path) as result:
        tables = await result.tables()
        changes = {}
        for table in tables:
            async with aclosing(result.changes(table)) as found:
                changes[table.name] = [each async for each in found]
        patch = [each async for each in statements(result)]
        return Outcome(
            {each.name: each for each in tables},
            changes,
            await result.schema_changes(),
            await result.not_compared(),
            patch,
        )
