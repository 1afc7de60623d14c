"""Wakes the following thread: other threads do so, and programs that open or close a database (inotify(7))."""

import ctypes
import os
import select
import struct
from contextlib import suppress
from pathlib import Path

_EVENT = struct.Struct("iIII")
_CLOSE_WRITE, _OPEN, _MOVE_SELF, _ATTRIBUTES = 0x8, 0x20, 0x800, 0x4  # the last one: its name was removed


class Wakeups:
    """Waits for wake-ups. Without inotify, or another watch, only other threads wake it; periodic checks still happen in time."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._libc = ctypes.PyDLL(None, use_errno=True)  # these calls return at once, so the GIL may be held
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._events: int = self._libc.inotify_init1(flags) if hasattr(self._libc, "inotify_init1") else -1
        self._watched: dict[int, Path] = {}
        self._poll = select.poll()
        for file in filter(lambda file: file >= 0, (self._reader, self._events)):
            self._poll.register(file, select.POLLIN)

    def wake(self) -> None:
        """End the wait; callable from any thread."""
        with suppress(BlockingIOError):  # enough wake-ups are waiting
            os.write(self._writer, b"\0")

    def watch(self, path: Path) -> None:
        """Wake up when a program opens this file, closes it after it could write, or moves it away."""
        if self._events >= 0:
            self.ignore(path)
            mask = _CLOSE_WRITE | _OPEN | _MOVE_SELF | _ATTRIBUTES
            number = self._libc.inotify_add_watch(self._events, os.fsencode(path), mask)
            if number >= 0:
                self._watched[number] = path

    def ignore(self, path: Path) -> None:
        """Stop waking up for this path."""
        for number in [number for number, known in self._watched.items() if known == path]:
            self._libc.inotify_rm_watch(self._events, number)
            del self._watched[number]

    def wait(self, seconds: float) -> set[Path]:
        """Wait this long, or until a wake-up. Returns the paths that programs have opened, closed or moved."""
        ready = {file for file, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._reader in ready:
            os.read(self._reader, 4096)
        return self._touched(os.read(self._events, 1 << 16)) if self._events in ready else set()

    def close(self) -> None:
        """Close all descriptors."""
        for file in filter(lambda file: file >= 0, (self._reader, self._writer, self._events)):
            os.close(file)

    def _touched(self, events: bytes) -> set[Path]:
        found, at = set(), 0
        while at < len(events):
            number, _, _, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size + length
            if number in self._watched:
                found.add(self._watched[number])
        return found
