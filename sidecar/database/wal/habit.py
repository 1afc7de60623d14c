"""Apps that open and close their database all the time, as for each request, faster than it can be followed again each time."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.database.wal.cuts import StreamCut

_WITHIN = 600.0  # seconds
_MISSED = 3


class Habit:
    """Of the app of one database, over all that follow it one after the other.

    While the database is kept open by us, the close of such an app is not the last one, and nothing is missed. But then a
    file that is put in its place within milliseconds of a close meets a log. So that is done only where it is needed.
    """

    def __init__(self) -> None:
        self._missed: deque[float] = deque(maxlen=_MISSED)
        self._last = float("-inf")

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A cut in here means that it was opened, and closed again or replaced, before it could be followed."""
        try:
            yield
        except StreamCut:
            self._missed.append(time.monotonic())
            if len(self._missed) == _MISSED and self._missed[0] > self._missed[-1] - _WITHIN:
                self._last = self._missed[-1]
            raise

    def returned(self) -> None:
        """It was opened again."""
        if self.keeps:
            self._last = time.monotonic()

    @property
    def keeps(self) -> bool:
        """Whether we keep the database open."""
        return time.monotonic() - self._last < _WITHIN
