"""A standard error that never blocks the process: a thread of its own writes it, and what nobody reads is dropped.

A pipe holds 64 KiB (pipe(7)). When its reader stops reading, the next write(2) waits for ever, and the app fills the same
pipe. O_NONBLOCK is no way out: it belongs to the open file description, which the app shares. The app may set it all the
same; then a full pipe is waited for with poll(2).
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
DRAIN_SECONDS = 2.0  # at the end of the process: a reader that is merely slow gets the last lines


class QueuedStream(io.TextIOBase):
    """A text stream onto a file descriptor whose writes return at once.

    At most `limit` bytes wait for the reader; what is written beyond that is dropped and counted. `on_resumed` is called
    with the number of lines dropped when the reader has caught up.
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
        """The encoding of the text; characters that it lacks are escaped."""
        return self._encoding

    @property
    def dropped(self) -> int:
        """Lines dropped so far because nobody read them."""
        return self._dropped

    def fileno(self) -> int:
        """The descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Queue some text, or drop it when too much waits already. Never blocks and never fails."""
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
        """Do nothing: flushing would wait for the reader. See `drain`."""

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until everything is written, at most so long. Whether it was."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._size:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _start_thread(self) -> None:
        """Start the writing thread; where the system allows none, the next write tries again."""
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
                with suppress(Exception):  # a bug there must not end this thread, and all output with it
                    self.on_resumed(resumed)

    def _write_out(self, data: bytes) -> None:
        """Write all of it. A reader that has gone, or a full disk, loses the line and nothing else."""
        view = memoryview(data)
        with suppress(OSError):
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    _wait_for_room(self._descriptor)


def _wait_for_room(descriptor: int) -> None:
    """Wait until a descriptor with O_NONBLOCK can be written to, or has an error to report."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def queue_stderr() -> QueuedStream:
    """Make `sys.stderr` such a stream for the rest of the process."""
    stream = QueuedStream(sys.stderr.fileno(), sys.stderr.encoding)
    sys.stderr.flush()
    sys.stderr = stream
    return stream


def drain_stderr() -> None:
    """Give the reader of a queued standard error the time to take the last lines."""
    if isinstance(sys.stderr, QueuedStream):
        sys.stderr.drain()


def dropped_lines() -> int:
    """Lines of a queued standard error that nobody read in time, since the start of the process."""
    return sys.stderr.dropped if isinstance(sys.stderr, QueuedStream) else 0
