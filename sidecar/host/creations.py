"""Notices that a name is created in a directory, however briefly it exists, by inotify(7)."""

import ctypes
import os
import struct
import weakref
from pathlib import Path

_CREATE, _MOVED_TO, _ONLYDIR = 0x100, 0x80, 0x01000000
_HEADER = struct.Struct("iIII")


class Creation:
    """Watches for one name in a directory. The kernel queues events until they are read. The file itself is never opened."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the directory does not exist or cannot be watched."""
        self._name, self._seen = path.name, False
        libc = ctypes.PyDLL(None, use_errno=True)  # these calls return at once, so the GIL may be held
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._file: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        weakref.finalize(self, os.close, self._file)
        if libc.inotify_add_watch(self._file, os.fsencode(path.parent), _CREATE | _MOVED_TO | _ONLYDIR) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path.parent))

    def seen(self) -> bool:
        """Whether the name has been created since the watch began."""
        while not self._seen:
            try:
                events = os.read(self._file, 1 << 16)
            except BlockingIOError:
                break
            self._seen = any(name == self._name for name in _names(events))
        return self._seen


def _names(events: bytes) -> list[str]:
    found, offset = [], 0
    while offset < len(events):
        *_, length = _HEADER.unpack_from(events, offset)
        offset += _HEADER.size
        found.append(os.fsdecode(events[offset : offset + length].rstrip(b"\0")))
        offset += length
    return found
