"""What SQLite's errors mean, by their words."""

from pathlib import Path

from sidecar.errors import ConfigurationError, DamagedDatabase, DatabaseBusy, NoRoom, SidecarError


def is_busy(error: Exception) -> bool:
    """Somebody else's lock is in the way."""
    return "locked" in str(error) or "busy" in str(error)


def needs_the_app(error: Exception) -> bool:
    """Collations, functions and virtual tables that the app registers are unknown here; that is no damage."""
    return (
        "no such collation" in str(error)
        or "no such module" in str(error)
        or "no such function" in str(error)
        or "unknown function" in str(error)
    )


def translate(error: Exception, path: Path) -> SidecarError:
    """The error of ours that says what it means for this database, and what to do."""
    words = str(error)
    if is_busy(error):
        return DatabaseBusy(
            f"{path} is locked by another process",
            "a long transaction of the app, or one that a shell left open? "
            f"`fuser {path}` names who has it open; a running sidecar tries again by itself",
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
