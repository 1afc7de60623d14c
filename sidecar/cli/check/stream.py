"""Whether the commits of a database would be streamed between restore points, and why not. Nothing is changed."""

from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from sidecar.backup import settling
from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.database import Driver
from sidecar.database.lineage import wal_by_recorded
from sidecar.database.wal import NotStreamable, require_streamable
from sidecar.errors import SidecarError
from sidecar.host import holder_of
from sidecar.model import Database, RestorePoint, WalBy
from sidecar.settings import Settings
from sidecar.status import saved_by_need
from sidecar.units import format_duration

WORTH_MENTIONING = 1.0  # US dollars a month


async def stream(services: Services, database: Database, newest: RestorePoint | None) -> Finding:
    """Whether it would be streamed. A warning only where `stream=on` is not met.

    Says what `restore_points=auto` would save with restore points of the size of the newest one, if it is worth mentioning.
    """
    found = await _stream(services, database)
    settings, billable = services.configuration.settings, services.location.billable
    if newest is None or not billable or settings.restore_points == "auto" or settings.why_not_streamed:
        return found
    saved = saved_by_need(newest.size, settings.interval.total_seconds(), settings.retention_days.recent)
    if saved <= WORTH_MENTIONING:
        return found
    return replace(found, text=f"{found.text}; restore_points=auto would save up to ${saved:.2f} a month of storage")


async def _stream(services: Services, database: Database) -> Finding:
    settings = services.configuration.settings
    if holder_of(database) and not settings.why_not_streamed:
        return Finding("a sidecar runs here; `sidecar status` says whether it streams")
    mode = await journal_mode(services, database)
    if isinstance(mode, Finding):
        return mode
    every = f"a segment every {format_duration(settings.stream_interval)} at most"
    if mode == "wal":
        return Finding(f"would be streamed, {every}{_wait(settings, wal_by_recorded(database.path))}")
    switched = f", once the first backup has switched it from journal mode {mode} to WAL"
    return Finding(f"would be streamed, {every}{switched}{_wait(settings, WalBy.SIDECAR)}")


async def journal_mode(services: Services, database: Database) -> Finding | str:
    """The journal mode of a database that would be streamed, else why it would not be.

    By the settings, SQLite, the file system and the mode.
    """
    settings = services.configuration.settings
    if reason := settings.why_not_streamed:
        return Finding(f"not streamed: {reason}")
    missed = "warning" if settings.stream == "on" else "ok"
    try:
        await to_thread.run_sync(require_streamable, database.path, services.driver)
    except NotStreamable as obstacle:
        return Finding(f"not streamed: {obstacle.reason}", missed)
    try:
        mode = await to_thread.run_sync(_journal_mode, services.driver, database.path)
    except SidecarError as error:
        return Finding(f"not known: {error.message}", missed)
    if mode != "wal" and settings.journal_mode == "keep":
        hint = "run PRAGMA journal_mode=WAL in the app"
        return Finding(f"not streamed: it is in journal mode {mode}, and journal_mode=keep: {hint}", missed)
    return mode


def _wait(settings: Settings, chosen: WalBy | None) -> str:
    """What `stream=auto` waits for, as the end of a sentence."""
    if settings.stream != "auto":
        return ""
    reason = ": sidecar chose that mode" if chosen is WalBy.SIDECAR else ""
    return f", once the app has used it in WAL mode for {format_duration(settling(chosen, settings.interval))}{reason}"


def _journal_mode(driver: Driver, path: Path) -> str:
    """Raises `SidecarError`."""
    with driver.translated(path):
        return driver.journal_mode(path, "ro")
