"""A result as JSON: one object a line for each change, and a summary last. Documented in `docs/json.md`."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

from sidecar.cli.diff.view import Overview, View
from sidecar.compare.reading import ComparedTable, Result, RowChange
from sidecar.compare.tables import Table
from sidecar.compare.values import Shown, to_json


async def objects(result: Result, overview: Overview, view: View) -> AsyncGenerator[str, None]:
    """The lines. They are ASCII, so that no encoding can change them."""
    for change in overview.schema:
        yield json.dumps({"type": "schema", **asdict(change)})
    if not view.summary:
        for table in overview.different:
            left = view.limit
            for kind in view.kinds:
                async for row in result.changes(table, (kind,), -1 if left is None else left):
                    left = None if left is None else left - 1
                    yield json.dumps(_row(table, row))
    yield json.dumps(_summary(overview))


def _row(table: ComparedTable, row: RowChange) -> dict[str, object]:
    key = dict(zip(table.key, map(to_json, row.key), strict=True)) if table.key and row.key else None
    return {
        "type": "row",
        "table": table.name,
        "kind": row.kind,
        "key": key,
        "columns": [table.table.names[at] for at in row.columns],
        "before": _named(table.before, row.before),
        "after": _named(table.after, row.after),
    }


def _named(table: Table | None, row: Sequence[Shown] | None) -> dict[str, object] | None:
    return None if table is None or row is None else dict(zip(table.names, map(to_json, row), strict=True))


def _summary(overview: Overview) -> dict[str, object]:
    meta = overview.meta
    return {
        "type": "summary",
        "database": overview.database,
        "before": {"state": meta["before"], "root": meta["root_before"], "encoding": meta["encoding_before"]},
        "after": {"state": meta["after"], "root": meta["root_after"], "encoding": meta["encoding_after"]},
        "same": overview.is_same,
        "tables": [_counts(each) for each in overview.tables],
        "schema_changes": len(overview.schema),
        "not_compared": [{"table": name, "reason": reason} for name, reason in overview.not_compared],
        "chunks": meta["chunks"],
        "differing_chunks": meta["differing_chunks"],
        "seconds": round(overview.seconds, 3),
    }


def _counts(table: ComparedTable) -> dict[str, object]:
    names = "name", "former", "state", "virtual", "added", "removed", "changed", "kept"
    return {name: getattr(table, name) or (0 if name in names[4:] else None) for name in names}
