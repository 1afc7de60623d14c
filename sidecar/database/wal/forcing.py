"""A forced reset of the log: writers are blocked for a few milliseconds, in which the rest of it is copied.

Under steady load there is always a commit between the copy into the database and the next snapshot, so the log would grow
forever. Most of the copying is done before, in rounds, until little is left.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from sidecar.database.driver import Driver
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.limits import Limits

_ROUNDS = 8
_REST = 512 << 10  # bytes that may be left to copy while writers wait
_RESERVE = 0.001  # seconds of the hold that the last hop needs


def force(hands: Hands, hop: Callable[[], None], limits: Limits) -> float | None:
    """Make the next commit reset the log. Returns for how many seconds writers were blocked, or None if they were not.

    Writers are not blocked while a reader prevents the reset, or if the disk is too slow.
    """
    with _Backfill(
        hands.path, hands.driver
    ) as backfill:  # first, so that commits made meanwhile are copied before the hold
        if not _is_nearly_done(hands, hop) or not hands.connections.lock():
            return None
        since = time.monotonic()
        try:
            hop()
            if _rest(hands) <= 2 * _REST and backfill.done_within(since + limits.forced_hold - _RESERVE):
                hop()
        finally:
            hands.connections.unlock()
        return time.monotonic() - since


def _is_nearly_done(hands: Hands, hop: Callable[[], None]) -> bool:
    for _ in range(_ROUNDS):
        hop()
        mark = hands.index().frame
        if hands.backfill() and hands.index().backfilled < mark:
            return False  # a reader of the app has an older snapshot
        hands.files.sync()  # SQLite syncs only in the last round, which would be during the hold
        if _rest(hands) <= _REST:
            return True
    return False


def _rest(hands: Hands) -> int:
    index = hands.index()
    return (index.frame - index.backfilled) * (index.page_size + 24)


class _Backfill:
    """A PASSIVE checkpoint in its own thread: one that waits for the disk cannot be interrupted, but it can be abandoned."""

    def __init__(self, path: Path, driver: Driver) -> None:
        self._path, self._driver = path, driver
        self._ready, self._go, self._done = threading.Event(), threading.Event(), threading.Event()
        self._wanted = False
        self._thread = threading.Thread(target=self._run, name="wal-backfill", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()

    def done_within(self, until: float) -> bool:
        """Begin, and wait until this monotonic time. Returns whether all commits are in the database."""
        self._wanted = True
        self._go.set()
        return self._done.wait(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        try:
            with closing(self._driver.connect(self._path, "rw")) as connection:
                connection.execute("PRAGMA wal_autocheckpoint=0")
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                self._ready.set()
                self._go.wait()
                if self._wanted:
                    busy, log, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    if not busy and log == done:
                        self._done.set()
        except self._driver.error:
            pass
        finally:
            self._ready.set()
