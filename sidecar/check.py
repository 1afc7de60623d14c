"""`sidecar check`: every effective setting and its source, and a try of what a daemon needs."""

import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sidecar.compose import Parts, opened
from sidecar.config import Configuration, listen_address, without_password
from sidecar.domain import Database
from sidecar.errors import ConfigurationError, ExitCode, SidecarError
from sidecar.files import require_writable
from sidecar.locks import holder_of
from sidecar.output import Table, say
from sidecar.quantities import format_duration, format_size

SIZES = {"part_size"}


async def check(configuration: Configuration) -> int:
    """Print settings and findings. Returns the exit code of the first thing that is wrong."""
    table = Table("SETTING", "VALUE", "SOURCE")
    for name, source in configuration.sources.items():
        table.add(name, _shown(name, getattr(configuration.settings, name)), source)
    table.show(empty="")
    say("")
    worst = ExitCode.OK
    async with opened(configuration) as parts:
        for title, attempt in _attempts(parts):
            try:
                say(f"ok      {title}: {await attempt()}")
            except SidecarError as error:
                say(f"FAILED  {title}: {error}")
                worst = worst or error.exit_code
    return worst


def _attempts(parts: Parts) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
    each = [(f"database {database.name}", _database(parts, database)) for database in parts.databases]
    return [
        ("sqlite", lambda: _sqlite(parts)),
        ("listen", lambda: _listen(parts)),
        ("store", lambda: _store(parts)),
        *each,
    ]


async def _listen(parts: Parts) -> str:
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


async def _sqlite(parts: Parts) -> str:
    version = parts.snapshotter.sqlite_version()
    return (
        f"{version}, {'checkpoints' if parts.snapshotter.may_checkpoint() else 'has the WAL-reset bug: no checkpoints'}"
    )


async def _store(parts: Parts) -> str:
    replica = parts.replica()
    found = [f"{each.name}: {newest.key}" for each in parts.databases if (newest := await replica.newest(each.name))]
    if parts.configuration.sources["store"] == "default":
        say("note    store: restore points are kept on this machine's own disk and are lost with it; set SIDECAR_STORE")
    return f"{parts.status.store} answers; newest restore points: {', '.join(found) or 'none'}"


def _database(parts: Parts, database: Database) -> Callable[[], Awaitable[str]]:
    async def attempt() -> str:
        require_writable(database.path)
        signature = parts.snapshotter.signature(database.path)
        if signature is None:
            return "does not exist yet, or has zero bytes; a boot restores it or the app creates it"
        async with parts.inspector().snapshot(database.path) as snapshot:
            where = "tmpfs" if snapshot.on_tmpfs else str(snapshot.path.parent)
            return f"{format_size(snapshot.size)}, {snapshot.tables} tables; a snapshot was staged on {where}"

    return attempt


def _shown(name: str, value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value) or "-"
    if isinstance(value, int) and name in SIZES:
        return format_size(value)
    return "-" if value is None else without_password(str(value))
