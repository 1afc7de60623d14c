"""Translates SQLite's errors into ours, by their result codes, and by their messages where these say more."""

from pathlib import Path

from sidecar.errors import ConfigurationError, DamagedDatabase, DatabaseBusy, NoRoom, SidecarError
from sidecar.host import failed
from sidecar.status.documentation import LOCKED

# https://sqlite.org/rescode.html
BUSY, LOCKED_TABLE, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL = 5, 6, 7, 8, 9, 10, 11, 13
CANTOPEN, PROTOCOL, NOLFS, NOT_A_DATABASE = 14, 15, 22, 26
CORRUPT_VTAB = 267
# For Python before 3.11, which tells the code by its message alone.
_MESSAGES = {
    "malformed": CORRUPT,
    "not a database": NOT_A_DATABASE,
    "interrupted": INTERRUPT,
    "locked": BUSY,
    "locking protocol": PROTOCOL,
    "disk I/O": IOERR,
    "disk is full": FULL,
    "unable to open": CANTOPEN,
    "out of memory": NOMEM,
    "large file support": NOLFS,
    "readonly": READONLY,
}
_OF_THE_MACHINE = {NOMEM, IOERR, FULL, CANTOPEN, NOLFS}
# None of them is about the content of the file. 4 is SQLITE_ABORT.
_ELSEWHERE = _OF_THE_MACHINE | {4, BUSY, LOCKED_TABLE, INTERRUPT, PROTOCOL}


def code_of(error: Exception) -> int:
    """SQLite's extended result code."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code)
    words = str(error)
    return next((number for message, number in _MESSAGES.items() if message in words), 1)


def is_about_content(code: int) -> bool:
    """Whether a result code is about the database's content, and not about a lock, the disk or memory."""
    return (code & 0xFF) not in _ELSEWHERE


def is_busy(error: Exception) -> bool:
    """Whether the cause was another connection's lock."""
    return "locked" in str(error) or "busy" in str(error)


def is_app_only(error: Exception) -> bool:
    """Whether the cause is a function, a collation, a module or a tokenizer that only the app has."""
    return any(
        each in str(error)
        for each in ("no such function", "unknown function", "no such collation", "no such module", "no such tokenizer")
    )


def is_schema_error(error: Exception) -> bool:
    """Whether SQLite does not understand a definition in the schema: too many columns, or syntax that it does not know."""
    return "malformed database schema" in str(error)


def translate(error: Exception, path: Path) -> SidecarError:
    """Translate an error of SQLite about this database into ours, with a hint."""
    words = str(error)
    if is_busy(error):
        return DatabaseBusy(
            f"{path} is locked by another process",
            "does the app, or a shell, keep a transaction open, or set PRAGMA locking_mode=EXCLUSIVE, beside which nobody can "
            f"read? `fuser {path}` names the processes that have it open; a running sidecar tries again by itself; see {LOCKED}",
        )
    primary = code_of(error) & 0xFF
    if primary == PROTOCOL:
        return DatabaseBusy(f"the locks of {path} are in use: {words}", "sidecar tries again by itself")
    if primary == FULL:
        return NoRoom(f"no room left to copy {path}: {words}", "free some space or set staging_dir")
    if "not a database" in words:
        return DamagedDatabase(
            f"{path} is not an SQLite database: {words}", "is it encrypted, or another kind of file?"
        )
    if "malformed" in words or "corrupt" in words:
        return DamagedDatabase(
            f"{path} is damaged: {words}", "run PRAGMA integrity_check; `sidecar list` shows older points"
        )
    if primary in {IOERR, NOMEM, NOLFS}:
        return failed(path, f"{words} (SQLite's result code {code_of(error)})")
    if "readonly" in words or "unable to open" in words:
        return ConfigurationError(
            f"{path} cannot be opened for writing: {words}", "SQLite needs to write in the database's directory"
        )
    return DamagedDatabase(f"{path} cannot be read: {words}")
