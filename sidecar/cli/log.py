"""`sidecar log`: restore points with what changed from one to the next, or the versions of one row.

Its JSON is documented in `docs/json.md`; fields are only added to it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.compare.counts import Counts, CountsCache
from sidecar.compare.display import format_change, format_value, visible
from sidecar.compare.life import Seen, Step, Version
from sidecar.compare.values import to_json
from sidecar.errors import ExitCode, NothingToRestore, SidecarError, UsageError
from sidecar.progress import progress_bar
from sidecar.settings import Configuration
from sidecar.states import LIVE
from sidecar.states.timeline import Timeline
from sidecar.units import format_size

DEFAULT_LIMIT = 20
SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line, as they were given."""

    table: str | None
    row: str | None
    limit: int | None
    as_json: bool


async def log(configuration: Configuration, *, asked: Asked) -> int:
    """Show the newest restore points of one database, newest first, or the versions of a row in all of them."""
    if asked.row is not None and asked.table is None:
        raise UsageError("--row needs --table", "name the table of the row")
    if asked.limit is not None and asked.limit < 0:
        raise UsageError(f"--limit {asked.limit} is negative", "0 shows all restore points")
    async with attended(configuration) as services:
        if len(services.databases) > 1:
            raise UsageError("the log is of one database", "name it with --database")
        timeline = Timeline(services, services.databases[0], CountsCache(cache_directory()))
        if asked.table is not None and asked.row is not None:
            await _show_row(timeline, asked.table, asked.row, asked)
        else:
            await _show_points(timeline, asked)
    return ExitCode.OK


def cache_directory() -> Path | None:
    """Where counts are kept for the next time: https://specifications.freedesktop.org/basedir-spec/latest/"""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:  # this user has no home
        return None
    return Path(base, "sidecar", "changes") if base.startswith("/") else None


async def _show_points(timeline: Timeline, asked: Asked) -> None:
    points = await timeline.points()
    limit = (DEFAULT_LIMIT if asked.limit is None else asked.limit) or len(points)
    found = await timeline.stretch(points, 0, limit)
    if not found.entries and not timeline.has_live:
        raise NothingToRestore(
            f"there is neither a restore point nor a live database of {timeline.database.name}",
            "check the name and `store`",
        )
    keys = [each.point.key for each in found.entries] + ([found.before.point.key] if found.before else [])
    newer = [LIVE] * timeline.has_live + [each.point.key for each in found.entries]
    sizes = {each.point.key: each.database_size for each in found.entries}
    if not asked.as_json:
        _say_heading(timeline, len(found.entries), found.total)
    silent = True
    for name in newer:
        after = keys[0] if name == LIVE and keys else None
        older = after if name == LIVE else next(iter(keys[keys.index(name) + 1 :]), None)
        counts, problem = await _counted(timeline, older, name)
        if asked.table is not None and counts is not None:
            counts = counts.of(asked.table)
            if counts.is_same:
                continue
        silent = silent and counts is None and not problem
        if asked.as_json:
            say(json.dumps(_point(name, older, sizes.get(name), counts, problem)))
        else:
            _say_point(name, sizes.get(name), counts, problem, len(keys[0]) if keys else 0)
    if silent and asked.table is not None and keys:
        await timeline.require_table(asked.table, keys[0])
        if not asked.as_json:
            say(f"no row of {visible(asked.table)} changed")


async def _counted(timeline: Timeline, older: str | None, newer: str) -> tuple[Counts | None, str]:
    """What changed, or why that is not known."""
    if older is None:
        return None, ""
    try:
        return await timeline.counts(older, newer, progress_bar), ""
    except SidecarError as error:
        if error.exit_code != ExitCode.DAMAGED:
            raise
        return None, error.message


def _say_heading(timeline: Timeline, shown: int, total: int) -> None:
    part = "" if shown >= total else f", the newest {shown} are shown; --limit 0 shows all"
    points = "1 restore point" if total == 1 else f"{total:,} restore points"
    say(f"{visible(timeline.database.name)}   {points}{part}")


def _say_point(name: str, size: int | None, counts: Counts | None, problem: str, width: int) -> None:
    changed = format_counts(counts) if counts else visible(problem) or "the oldest one"
    shown = "" if size is None else format_size(size)
    say(f"{name.ljust(width)}  {shown:>10}  {changed}".rstrip())


def format_counts(counts: Counts) -> str:
    """Like `orders +12 -3 ~41, customers ~1, schema ~1`."""
    parts = []
    for table in counts.tables:
        signs = [
            f"{sign}{number:,}"
            for sign, number in (("+", table.added), ("-", table.removed), ("~", table.changed))
            if number
        ]
        state = "" if table.state == "both" else f" ({table.state})"
        parts.append(" ".join([f"{visible(table.name)}{state}", *signs]))
    parts += [f"schema ~{counts.schema_changes}"] if counts.schema_changes else []
    parts += [f"not compared: {visible(', '.join(counts.not_compared))}"] if counts.not_compared else []
    return ", ".join(parts) or "nothing"


def _point(name: str, older: str | None, size: int | None, counts: Counts | None, problem: str) -> dict[str, object]:
    changes = None if counts is None else counts.as_dict()
    return {
        "type": "point",
        "state": name,
        "since": older,
        "database_size": size,
        "changes": changes,
        "problem": problem or None,
    }


async def _show_row(timeline: Timeline, table: str, row: str, asked: Asked) -> None:
    points = await timeline.points()
    if asked.limit:
        points = points[: asked.limit]
    found, steps = 0, 0
    with progress_bar("look") as progress:
        async with aclosing(timeline.versions(table, row, points)) as versions:
            async for step in versions:
                if not steps and not asked.as_json:
                    say(f"{visible(table)} {visible(row)}   in {visible(timeline.database.name)}, newest first")
                steps = step.total
                progress(step.done, step.total)
                found += step.version is not None
                for line in _objects(step) if asked.as_json else _lines(step):
                    say(line)
    requests, received = timeline.cost
    if asked.as_json:
        say(
            json.dumps({"type": "summary", "states": steps, "versions": found, "requests": requests, "bytes": received})
        )
    else:
        states = "1 state" if steps == 1 else f"{steps} states"
        changes = "1 change" if found == 1 else f"{found} changes"
        say(
            f"{changes} in {states}; {'1 request' if requests == 1 else f'{requests} requests'}, {format_size(received)}"
        )


def _lines(step: Step) -> Iterator[str]:
    if step.problem:
        yield f"  not read: {visible(step.problem)}"
    if version := step.version:
        yield f"{SIGNS[version.kind]} between {version.before.name} and {version.after.name}"
        yield from _values(version)
    if step.oldest:
        yield f"  {step.oldest.name}, the oldest state:{'' if step.oldest.row is not None else ' no such row'}"
        yield from _whole(step.oldest)


def _values(version: Version) -> Iterator[str]:
    if version.kind != "changed":
        yield from _whole(version.after if version.kind == "added" else version.before)
    width = max((len(visible(each.column)) for each in version.values), default=0)
    for each in version.values:
        was, now, note = format_change(each.before, each.after)
        yield f"    {visible(each.column).ljust(width)}   {was}  ->  {now}{f'   {note}' if note else ''}"


def _whole(seen: Seen) -> Iterator[str]:
    if seen.table is None or seen.row is None:
        return
    width = max(len(visible(each)) for each in seen.table.names)
    for name, value in zip(seen.table.names, seen.row, strict=True):
        yield f"    {visible(name).ljust(width)}   {format_value(value)}"


def _objects(step: Step) -> Iterator[str]:
    if step.problem:
        yield json.dumps({"type": "problem", "problem": step.problem})
    if version := step.version:
        columns = [each.column for each in version.values]
        shown = {"between": [version.before.name, version.after.name], "columns": columns}
        yield json.dumps(
            {
                "type": "version",
                "kind": version.kind,
                **shown,
                "before": _named(version.before),
                "after": _named(version.after),
            }
        )
    if step.oldest:
        yield json.dumps({"type": "oldest", "state": step.oldest.name, "row": _named(step.oldest)})


def _named(seen: Seen) -> dict[str, object] | None:
    if seen.table is None or seen.row is None:
        return None
    return dict(zip(seen.table.names, map(to_json, seen.row), strict=True))
