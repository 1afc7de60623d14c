"""The signature of a database: what stat reports of its file and its WAL."""

import os
import stat
import time
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.host import failed, is_failure
from sidecar.model import FileStamp, Signature

RACY_NS = 1_000_000_000


def signature_of(path: Path) -> Signature | None:
    """The signature now; None when the database does not exist or has zero bytes.

    Raises `ConfigurationError` when the path is not a regular file or may not be read, `LocalFailure`.
    """
    try:
        database = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if is_failure(error):
            raise failed(path, error.strerror) from error
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", "check the path's permissions") from error
    if not stat.S_ISREG(database.st_mode):
        kind = "a directory" if stat.S_ISDIR(database.st_mode) else "not a regular file"
        raise ConfigurationError(f"{path} is {kind}", "`databases` takes the path of the SQLite file itself")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{path} cannot be read: Permission denied", "check the file's permissions")
    wal = _stat_or_none(path.with_name(f"{path.name}-wal"))
    if not database.st_size:
        return None
    newest = max(database.st_mtime_ns, wal.st_mtime_ns if wal else 0)
    racy = time.time_ns() - newest < RACY_NS
    # An empty WAL means nothing: the first reader creates it, and changes nothing.
    return Signature(_stamp(database), _stamp(wal) if wal and wal.st_size else None, racy)


def _stat_or_none(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError as error:
        if is_failure(error):  # not taken for a database without changes
            raise failed(path, error.strerror) from error
        return None


def _stamp(of: os.stat_result) -> FileStamp:
    return FileStamp(of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns)
