"""Errors of this machine's files, and what each of them is a reason for."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.errors import ConfigurationError, LocalFailure, NoRoom, SidecarError

_OF_THE_MACHINE = {
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENXIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EUCLEAN,
}


@contextmanager
def local_errors(target: Path) -> Iterator[None]:
    """The one place where errors of local files become ours. None of them means that data is damaged."""
    try:
        yield
    except OSError as error:
        raise translate(error, target) from error


def translate(error: OSError, target: Path) -> SidecarError:
    """Our error for one of the operating system's about a file beside a database, or the database."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return NoRoom(f"no room to write {target}: {error.strerror}", "free some space or use a larger disk")
    if is_failure(error):
        return failed(target, error.strerror)
    if error.errno == errno.EBUSY:
        return ConfigurationError(
            f"cannot replace {target}: {error.strerror}", "is it a mount point of its own? Mount the directory instead"
        )
    return ConfigurationError(
        f"cannot write {target}: {error.strerror}", "the directory must exist and be writable for sidecar and the app"
    )


def is_failure(error: OSError) -> bool:
    """Whether this machine failed, while neither the file nor the right to use it need be wrong."""
    return error.errno in _OF_THE_MACHINE


def failed(path: Path, reason: str | None) -> LocalFailure:
    """This machine could not read or write a file, whatever is in it."""
    return LocalFailure(
        f"{path} cannot be read or written: {reason}",
        "this does not mean that it is damaged: check the disk and the memory of this machine, or start on another one",
    )
