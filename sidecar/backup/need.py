"""Whether a whole restore point is worth its bytes while a healthy stream has every commit (`restore_points=auto`)."""

from dataclasses import dataclass

from sidecar.host import Clock
from sidecar.policies import LONGEST_WAIT as LONGEST
from sidecar.policies import SMALL_OBJECT as SMALL
from sidecar.status import DatabaseStatus

SHARE = 4  # a quarter of the object was streamed since the newest one


@dataclass(frozen=True, slots=True)
class Added:
    """What the next restore point would add to the newest one, whose object has `size` bytes and is `age` seconds old.

    `streamed` is the number of bytes in segments that were published since.
    """

    size: int
    streamed: int
    age: float


def is_worthwhile(added: Added, interval: float) -> bool:
    """Whether to publish now rather than to wait for another `interval`, in seconds. Pure."""
    too_old_by_then = added.age + interval > LONGEST
    return added.size <= SMALL or added.streamed * SHARE >= added.size or too_old_by_then


class Spacing:
    """Decides whether one database's next restore point may wait, because its stream has everything."""

    def __init__(self, status: DatabaseStatus, clock: Clock, interval: float, longest_lag: float) -> None:
        """`interval` and `longest_lag` are in seconds; a stream that lags further behind is not relied upon."""
        self._status = status
        self._clock = clock
        self._interval = interval
        self._longest_lag = longest_lag
        self._copied: tuple[float, int] | None = None
        self._newest: tuple[float, int] | None = None

    def begin(self) -> None:
        """A copy for a restore point is about to be made."""
        self._copied = self._clock.monotonic(), self._status.stream.uploaded

    def published(self) -> None:
        """That restore point was published."""
        self._newest = self._copied

    def may_wait(self) -> bool:
        """Whether the next restore point may wait. Only after one of this process: how much an earlier one lacks is not known."""
        status, stream = self._status, self._status.stream
        if self._newest is None or status.failing_since or not (stream.active and stream.protects):
            return False
        if stream.lag_seconds(self._clock.now()) > self._longest_lag:
            return False
        began, uploaded = self._newest
        if stream.uploaded == uploaded:  # no commit explains why the files have changed: it may be a write past the log
            return False
        added = Added(status.restore_point_size, stream.uploaded - uploaded, self._clock.monotonic() - began)
        return not is_worthwhile(added, self._interval)
