"""`sidecar list`: the restore points of the store."""

import json

from sidecar.cli.output import Table, say
from sidecar.cli.session import attended
from sidecar.cli.status import _UNKNOWN, _duration, _place, _size
from sidecar.errors import ExitCode
from sidecar.repository.catalog import OTHERS, only
from sidecar.repository.inventory import Entry, age_of, described
from sidecar.settings.configuration import Configuration
from sidecar.units import format_size


async def list_points(configuration: Configuration, *, as_json: bool, diverged: bool) -> int:
    """Every restore point of every database, oldest first."""
    async with attended(configuration) as parts:
        replica = parts.replica()
        found: dict[str, list[Entry]] = {}
        for each in parts.databases:
            points = [point async for point in replica.points(each.name, diverged=diverged)]
            found[each.name] = await described(replica, points)
        store, now = parts.store.url, await parts.store.now()
        others = only(await replica.names(OTHERS)) if not (diverged or any(found.values())) else ""
    if as_json:
        shown = [
            {"name": name, "restore_points": [entry.as_dict(now) for entry in entries]}
            for name, entries in found.items()
        ]
        say(json.dumps({"store": store, "databases": shown}, indent=2))
        return ExitCode.OK
    table = Table("DATABASE", "TIME", "AGE", "SIZE", "UPLOADED", "REUSED", "HOLDER", "TIER", "DRILL", "KEY")
    for name, entries in found.items():
        for entry in entries:
            age = _duration(age_of(entry.point, now))
            table.add(name, str(entry.point.timestamp), age, *_cells(entry), entry.point.key)
    what = "nothing has diverged" if diverged else "no restore points"
    table.show(empty=f"{what} of {', '.join(found)} in {_place(store)}{others}")
    return ExitCode.OK


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        format_size(entry.point.size),
        _size(entry.uploaded),
        _size(entry.reused),
        entry.holder or _UNKNOWN,
        entry.tier or _UNKNOWN,
        entry.drilled.outcome.value if entry.drilled else _UNKNOWN,
    )
