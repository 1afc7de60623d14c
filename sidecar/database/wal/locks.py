"""Locks on bytes of a file, as SQLite has them (fcntl(2)), and those of them that belong to an open file.

The locks of SQLite belong to the process: two connections of one process see none of each other, and closing any
descriptor of the file drops them all. Those of an open file conflict with them as if another process had them.
"""

import errno
import fcntl
import struct
import sys
from collections.abc import Callable
from functools import cache

_DARWIN = sys.platform == "darwin"
_FLOCK = struct.Struct("qqihh" if _DARWIN else "hhqqi4x")
_KIND, _UNLOCKED = slice(20, 22) if _DARWIN else slice(2), struct.pack("h", fcntl.F_UNLCK)
# In XNU's bsd/sys/fcntl.h since macOS 10.15, but not in Python.
_SET, _GET = (90, 92) if _DARWIN else (getattr(fcntl, "F_OFD_SETLK", 37), getattr(fcntl, "F_OFD_GETLK", 36))


def has_locks_of_files(file: int) -> bool:
    """Whether this system has locks that belong to an open file: Linux has, but not everything that passes for it."""
    try:
        _call(file, _GET, fcntl.F_WRLCK, 0, 1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def share_of_file(file: int, byte: int) -> bool:
    """Lock a byte for this open file, as many may; False where somebody has it alone."""
    return _set(file, fcntl.F_RDLCK, byte)


def lock_of_file(file: int, byte: int) -> bool:
    """Lock a byte for this open file alone; False where anybody has it."""
    return _set(file, fcntl.F_WRLCK, byte)


def unlock_of_file(file: int, byte: int) -> None:
    """Give up the lock of this open file on a byte."""
    _set(file, fcntl.F_UNLCK, byte)


def is_locked(file: int, first: int, count: int, *, alone: bool = False) -> bool:
    """Whether another process has a lock on these bytes; with `alone`, one that keeps readers out."""
    return _asked(file, fcntl.F_GETLK, first, count, alone=alone)


def is_locked_by_any(file: int, first: int, count: int, *, alone: bool = False) -> bool:
    """The same of anybody but this open file: the connections of this process count."""
    return _asked(file, _GET, first, count, alone=alone)


def asking(first: int, count: int, *, anybody: bool, alone: bool = False) -> Callable[[int], bool]:
    """`is_locked_by_any`, or without `anybody` `is_locked`, as a function of the file that takes a fraction of the time."""
    ask, command = fcntl.fcntl, _GET if anybody else fcntl.F_GETLK
    request = _request(fcntl.F_RDLCK if alone else fcntl.F_WRLCK, first, count)
    return lambda file: ask(file, command, request)[_KIND] != _UNLOCKED


def _set(file: int, kind: int, byte: int) -> bool:
    try:
        _call(file, _SET, kind, byte, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _asked(file: int, command: int, first: int, count: int, *, alone: bool) -> bool:
    return _call(file, command, fcntl.F_RDLCK if alone else fcntl.F_WRLCK, first, count)[_KIND] != _UNLOCKED


def _call(file: int, command: int, kind: int, first: int, count: int) -> bytes:
    return fcntl.fcntl(file, command, _request(kind, first, count))


@cache  # a few different ones, some of which are made hundreds of times a second
def _request(kind: int, first: int, count: int) -> bytes:
    return _FLOCK.pack(*((first, count, 0, kind, 0) if _DARWIN else (kind, 0, first, count, 0)))
