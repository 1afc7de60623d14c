"""Counts how often a log is created anew, which inotify(7) tells: each program that comes while nobody has it open does so.

Before Linux 6.13, the times of files are as coarse as the kernel's ticks, of up to 10 ms. A program may open a database, commit
and close it again within one of them, and its file then has the same times as before.
"""

import ctypes
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

# With the removals between two creations, no two events in a row are the same: the kernel would make one of them.
_CREATE, _MOVED_TO, _DELETE, _ONLYDIR, _OVERFLOW = 0x100, 0x80, 0x200, 0x01000000, 0x4000
_HEADER = struct.Struct("iIII")


class Births:
    """How often a name was created in its directory since `begin`."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.times, self.lost = 0, not _directories.watch(path.parent, self)

    def begin(self) -> None:
        """Count from now on."""
        _directories.read()
        self.times = 0

    def count(self) -> int | None:
        """The number until now; None where it is not known."""
        _directories.read()
        return None if self.lost else self.times


class _Directories:
    """One queue of events for the process: a user may have only 128 of them (fs.inotify.max_user_instances)."""

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None, use_errno=True)  # these calls return at once, so the GIL may be held
        self._file = -1
        self._watched: dict[int, weakref.WeakSet[Births]] = {}
        self._lock = threading.Lock()

    def watch(self, directory: Path, births: Births) -> bool:
        """Whether its births will be counted."""
        with self._lock:
            if self._file < 0 and hasattr(self._libc, "inotify_init1"):
                self._file = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            mask = _CREATE | _MOVED_TO | _DELETE | _ONLYDIR
            number = -1 if self._file < 0 else self._libc.inotify_add_watch(self._file, os.fsencode(directory), mask)
            if number >= 0:
                self._watched.setdefault(number, weakref.WeakSet()).add(births)
            return number >= 0

    def read(self) -> None:
        """Count all events that there are."""
        with self._lock:
            if self._file < 0:
                return
            for number, mask, name in self._events():
                if mask & _OVERFLOW:  # the queue is as long as fs.inotify.max_queued_events
                    for births in [each for some in self._watched.values() for each in some]:
                        births.lost = True
                elif mask & (_CREATE | _MOVED_TO):
                    for births in self._watched.get(number, ()):
                        births.times += births.name == name
            self._forget()

    def _events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                events = os.read(self._file, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                number, mask, _, length = _HEADER.unpack_from(events, at)
                at += _HEADER.size
                yield number, mask, os.fsdecode(events[at : at + length].rstrip(b"\0"))
                at += length

    def _forget(self) -> None:
        for number in [number for number, some in self._watched.items() if not some]:
            self._libc.inotify_rm_watch(self._file, number)
            del self._watched[number]


_directories = _Directories()
