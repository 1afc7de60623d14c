"""Translates SQLite's errors into ours, by their messages."""

from pathlib import Path

from sidecar.documentation import LOCKED
from sidecar.errors import ConfigurationError, DamagedDatabase, DatabaseBusy, NoRoom, SidecarError


def is_busy(error: Exception) -> bool:
    """Whether another connection's lock was the cause."""
    return "locked" in str(error) or "busy" in str(error)


def is_schema_error(error: Exception) -> bool:
    """Whether SQLite does not understand a definition in the schema: too many columns, or syntax that it does not know."""
    return "malformed database schema" in str(error)


def translate(error: Exception, path: Path) -> SidecarError:
    """Our error for an error of SQLite's about this database, with what to do about it."""
    words = str(error)
    if is_busy(error):
        return DatabaseBusy(
            f"{path} is locked by another process",
            "does the app, or a shell, keep a transaction open, or set PRAGMA locking_mode=EXCLUSIVE, beside which nobody can "
            f"read? `fuser {path}` names the processes that have it open; a running sidecar tries again by itself; see {LOCKED}",
        )
    if "disk is full" in words:
        return NoRoom(f"no room left to copy {path}: {words}", "free some space or set staging_dir")
    if "not a database" in words:
        return DamagedDatabase(
            f"{path} is not an SQLite database: {words}", "is it encrypted, or another kind of file?"
        )
    if "malformed" in words or "corrupt" in words:
        return DamagedDatabase(
            f"{path} is damaged: {words}", "run PRAGMA integrity_check; `sidecar list` shows older points"
        )
    if "readonly" in words or "unable to open" in words:
        return ConfigurationError(
            f"{path} cannot be opened for writing: {words}", "SQLite needs to write in the database's directory"
        )
    return DamagedDatabase(f"{path} cannot be read: {words}")
