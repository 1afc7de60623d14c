"""Operating-system functions for a store in a directory: locks, files, and the translation of errors."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from anyio import from_thread

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NoRoom,
    NotFound,
    PreconditionFailed,
    SidecarError,
    StoreUnavailable,
)
from sidecar.model import Span

LOCK_PATIENCE = 10.0


def lock(file: int, root: Path) -> None:
    """Lock a file with flock(2). Gives up when cancelled or after a timeout, so that a stuck lock cannot block a shutdown."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            from_thread.check_cancelled()
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the store {root} is locked by another process",
                    "sidecar tries again; `fuser` on .sidecar/lock shows the process",
                ) from None
            time.sleep(0.01)
        else:
            return


def bounds(span: Span | None, size: int) -> tuple[int, int]:
    """Start and end of a span in an object of `size` bytes. Raises `PreconditionFailed` if it begins past the end."""
    if span is None:
        return 0, size
    start = max(0, size + span.start) if span.start < 0 else span.start
    if span.start >= size:
        raise PreconditionFailed(f"the object has {size} bytes: there is none at {start}")
    return start, size if span.end is None else min(span.end, size)


def etag_of(status: os.stat_result) -> str:
    """The ETag of a file. It changes with every write, because every write renames a new file into place."""
    return f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'


def modified_at(status: os.stat_result) -> datetime:
    """The modification time of a file, by the clock of its file system."""
    return datetime.fromtimestamp(status.st_mtime, UTC)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file for reading. Raises `NotFound`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path} does not exist") from error
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def translated(root: Path) -> Iterator[None]:
    """The only place where errors of the operating system become ours."""
    try:
        yield
    except OSError as error:
        raise translate(error, root) from error


def translate(error: OSError, root: Path) -> SidecarError:
    """Our error for an error of the operating system, with a hint."""
    reason = f"the store {root} cannot be used: {error.strerror}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            free = shutil.disk_usage(root).free if root.exists() else 0
            return NoRoom(f"{reason} ({free} bytes free)", "free some space in the store's file system")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessDenied(reason, "check the directory's owner and permissions")
        case errno.ENOTDIR | errno.EISDIR | errno.ENAMETOOLONG | errno.EEXIST:
            return ConfigurationError(reason, "the path of a file:// store must be a directory")
    return StoreUnavailable(reason)
