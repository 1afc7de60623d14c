"""`sidecar check`: every effective setting and its source, and a try of what a daemon needs."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.bootstrap import Services
from sidecar.cli.check.shutdown import shutdown_budget
from sidecar.cli.check.store import Finding, Trial
from sidecar.cli.output import Table, say
from sidecar.cli.session import attended
from sidecar.errors import ConfigurationError, DamagedRestorePoint, ExitCode, SidecarError
from sidecar.host.accounts import to_become
from sidecar.host.files import require_room, require_writable
from sidecar.host.locks import holder_of
from sidecar.model import Database
from sidecar.restore.preview import preview
from sidecar.settings.configuration import Configuration
from sidecar.settings.fields import Settings, listen_address
from sidecar.settings.kinds import format_value
from sidecar.units import format_size


@dataclass(frozen=True, slots=True)
class _Step:
    """Something to try; of `chained` ones each needs those before."""

    title: str
    attempt: Callable[[], Awaitable[Finding | str]]
    chained: bool = False


async def check(configuration: Configuration, *, fly_toml: str | None) -> int:
    """Print settings and findings. Returns the exit code of the first thing that is wrong."""
    table = Table("SETTING", "VALUE", "SOURCE")
    for name, source in configuration.sources.items():
        table.add(name, format_value(Settings.model_fields[name], getattr(configuration.settings, name)), source)
    table.show(empty="")
    if configuration.ignored:
        say("")
        say(f"ignored {', '.join(configuration.ignored)}: names of settings are in upper case, like SIDECAR_INTERVAL")
    say("")
    worst, broken = ExitCode.OK, False
    async with attended(configuration) as parts:
        for step in _steps(parts, fly_toml):
            if step.chained and broken:
                say(f"skipped {step.title}: it needs what failed above")
                continue
            try:
                found = await step.attempt()
                say((found if isinstance(found, Finding) else Finding(found)).line(step.title))
            except SidecarError as error:
                say(f"FAILED  {step.title}: {error}")
                worst, broken = worst or error.exit_code, broken or step.chained
    return worst


def _steps(parts: Services, fly_toml: str | None) -> list[_Step]:
    settings, trial = parts.configuration.settings, Trial(parts)
    return [
        _Step("sqlite", lambda: _sqlite(parts)),
        _Step("listen", lambda: _listen(parts)),
        _Step("shutdown budget", lambda: _budget(parts, fly_toml)),
        *([_Step("app_user", lambda: _app_user(settings.app_user))] if settings.app_user else []),
        *(_Step(title, attempt, chained=True) for title, attempt in trial.steps()),
        *(
            _Step(f"next boot, {each.name}", partial(_boot, parts, trial, each), chained=True)
            for each in parts.databases
        ),
        *(_Step(f"database {each.name}", partial(_database, parts, trial, each)) for each in parts.databases),
    ]


async def _listen(parts: Services) -> str:
    listen = parts.configuration.settings.listen
    address = listen_address(listen)
    if address is None or any(holder_of(database) for database in parts.databases):
        return "off" if address is None else "a sidecar runs here and has it"
    try:
        with socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET):
            return f"{listen} is free"
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {listen}: {error.strerror}", "set `listen` to a free port, or to off"
        ) from error


async def _sqlite(parts: Services) -> Finding:
    version, checkpoints = parts.snapshotter.sqlite_version(), parts.snapshotter.may_checkpoint()
    says = "checkpoints" if checkpoints else "has the WAL-reset bug: no checkpoints"
    return Finding(f"{version}, {says}", "ok" if checkpoints else "warning")


async def _budget(parts: Services, fly_toml: str | None) -> Finding:
    settings = parts.configuration.settings
    grace, drain, final_backup = settings.shutdown_grace, settings.drain, settings.final_backup_timeout
    return shutdown_budget(grace, drain, final_backup, Path(fly_toml) if fly_toml else None)


async def _app_user(setting: str | None) -> str:
    account = to_become(setting)
    return f"uid {account.uid}, gid {account.gid}, groups {list(account.groups)}" if account else "is who we are"


async def _boot(parts: Services, trial: Trial, database: Database) -> Finding:
    found = await preview(parts.survey(), parts.reader(parts.catalog()), database, parts.lineage(database))
    if trial.other is None:
        return Finding(found.text, "warning" if found.warning else "ok")
    return Finding(f"{found.text}; {trial.other} holds the lease, and may publish something newer before", "warning")


async def _database(parts: Services, trial: Trial, database: Database) -> str:
    """A snapshot as a backup makes it; where there is no database yet, whether its restore would fit."""
    require_writable(database.path)
    if parts.snapshotter.signature(database.path) is not None:
        async with parts.inspector().snapshot(database.path) as snapshot:
            where = "tmpfs" if snapshot.on_tmpfs else str(snapshot.path.parent)
            return f"{format_size(snapshot.size)}, {snapshot.tables} tables; a snapshot was staged on {where}"
    missing = "does not exist, or has zero bytes"
    newest = trial.newest.get(database.name)
    if newest is None or newest.gone or not database.path.parent.is_dir():
        return missing
    try:
        _, contents = await parts.reader(parts.catalog()).contents(newest)
    except DamagedRestorePoint as damage:
        raise DamagedRestorePoint(damage.message, "`sidecar verify --all` shows which ones are good") from damage
    size = contents.index.database_size
    require_room(database.path, size)
    with parts.staging.reserve(database.path, size) as (_, on_tmpfs):
        where = "tmpfs" if on_tmpfs else "disk"
    return f"{missing}; there is room for the {format_size(size)} of {newest.key}, and to stage it on {where}"
