"""The one-shot commands. Each takes the configuration, prints for people or machines, and returns an exit status."""

import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from sidecar.backup.tools import Tools
from sidecar.bootstrap import Services
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.concurrency import first_failure
from sidecar.database.lineage import Marker
from sidecar.errors import (
    ConfigurationError,
    DatabaseBusy,
    ExitCode,
    SidecarError,
)
from sidecar.host.control import ControlClient
from sidecar.host.locks import holder_of
from sidecar.model import Database, RestorePoint
from sidecar.monitoring.incidents import close_incidents
from sidecar.policies import OnConflict
from sidecar.progress import progress_bar
from sidecar.settings.configuration import Configuration


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
    async with attended(configuration, as_boot=True) as parts:
        answer = await ask_daemon(configuration, parts.store.url, "backup")
        if answer is None:
            answer = await _backup_here(parts)
        answer = {name: outcome for name, outcome in answer.items() if name in parts.status.databases}
    failures = []
    for name, outcome in answer.items():
        if outcome["outcome"] == "failed":
            say(f"{name}: failed")
            code = ExitCode(int(outcome["exit_code"]))
            failures.append(SidecarError(f"{name}: {outcome['error']}", str(outcome["hint"]), exit_code=code))
        elif outcome["outcome"] == "waiting":
            say(f"{name}: nothing to back up: it does not exist yet, or has zero bytes")
        else:
            say(f"{name}: {outcome['outcome']}: {outcome['restore_point']}")
    if failures:
        raise failures[0]
    if all(outcome["outcome"] == "waiting" for outcome in answer.values()):
        raise no_database(", ".join(str(database.path) for database in parts.databases))
    return ExitCode.OK


def no_database(path: str) -> ConfigurationError:
    """Why there is nothing to back up."""
    return ConfigurationError(f"there is no database at {path}, or it has zero bytes", "is `databases` right?")


async def _backup_here(parts: Services) -> dict[str, Any]:
    """Become the holder for the time of one publish of each database."""
    fence = parts.fence(returning=False)
    tools = parts.tools(fence, progress_bar)
    for database in parts.databases:
        if parts.snapshotter.signature(database.path) is None:
            raise no_database(str(database.path))
    with parts.locks(None):
        try:
            await parts.require_origin()
            await fence.acquire(_lease_patience(parts.configuration))
            async with fence.renewing():
                return await _publish_all(parts, tools)
        finally:
            await fence.release()


async def _publish_all(parts: Services, tools: Tools) -> dict[str, Any]:
    services = [parts.backup(database, tools) for database in parts.databases]
    latest, chosen = {}, set()
    for service in services:
        if newest := await tools.replica.newest(service.database.name):
            marker = parts.lineage(service.database).read()
            _require_descent(parts.configuration, service.database, newest, marker)
            service.continues(newest, marker)
            latest[service.database.name] = newest.key
            if marker and marker.by_hand and marker.last != newest.key:
                chosen.add(service.database.name)
    await tools.fence.record_start(latest)
    answer = {}
    for service in services:
        name, outcome = service.database.name, await service.cycle()
        answer[name] = {"outcome": outcome, "restore_point": service.newest_key}
        if outcome == "published" and name in chosen:  # whoever chose another one has read what there was to decide
            await close_incidents(tools.replica.store, name)
    return answer


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


async def ask_daemon(configuration: Configuration, store: str, what: str) -> dict[str, Any] | None:
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
        if holder.control is None and what == "status":  # another command, or `control_socket=off`: the store knows
            continue
        client = ControlClient(Path(holder.control)) if holder.control else None
        answer = await _asked(client, what) if client else None
        if answer is None:
            raise DatabaseBusy(
                f"a sidecar (pid {holder.pid}) protects {database.path} and does not answer",
                "is control_socket off, or is it another command that ends soon?",
            )
        return answer
    return None


async def _asked(client: ControlClient, what: str) -> dict[str, Any] | None:
    if what == "status":
        return await client.status()
    with progress_bar("backup") as progress:
        return await client.backup(progress)
