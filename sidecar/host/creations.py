"""Notices that a name is created in a directory, however briefly it exists, by inotify(7)."""

import ctypes
import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path

_CREATE, _MOVED_TO, _ONLYDIR = 0x100, 0x80, 0x01000000
_OVERFLOW, _IS_DIRECTORY = 0x4000, 0x40000000
_HEADER = struct.Struct("iIII")


@dataclass(slots=True)
class Seen:
    """What has appeared under the name since the beginning. `lost`: the kernel has dropped events, so it may be more."""

    file: bool = False
    directory: bool = False
    lost: bool = False


class Creation:
    """Watches for one name in a directory. The kernel queues events until they are read. The file itself is never opened."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the directory does not exist or cannot be watched."""
        self._name, self._seen = path.name, Seen()
        libc = ctypes.PyDLL(None, use_errno=True)  # these calls return at once, so the GIL may be held
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._file: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        weakref.finalize(self, os.close, self._file)
        if libc.inotify_add_watch(self._file, os.fsencode(path.parent), _CREATE | _MOVED_TO | _ONLYDIR) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path.parent))

    def seen(self) -> Seen:
        """What has appeared; reads all events that there are."""
        while True:
            try:
                events = os.read(self._file, 1 << 16)
            except BlockingIOError:
                return self._seen
            for mask, name in _parse(events):
                if mask & _OVERFLOW:  # it has no name; the queue is as long as fs.inotify.max_queued_events
                    self._seen.lost = True
                elif name == self._name:
                    self._seen.directory |= bool(mask & _IS_DIRECTORY)
                    self._seen.file |= not mask & _IS_DIRECTORY


def _parse(events: bytes) -> list[tuple[int, str]]:
    found, offset = [], 0
    while offset < len(events):
        _, mask, _, length = _HEADER.unpack_from(events, offset)
        offset += _HEADER.size
        found.append((mask, os.fsdecode(events[offset : offset + length].rstrip(b"\0"))))
        offset += length
    return found
