"""A lock that keeps a log from being reset, and yet lets all of it be copied into the database.

A reader uses one of four slots of the wal-index, with the frame up to which it reads; a checkpoint stops there, and a reset
needs the locks of all four (https://sqlite.org/walformat.html#wal_locks). The lock of an unused slot only
prevents the reset, because its lock must be taken exclusively to start using it.

It belongs to the open file, not to the process (fcntl(2), "Open file description locks", of Linux): SQLite's locks in this
process neither drop it nor get past it. Without such locks, nothing is pinned.
"""

import errno
import fcntl
import os
import struct

_FLOCK = struct.Struct("hhqqi4x")
_MARKS, _MARK = 100, 4  # aReadMark: where it begins in the wal-index, and bytes for each slot
_UNUSED = b"\xff" * _MARK
_LOCKS = 123  # the byte of slot 0, which has no mark and is for readers of the database without the log
_SLOTS = range(4, 0, -1)  # a reader takes the first one that is free


class Pin:
    """The pin of one wal-index; used by one thread."""

    def __init__(self, shm: int) -> None:
        self._shm = shm
        self._slot = 0

    @property
    def held(self) -> bool:
        """Whether the log is kept from being reset."""
        return bool(self._slot)

    def take(self) -> bool:
        """Keep the log from being reset, if a slot is unused. Returns whether it is pinned."""
        if self._slot or not hasattr(fcntl, "F_OFD_SETLK"):
            return self.held
        for slot in filter(self._is_unused, _SLOTS):
            try:
                self._set(fcntl.F_RDLCK, slot)
            except OSError as error:
                if error.errno in {errno.EACCES, errno.EAGAIN}:
                    continue
                return False
            if self._is_unused(slot) and self._is_seen(slot):  # from here on no reader can use it
                self._slot = slot
                return True
            self._set(fcntl.F_UNLCK, slot)
        return False

    def release(self) -> None:
        """Allow the log to be reset, unless a reader prevents it."""
        if self._slot:
            self._set(fcntl.F_UNLCK, self._slot)
            self._slot = 0

    def _set(self, kind: int, slot: int) -> None:
        fcntl.fcntl(self._shm, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _LOCKS + slot, 1, 0))

    def _is_seen(self, slot: int) -> bool:
        """Whether our lock blocks locks like those of SQLite, in this process and in others."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCKS + slot, 1, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(self._shm, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)

    def _is_unused(self, slot: int) -> bool:
        return os.pread(self._shm, _MARK, _MARKS + _MARK * slot) == _UNUSED
