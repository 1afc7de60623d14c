"""`sidecar list`: the restore points and the streams in the store. Its JSON is documented in `docs/json.md`; fields are only added to it."""

import json

from sidecar.api import Sidecar
from sidecar.cli.output import UNKNOWN, Table, complain, format_age, say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode, NothingToRestore
from sidecar.model import AtRestorePoint, Origin, Position
from sidecar.repository import Entry, History, age_of, format_others
from sidecar.repository.streams import ListedStream
from sidecar.settings import Configuration
from sidecar.units import format_size

_TIME = "%Y-%m-%dT%H:%M:%SZ"


async def list_points(configuration: Configuration, *, as_json: bool, diverged: bool) -> int:
    """List every restore point of every database, oldest first.

    Raises `NothingToRestore`, after the list, if the store has nothing of a database that was named by a flag.
    """
    async with attended(configuration) as services:
        session = Sidecar(services)
        history, place = await session.list(diverged=diverged), session.place
    nothing = "nothing has diverged" if diverged else "no restore points"
    missing = [each.name for each in history.databases if not each.restore_points]
    empty = f"{nothing} of {', '.join(missing)} in {place}{format_others(history.others)}"
    named = bool(missing) and not diverged and configuration.sources["databases"] == "flag"
    if missing and not diverged and not named and (as_json or history.restore_points):
        complain(empty)
    if as_json:
        say(json.dumps(_as_dict(history), indent=2))
    elif history.restore_points or not named:
        _table(history).show(empty=empty)
    if named:
        raise NothingToRestore(empty, "check the name and `store`")
    return ExitCode.OK


async def list_streams(configuration: Configuration, *, as_json: bool) -> int:
    """List what is left of every stream of every database, oldest first."""
    async with attended(configuration) as services:
        session = Sidecar(services)
        streams, place, now = await session.streams(), session.place, await services.store.now()
    if as_json:
        shown = [{"name": name, "streams": [each.as_dict() for each in found]} for name, found in streams.items()]
        say(json.dumps({"store": services.store.url, "databases": shown}, indent=2))
        return ExitCode.OK
    table = Table(
        "DATABASE", "START", "END", "AGE", "COMMITS", "SIZE", "HOLDER", "EPOCH", "LINE", "CONTINUES", "STREAM"
    )
    for name, found in streams.items():
        for each in found:
            age = format_age(max(0.0, (now - each.end).total_seconds()))
            ends = (each.begin.strftime(_TIME), each.end.strftime(_TIME), age)
            stream, size = each.stream, format_size(each.size)
            cells = (_commits(each), size, stream.holder, str(stream.epoch), _line(each), _continues(stream.after))
            table.add(name, *ends, *cells, stream.name)
    table.show(empty=f"no streams of {', '.join(streams)} in {place}")
    return ExitCode.OK


def _commits(stream: ListedStream) -> str:
    """How many there are, or which are left."""
    return str(stream.commits) if stream.first == 1 else f"{stream.first}-{stream.commits}"


def _line(stream: ListedStream) -> str:
    if not stream.main_line:
        return "side"
    beyond = stream.left_at is not None and stream.left_at < stream.commits
    return f"main to commit {stream.left_at}, then side" if beyond else "main"


def _continues(origin: Origin | None) -> str:
    match origin:
        case Position(stream, commit):
            return f"commit {commit} of {stream}"
        case AtRestorePoint(key):
            return key
    return UNKNOWN


def _as_dict(history: History) -> dict[str, object]:
    shown = [
        {"name": each.name, "restore_points": [entry.as_dict(history.at) for entry in each.restore_points]}
        for each in history.databases
    ]
    return {"store": history.store, "databases": shown}


def _table(history: History) -> Table:
    table = Table("DATABASE", "TIME", "AGE", "SIZE", "UPLOADED", "REUSED", "HOLDER", "TIER", "DRILL", "LINE", "KEY")
    for each in history.databases:
        for entry in each.restore_points:
            age = format_age(age_of(entry.point, history.at))
            table.add(each.name, str(entry.point.timestamp), age, *_cells(entry), entry.point.key)
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        format_size(entry.point.size),
        _size(entry.uploaded),
        _size(entry.reused),
        entry.holder or UNKNOWN,
        entry.tier or UNKNOWN,
        entry.drilled.outcome.value if entry.drilled else UNKNOWN,
        UNKNOWN if entry.main_line is None else "main" if entry.main_line else "side",
    )


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else format_size(size)
