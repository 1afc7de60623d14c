"""A lock that keeps a log from being reset, and yet lets all of it be copied into the database.

A reader uses one of four slots of the wal-index, with the frame up to which it reads; a checkpoint stops there, and a reset
needs the locks of all four (https://sqlite.org/walformat.html#wal_locks). The lock of an unused slot only
prevents the reset, because its lock must be taken exclusively to start using it.

It belongs to the open file, not to the process: SQLite's locks in this process neither drop it nor get past it.
"""

import os

from sidecar.database.wal.locks import is_locked, share_of_file, unlock_of_file

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
        if self._slot:
            return True
        for slot in filter(self._is_unused, _SLOTS):
            if self._lock(slot):
                if self._is_unused(slot) and self._is_seen(slot):  # from here on no reader can use it
                    self._slot = slot
                    return True
                self._unlock(slot)
        return False

    def release(self) -> None:
        """Allow the log to be reset, unless a reader prevents it."""
        if self._slot:
            self._unlock(self._slot)
            self._slot = 0

    def _lock(self, slot: int) -> bool:
        return share_of_file(self._shm, _LOCKS + slot)

    def _unlock(self, slot: int) -> None:
        unlock_of_file(self._shm, _LOCKS + slot)

    def _is_seen(self, slot: int) -> bool:
        """Whether our lock blocks locks like those of SQLite, in this process and in others."""
        return is_locked(self._shm, _LOCKS + slot, 1)

    def _is_unused(self, slot: int) -> bool:
        return os.pread(self._shm, _MARK, _MARKS + _MARK * slot) == _UNUSED
