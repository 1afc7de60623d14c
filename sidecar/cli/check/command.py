"""`sidecar check`: every effective setting with its source, and a trial of everything that a daemon needs."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.bootstrap import Services, build_inspector, build_roll_forward
from sidecar.cli.check.expiry import bill, expiry
from sidecar.cli.check.final_backup import final_backup
from sidecar.cli.check.finding import Finding
from sidecar.cli.check.owner import owner
from sidecar.cli.check.qualify import qualify
from sidecar.cli.check.shutdown import shutdown_budget
from sidecar.cli.check.store import StoreTrial
from sidecar.cli.check.stream import stream
from sidecar.cli.output import Table, say
from sidecar.cli.session import attended
from sidecar.database import describe_links, require_posix_locks
from sidecar.errors import ConfigurationError, DamagedRestorePoint, ExitCode, SidecarError
from sidecar.host import holder_of, require_room, require_writable, to_become
from sidecar.model import Database
from sidecar.restore.preview import preview
from sidecar.settings import Configuration, Settings, format_value, listen_address
from sidecar.units import format_size


@dataclass(frozen=True, slots=True)
class _Step:
    """Something to try. A `chained` step needs all chained steps before it."""

    title: str
    attempt: Callable[[], Awaitable[Finding]]
    chained: bool = False


async def check(configuration: Configuration, *, fly_toml: str | None, qualifies: bool = False) -> int:
    """Print settings and findings. The exit code is that of the first step that failed."""
    _show_settings(configuration)
    worst, broken = ExitCode.OK, False
    async with attended(configuration) as services:
        trial = StoreTrial(services)
        for step in _steps(services, trial, fly_toml):
            if step.chained and broken:
                say(f"skipped {step.title}: it needs a step that failed above")
                continue
            try:
                found = await step.attempt()
                say(found.line(step.title))
            except SidecarError as error:
                say(f"FAILED  {step.title}: {error}")
                worst, broken = worst or error.exit_code, broken or step.chained
        if qualifies and not broken:
            worst = worst or await _qualified(services, trial)
    return worst


async def _qualified(services: Services, trial: StoreTrial) -> ExitCode:
    try:
        await qualify(services, trial)
    except SidecarError as error:
        say(f"FAILED  qualify: {error}")
        return error.exit_code
    return ExitCode.OK


def _show_settings(configuration: Configuration) -> None:
    table = Table("SETTING", "VALUE", "SOURCE")
    for name, source in configuration.sources.items():
        table.add(name, format_value(Settings.model_fields[name], getattr(configuration.settings, name)), source)
    table.show(empty="")
    if configuration.ignored:
        say("")
        say(f"ignored {', '.join(configuration.ignored)}: names of settings are in upper case, like SIDECAR_INTERVAL")
    say("")


def _steps(services: Services, trial: StoreTrial, fly_toml: str | None) -> list[_Step]:
    settings = services.configuration.settings
    return [
        _Step("sqlite", lambda: _sqlite(services)),
        _Step("listen", lambda: _listen(services)),
        _Step("shutdown budget", lambda: _budget(services, fly_toml)),
        *([_Step("app_user", lambda: _app_user(settings.app_user))] if settings.app_user else []),
        *(_Step(title, attempt, chained=True) for title, attempt in trial.steps()),
        *(
            _Step(f"next boot, {each.name}", partial(_boot, services, trial, each), chained=True)
            for each in services.databases
        ),
        *(_Step(f"expiry {each.name}", partial(expiry, services, each), chained=True) for each in services.databases),
        *(_Step(f"bill {each.name}", partial(_bill, services, trial, each)) for each in _billed(services)),
        *(_Step(f"database {each.name}", partial(_database, services, trial, each)) for each in services.databases),
        *(_Step(f"stream {each.name}", partial(_stream, services, trial, each)) for each in services.databases),
        *(_Step(f"final backup {each.name}", partial(final_backup, services, each)) for each in services.databases),
        *(_Step(f"owner {each.name}", partial(_owner, services, trial, each)) for each in services.databases),
    ]


async def _listen(services: Services) -> Finding:
    listen = services.configuration.settings.listen
    address = listen_address(listen)
    if address is None:
        return Finding("off")
    if any(holder_of(database) for database in services.databases):
        return Finding("a sidecar runs here and uses it")
    try:
        with socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET):
            return Finding(f"{listen} is free")
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {listen}: {error.strerror}", "set `listen` to a free port, or to off"
        ) from error


async def _sqlite(services: Services) -> Finding:
    version, checkpoints = services.snapshotter.sqlite_version(), services.snapshotter.may_checkpoint()
    if checkpoints:
        return Finding(f"{version}, checkpoints")
    return Finding(f"{version}, has the WAL-reset bug: no checkpoints", "warning")


async def _budget(services: Services, fly_toml: str | None) -> Finding:
    settings = services.configuration.settings
    grace, drain, final_backup = settings.shutdown_grace, settings.drain, settings.final_backup_timeout
    return shutdown_budget(grace, drain, final_backup, Path(fly_toml) if fly_toml else None)


async def _app_user(setting: str | None) -> Finding:
    account = to_become(setting)
    if account is None:
        return Finding("is the user that sidecar runs as")
    return Finding(f"uid {account.uid}, gid {account.gid}, groups {list(account.groups)}")


async def _stream(services: Services, trial: StoreTrial, database: Database) -> Finding:
    return await stream(services, database, trial.newest.get(database.name))


def _billed(services: Services) -> tuple[Database, ...]:
    return services.databases if services.location.billable else ()


async def _bill(services: Services, trial: StoreTrial, database: Database) -> Finding:
    return await bill(services, database, trial.newest.get(database.name))


async def _owner(services: Services, trial: StoreTrial, database: Database) -> Finding:
    return await owner(services, database, trial.newest.get(database.name))


async def _boot(services: Services, trial: StoreTrial, database: Database) -> Finding:
    catalog = services.catalog()
    reader, forward = services.reader(catalog), build_roll_forward(services, catalog)
    found = await preview(services.survey(), reader, forward, database, services.lineage(database))
    if trial.other is None:
        return Finding(found.text, "warning" if found.warning else "ok")
    return Finding(f"{found.text}; {trial.other} holds the lease, and may publish something newer before", "warning")


async def _database(services: Services, trial: StoreTrial, database: Database) -> Finding:
    """Take a snapshot as a backup does; where there is no database yet, check that its restore would fit."""
    require_writable(database.path)
    await to_thread.run_sync(require_posix_locks, database.path)
    if links := describe_links(database.path):
        return Finding(f"{links[0]} ({links[1]})", "warning")
    if services.snapshotter.signature(database.path) is not None:
        async with build_inspector(services).snapshot(database.path) as snapshot:
            where = "tmpfs" if snapshot.on_tmpfs else str(snapshot.path.parent)
            content = f"{format_size(snapshot.size)}, {snapshot.tables} table{'' if snapshot.tables == 1 else 's'}"
            return Finding(f"{content}; a snapshot was staged on {where}")
    missing = "does not exist, or has zero bytes"
    newest = trial.newest.get(database.name)
    if newest is None or newest.gone or not database.path.parent.is_dir():
        return Finding(missing)
    try:
        _, contents = await services.reader(services.catalog()).contents(newest)
    except DamagedRestorePoint as damage:
        raise DamagedRestorePoint(damage.message, "`sidecar verify --all` shows which ones are good") from damage
    size = contents.index.database_size
    require_room(database.path, size)
    with services.staging.reserve(database.path, size) as (_, on_tmpfs):
        where = "tmpfs" if on_tmpfs else "disk"
    room = f"there is room for the {format_size(size)} of {newest.key}, and to stage it on {where}"
    return Finding(f"{missing}; {room}")
