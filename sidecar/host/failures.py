"""Translates errors of this machine's files into ours."""

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
    """Translate an error of the operating system about a database, or a file beside it."""
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
    """Whether the machine failed, rather than the file or the permission to use it being wrong."""
    return error.errno in _OF_THE_MACHINE


def failed(path: Path, reason: str | None) -> LocalFailure:
    """The error for a file that this machine could not read or write, whatever its content."""
    return LocalFailure(
        f"{path} cannot be read or written: {reason}",
        "this does not mean that it is damaged: check the disk and the memory of this machine, or start on another one",
    )
