"""A standard error that never blocks the process: a separate thread writes it, and lines that nobody reads are dropped.

A pipe holds 64 KiB (pipe(7)). When its reader stops reading, the next write(2) blocks for ever, and the app writes to the
same pipe. O_NONBLOCK does not help, because it belongs to the open file description, which the app shares. If the app sets
it itself, a full pipe is waited for with poll(2).
"""

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

QUEUE_BYTES = 1 << 20
DRAIN_SECONDS = 2.0  # before the process exits, so that a slow reader gets the last lines


class QueuedStream(io.TextIOBase):
    """A text stream to a file descriptor. Writes return immediately.

    At most `limit` bytes are queued; writes beyond that are dropped and counted. When the reader has caught up, `on_resumed`
    is called with the number of dropped lines.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8", limit: int = QUEUE_BYTES) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._reported = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.on_resumed: Callable[[int], None] = lambda _lines: None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the output. Characters outside it are escaped."""
        return self._encoding

    @property
    def dropped(self) -> int:
        """The number of lines dropped so far."""
        return self._dropped

    def fileno(self) -> int:
        """The underlying file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Queue the text, or drop it if the queue is full. Never blocks and never raises."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._size + len(data) > self._limit:
                self._dropped += max(1, text.count("\n"))
                return len(text)
            self._waiting.append(data)
            self._size += len(data)
            if self._thread is None:
                self._start_thread()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing, because flushing would wait for the reader. See `drain`."""

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait at most this long until the queue is written. Returns whether it was."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._size:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _start_thread(self) -> None:
        """Start the writer thread. If the system refuses another thread, the next write tries again."""
        thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                data = self._waiting.popleft()
            self._write_out(data)
            with self._changed:
                self._size -= len(data)
                self._changed.notify_all()
                resumed = 0 if self._waiting else self._dropped - self._reported
                self._reported += resumed
            if resumed:
                with suppress(Exception):  # a bug in the callback must not end this thread, and with it all output
                    self.on_resumed(resumed)

    def _write_out(self, data: bytes) -> None:
        """Write all of `data`. If the reader has exited or the disk is full, only this text is lost."""
        view = memoryview(data)
        with suppress(OSError):
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    _wait_for_room(self._descriptor)


def _wait_for_room(descriptor: int) -> None:
    """Wait until a descriptor with O_NONBLOCK is writable or has an error."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def queue_stderr() -> QueuedStream:
    """Replace `sys.stderr` with a `QueuedStream` for the rest of the process."""
    stream = QueuedStream(sys.stderr.fileno(), sys.stderr.encoding)
    sys.stderr.flush()
    sys.stderr = stream
    return stream


def drain_stderr() -> None:
    """Wait for the reader of a queued standard error to take the last lines."""
    if isinstance(sys.stderr, QueuedStream):
        sys.stderr.drain()


def dropped_lines() -> int:
    """The lines that a queued standard error has dropped since the start of the process, else 0."""
    return sys.stderr.dropped if isinstance(sys.stderr, QueuedStream) else 0
