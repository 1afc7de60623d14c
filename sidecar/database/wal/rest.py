"""Recognises a database whose log adds nothing to its file, and proves later that the log beside it is the first one since."""

import os
import time
from contextlib import suppress
from pathlib import Path

from sidecar.database.wal.descriptors import Stamps

_TICK = 0.02  # seconds: the kernel's clock, which stamps files, is as coarse as that or finer
_SECOND = 10**9  # nanoseconds


def at_rest(path: Path) -> Stamps | None:
    """The stamps of a database at rest now; None if its log may have frames, or if a later write might leave the same stamps.

    From then on a commit can only be in the first generation of the log, or have changed the database's file: a log is reset
    only after all of it was copied there.
    """
    with suppress(OSError):
        stamps = Stamps.of(path)
        age = time.time() - max(stamps.written, stamps.changed) / _SECOND
        if abs(age) < _TICK:
            time.sleep(_TICK)
        exact = stamps.written % _SECOND and stamps.changed % _SECOND  # not a file system that counts in whole seconds
        if exact and age > -_TICK and stamps.size and not _has_log(path) and is_same(path, stamps):
            return stamps
    return None


def is_same(path: Path, stamps: Stamps) -> bool:
    """Whether the file was not written, nor replaced, since it had these stamps."""
    try:
        return Stamps.of(path) == stamps
    except OSError:
        return False


def _has_log(path: Path) -> bool:
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except FileNotFoundError:
        return False
