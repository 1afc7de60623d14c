"""`sidecar list` and `sidecar status`: what is in the store, and what is protected; for people, or as JSON.

The JSON is documented in README. Fields are only ever added to it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from sidecar.bootstrap import Services
from sidecar.cli.backup import ask_daemon
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import AccessDenied, DamagedLease, ExitCode, SidecarError
from sidecar.host.locks import holder_of
from sidecar.lease.document import read_lease
from sidecar.model import Database, RestorePoint
from sidecar.monitoring.incidents import diverged_since, read_incidents
from sidecar.repository.catalog import OTHERS, Replica, only
from sidecar.repository.drill_tag import last_drill
from sidecar.repository.inventory import age_of, stored_by_tier
from sidecar.restore.preview import damage_of
from sidecar.settings.configuration import Configuration
from sidecar.status.health import Health, Level
from sidecar.status.problems import Kind, Problem
from sidecar.storage.open import parse_location
from sidecar.units import format_duration, format_size

log = structlog.get_logger()

_UNKNOWN = "-"


async def status(configuration: Configuration, *, as_json: bool) -> int:
    """The daemon's view, else the store's."""
    async with attended(configuration) as parts:
        shown = await ask_daemon(configuration, parts.store.url, "status") or await _status_of_store(parts)
        holder = next(filter(None, map(holder_of, parts.databases)), None)
        silent = f"a sidecar (pid {holder.pid}) runs here, without a control socket" if holder else "none runs here"
    if as_json:
        say(json.dumps(shown, indent=2))
        return ExitCode.OK
    say(f"store     {shown['store']}")
    say(f"daemon    {shown.get('phase', f'{silent}; this is what the store says')}")
    if verdict := shown.get("verdict"):
        since = f" since {_instant(verdict['since'])}" if verdict["since"] else ""
        say(f"verdict   {verdict['title']}{since}")
        for line in filter(None, (verdict["reason"], verdict["hint"])):
            say(f"          {line}")
    if cost := shown.get("cost"):
        parts_of_it = ", ".join(f"{kind} ${cost[kind]:.2f}" for kind in ("requests", "storage", "egress"))
        say(f"cost      ${cost['total']:.2f} a month, estimated: {parts_of_it}; ${cost['boot']:.2f} for each start")
    databases = shown["databases"]
    for each in databases if isinstance(databases, list) else []:
        say(f"\n{each['name']}")
        for label, name, form in _STATUS_LINES:
            if each.get(name) is not None and not (each[name] == 0 and name in _OMITTED_ZEROS):
                say(f"  {label:<22}{form(each[name])}")
    for problem in shown.get("problems", [])[-3:]:
        about = f"{problem['database']}: " if problem["database"] else ""
        say(f"\n{_instant(problem['at'])}  {about}{problem['message']}\n  {problem['hint']}")
    return ExitCode.OK


def _place(store: str) -> str:
    """A store that is empty, and why that may be."""
    directory = parse_location(store).directory
    return store if directory is None or directory.exists() else f"{store}, which does not exist"


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=round(seconds)))


def _instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S UTC}"


def _coming(text: str) -> str:
    return _instant(text) if datetime.fromisoformat(text) > datetime.now(UTC) else "now"


def _size(size: int | None) -> str:
    return _UNKNOWN if size is None else format_size(size)


_OMITTED_ZEROS = {"unprotected_seconds", "restore_point_size"}

_STATUS_LINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("newest restore point", "restore_point", str),
    ("its size", "restore_point_size", format_size),
    ("its age", "age_seconds", _duration),
    ("last success", "last_success", _instant),
    ("last outcome", "last_outcome", str),
    ("unprotected for", "unprotected_seconds", _duration),
    ("failing since", "failing_since", _instant),
    ("last error", "last_error", str),
    ("next backup", "next_backup", _coming),
    ("proven by a drill", "last_drill", _instant),
    ("drill", "drill_outcome", str),
    ("drill error", "drill_error", str),
)


async def _status_of_store(parts: Services) -> dict[str, Any]:
    replica = parts.replica()
    interval = parts.configuration.settings.drill_interval
    newest = {each.name: await replica.newest(each.name) for each in parts.databases}
    databases = [await _database_in_store(replica, each, newest[each.name], interval) for each in parts.databases]
    damaged = [found for point in newest.values() if (found := await _damage(parts, point))]
    others = await replica.names(OTHERS) if None in newest.values() else ()
    verdict = _unprotected(newest, damaged, parts.status.store, others)
    if verdict is None or verdict.level is not Level.BAD:
        verdict = _joined(verdict, await _at_rest(parts, replica))
    return {"source": "store", "store": parts.status.store, "databases": databases, "verdict": verdict.as_dict()}


async def _damage(parts: Services, point: RestorePoint | None) -> str | None:
    try:
        return await damage_of(parts, point)
    except AccessDenied:  # to somebody who may list and no more
        return None


def _joined(missing: Health | None, rest: Health) -> Health:
    """A database of which the store has nothing hides nothing of the others."""
    if missing is None:
        return rest
    worst = rest if rest.level is Level.ATTENTION else missing
    return replace(
        worst, reason=f"{missing.reason}; {rest.reason}", hint="; ".join(filter(None, (missing.hint, rest.hint)))
    )


async def _at_rest(parts: Services, replica: Replica) -> Health:
    """Whether a machine runs whose own page knows more, and what the last one left for a person to decide."""
    machine = await _machine(replica)
    notices = [notice for database in parts.databases for notice in await _to_decide(parts, replica, database)]
    notices.sort(key=lambda each: (each.kind is Kind.DAMAGED, each.at))
    if not notices:
        return machine
    last = notices[-1]
    reason, hint = f"{last.database}: {last.message}", last.hint
    if machine.level is Level.ATTENTION:  # its disk may be the only copy of something
        reason, hint = f"{machine.reason}; {reason}", f"{machine.hint}; {hint}"
    return Health(Level.ATTENTION, "Needs attention", last.at, reason, hint)


async def _to_decide(parts: Services, replica: Replica, database: Database) -> tuple[Problem, ...]:
    now = parts.clock.now()
    try:
        kept = await read_incidents(replica.store, database.name, now)
        diverged = await diverged_since(replica, database.name, kept.open_since(await replica.store.now()))
    except SidecarError as error:  # of somebody who may read restore points and nothing else
        log.info("it is not known what is to be decided", database=database.name, error=error.message)
        return ()
    return (*diverged, *kept.incidents)


async def _machine(replica: Replica) -> Health:
    title, seen = "The store has what was published", None
    with suppress(DamagedLease):
        seen = await read_lease(replica.store)
    if seen is None or seen.record.released:
        who = f"{seen.record.holder}, the last one, has stopped in order" if seen else "no machine is known"
        return Health(Level.WAIT, title, None, f"no sidecar runs: {who}", "")
    age = _duration(seen.age.total_seconds())
    if seen.age.total_seconds() <= seen.record.ttl:
        hint = "its own page, and `sidecar status` on it, say whether it is protected"
        return Health(Level.WAIT, title, None, f"{seen.record.holder} runs: it renewed its lease {age} ago", hint)
    reason = f"{seen.record.holder} has not renewed its lease for {age}, and did not stop in order"
    hint = "what it wrote after its newest restore point is on its disk only, if that is still there: start it again"
    return Health(Level.ATTENTION, title, None, reason, hint)


def _unprotected(
    newest: Mapping[str, RestorePoint | None], damaged: Sequence[str], store: str, others: Sequence[str]
) -> Health | None:
    """Whether the newest restore points are there, as far as their index tells; `others` are databases that the store has."""
    gone = [point.key for point in newest.values() if point and point.gone]
    missing = [name for name, point in newest.items() if point is None]
    reasons = [
        *([f"the newest restore point is gone from the store: {', '.join(gone)}"] if gone else []),
        *damaged,
        *([f"there is no restore point of {', '.join(missing)} in {_place(store)}{only(others)}"] if missing else []),
    ]
    if not reasons:
        return None
    if gone:
        hint = "`sidecar list` shows which older ones are left; a running sidecar publishes a new one, else `sidecar backup` does"
    elif damaged:
        hint = "`sidecar verify --all` shows which older ones are good; a running sidecar publishes a new one, else `sidecar backup` does"
    else:
        hint = "are `store` and the database's name right, is the store's file system mounted, and does a daemon run?"
    some = not gone and not damaged and len(missing) < len(newest)
    title = f"The store has nothing of {', '.join(missing)}" if some else "Not protected"
    return Health(Level.ATTENTION if some else Level.BAD, title, None, "; ".join(reasons), hint)


async def _database_in_store(
    replica: Replica, database: Database, newest: RestorePoint | None, interval: timedelta
) -> dict[str, object]:
    now = await replica.store.now()
    drilled = await last_drill(replica, newest, interval) if newest else None
    good = drilled[1] if drilled and drilled[1].outcome == "good" else None
    return {
        "name": database.name,
        "restore_point": newest.key if newest else None,
        "restore_point_size": newest.size if newest else None,
        "age_seconds": age_of(newest, now) if newest else None,
        "last_drill": good.at.instant.isoformat() if good else None,
        "drill_outcome": drilled[1].outcome.value if drilled else None,
        "stored_bytes": stored_by_tier([point async for point in replica.points(database.name)]),
    }
