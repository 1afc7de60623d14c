"""The one-shot commands. Each takes the configuration, prints for people or machines, and returns an exit status."""

import json
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from sidecar.adapters.http import ControlClient
from sidecar.backup import Tools
from sidecar.compose import Parts, opened
from sidecar.config import Configuration
from sidecar.domain import Database, RestorePoint
from sidecar.errors import (
    ConfigurationError,
    DamagedRestorePoint,
    DatabaseBusy,
    ExitCode,
    NothingToRestore,
    SidecarError,
    UnsupportedRestorePoint,
)
from sidecar.lineage import Marker
from sidecar.locks import holder_of
from sidecar.output import Table, progress_bar, say
from sidecar.pipeline import first_failure
from sidecar.quantities import format_duration, format_size
from sidecar.replica import Replica
from sidecar.restore import OnConflict


async def interruptible(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command so that SIGINT and SIGTERM cancel it cleanly: nothing half-done stays behind."""
    status, received = 0, 0

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal received
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                received = number
                scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            status = await command()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
    return 128 + received if received else status


async def backup(configuration: Configuration) -> int:
    """Ask this machine's daemon for a cycle of every database, or do one without it."""
    async with opened(configuration) as parts:
        answer = await _ask_daemon(configuration, parts.store.url, "backup")
        if answer is None:
            answer = await _backup_here(parts)
        answer = {name: outcome for name, outcome in answer.items() if name in parts.status.databases}
    failures = []
    for name, outcome in answer.items():
        if outcome["outcome"] == "failed":
            say(f"{name}: failed")
            code = ExitCode(int(outcome["exit_code"]))
            failures.append(SidecarError(f"{name}: {outcome['error']}", str(outcome["hint"]), exit_code=code))
        else:
            say(f"{name}: {outcome['outcome']}: {outcome['restore_point']}")
    if failures:
        raise failures[0]
    return ExitCode.OK


async def _backup_here(parts: Parts) -> dict[str, Any]:
    """Become the holder for the time of one publish of each database."""
    fence = parts.fence(returning=False)
    tools = parts.tools(fence)
    with parts.locks(None):
        for database in parts.databases:
            if parts.snapshotter.signature(database.path) is None:
                raise ConfigurationError(
                    f"there is no database at {database.path}, or it has zero bytes", "correct --database"
                )
        try:
            await fence.acquire(_lease_patience(parts.configuration))
            async with fence.kept():
                return await _publish_all(parts, tools)
        finally:
            await fence.give_back()


async def _publish_all(parts: Parts, tools: Tools) -> dict[str, Any]:
    services = [parts.backup(database, tools) for database in parts.databases]
    latest = {}
    for service in services:
        if newest := await tools.replica.newest(service.database.name):
            marker = parts.lineage(service.database).read()
            _require_descent(parts.configuration, service.database, newest, marker)
            service.continues(newest, marker)
            latest[service.database.name] = newest.key
    await tools.fence.settle(latest)
    return {
        service.database.name: {"outcome": await service.cycle(), "restore_point": service.newest_key}
        for service in services
    }


def _lease_patience(configuration: Configuration) -> timedelta:
    """Nobody waits for minutes at a prompt, unless asked for."""
    asked = configuration.sources["lease_wait"] != "default"
    return configuration.settings.lease_wait if asked else timedelta(0)


def _require_descent(
    configuration: Configuration, database: Database, newest: RestorePoint, marker: Marker | None
) -> None:
    """Never put an unrelated file above the newest restore point without being told to."""
    chosen = marker is not None and (marker.names(newest.key) or marker.by_hand)
    if not chosen and configuration.settings.on_conflict is not OnConflict.LOCAL:
        raise ConfigurationError(
            f"{database.path} does not descend from the newest restore point {newest.key}: not published above it",
            "`sidecar restore` brings the newest one; --on-conflict local publishes this file all the same",
        )


async def list_points(configuration: Configuration, *, as_json: bool, diverged: bool) -> int:
    """Every restore point of every database, oldest first."""
    async with opened(configuration) as parts:
        replica = parts.replica()
        found = {
            each.name: [point async for point in replica.points(each.name, diverged=diverged)]
            for each in parts.databases
        }
        store, now = parts.store.url, await parts.store.now()
    if as_json:
        shown = [
            {"name": name, "restore_points": [_point_json(point) for point in points]} for name, points in found.items()
        ]
        say(json.dumps({"store": store, "databases": shown}, indent=2))
        return ExitCode.OK
    table = Table("DATABASE", "TIME", "AGE", "SIZE", "KEY")
    for name, points in found.items():
        for point in points:
            table.add(name, str(point.timestamp), _age(now, point), format_size(point.size), point.key)
    table.show(empty=f"no restore points of {', '.join(found)} in {store}")
    return ExitCode.OK


async def verify(configuration: Configuration, *, every: bool) -> int:
    """Restore the newest restore point of each database, or all, to scratch. 65 when one is damaged, 66 when none is."""
    damaged = verified = 0
    async with opened(configuration) as parts:
        replica = parts.replica()
        for database in parts.databases:
            async for point in _chosen(replica, database, every=every):
                problem = await _prove(parts, replica, database, point)
                verified += 1
                damaged += bool(problem)
                say(f"{point.key}: {'DAMAGED: ' + problem if problem else 'good'}")
        url = parts.store.url
    if not verified:
        raise NothingToRestore(f"{url} has no restore point to verify", "check `store` and the databases' names")
    if damaged:
        raise DamagedRestorePoint(
            f"{damaged} of {verified} restore points are damaged", "restore another one with `sidecar restore --key`"
        )
    return ExitCode.OK


async def _prove(parts: Parts, replica: Replica, database: Database, point: RestorePoint) -> str:
    """What is wrong with a restore point, or nothing."""
    restorer = parts.restorer(replica, integrity="full")
    beside = database.path if database.path.parent.is_dir() else Path(tempfile.gettempdir(), database.name)
    try:
        _, contents = await restorer.contents(point)
        with (
            parts.staging.reserve(beside, contents.index.database_size) as (scratch, _),
            progress_bar(f"verify {point.key}") as progress,
        ):
            await restorer.download(point, scratch, progress)
    except (DamagedRestorePoint, UnsupportedRestorePoint) as error:
        return error.message
    return ""


async def _chosen(replica: Replica, database: Database, *, every: bool) -> AsyncIterator[RestorePoint]:
    if every:
        async for point in replica.points(database.name):
            yield point
    elif newest := await replica.newest(database.name):
        yield newest


async def status(configuration: Configuration, *, as_json: bool) -> int:
    """The daemon's view, else the store's."""
    async with opened(configuration) as parts:
        shown = await _ask_daemon(configuration, parts.store.url, "status") or await _status_of_store(parts)
    if as_json:
        say(json.dumps(shown, indent=2))
        return ExitCode.OK
    say(f"store     {shown['store']}")
    say(f"daemon    {shown.get('phase', 'none runs here; this is what the store says')}")
    databases = shown["databases"]
    for each in databases if isinstance(databases, list) else []:
        say(f"\n{each['name']}")
        for label, name in _STATUS_LINES:
            if each.get(name) is not None:
                say(f"  {label:<22}{each[name]}")
    return ExitCode.OK


_STATUS_LINES = (
    ("newest restore point", "restore_point"),
    ("its age in seconds", "age_seconds"),
    ("last success", "last_success"),
    ("last outcome", "last_outcome"),
    ("unprotected seconds", "unprotected_seconds"),
    ("failing since", "failing_since"),
    ("last error", "last_error"),
    ("next backup", "next_backup"),
)


async def _status_of_store(parts: Parts) -> dict[str, Any]:
    databases: list[dict[str, object]] = []
    replica = parts.replica()
    for each in parts.databases:
        newest = await replica.newest(each.name)
        now = await parts.store.now()
        databases.append(
            {
                "name": each.name,
                "restore_point": newest.key if newest else None,
                "restore_point_size": newest.size if newest else None,
                "age_seconds": round((now - newest.timestamp.instant).total_seconds(), 3) if newest else None,
            }
        )
    return {"source": "store", "store": parts.status.store, "databases": databases}


async def _ask_daemon(configuration: Configuration, store: str, what: str) -> dict[str, Any] | None:
    """What the daemon of the first database that has one answers; None when none runs on this machine."""
    for database in configuration.settings.database_list():
        holder = holder_of(database)
        if holder is None:
            continue
        if holder.store != store:
            raise ConfigurationError(
                f"a sidecar (pid {holder.pid}) protects {database.path} with another store: {holder.store}",
                f"give it --store {holder.store}, or stop that sidecar",
            )
        client = ControlClient(Path(holder.control)) if holder.control else None
        answer = await (client.backup() if what == "backup" else client.status()) if client else None
        if answer is None:
            raise DatabaseBusy(
                f"a sidecar (pid {holder.pid}) protects {database.path} and does not answer",
                "is control_socket off, or is it another command that ends soon?",
            )
        return answer
    return None


def _point_json(point: RestorePoint) -> dict[str, object]:
    return {
        "key": point.key,
        "timestamp": str(point.timestamp),
        "time": point.timestamp.instant.isoformat(),
        "size": point.size,
        "diverged_holder": point.diverged_holder,
    }


def _age(now: datetime, point: RestorePoint) -> str:
    return format_duration(timedelta(seconds=max(0, round((now - point.timestamp.instant).total_seconds()))))
