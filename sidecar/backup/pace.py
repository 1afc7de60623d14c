"""Limits how often streams write: segments of all databases together, and new streams after cuts."""

from collections import deque

import anyio

from sidecar.host import Clock

CUTS, CUTS_WITHIN = 5, 600.0
BETWEEN_STREAMS = 60.0
LOOK_SECONDS = 1.0  # between looks for what was captured
IDLE_SECONDS, IDLE_AFTER = 5.0, 15.0  # the same once nothing was committed for a while: each look wakes the process up


def until_next_look(now: float, used: float) -> float:
    """Seconds at the monotonic time `now`, if the last commit was at `used`; at the same instants for all databases."""
    every = IDLE_SECONDS if now - used > IDLE_AFTER else LOOK_SECONDS
    return every - now % every


class Pace:
    """One turn per interval for all databases of a daemon, in the order of their requests.

    A turn that came late does not delay the next one: who committed just after it would wait for both.
    """

    def __init__(self, interval: float, clock: Clock) -> None:
        """`interval` is in seconds."""
        self._interval = interval
        self._clock = clock
        self._next = clock.monotonic()
        self._waiting = anyio.Lock()

    async def turn(self) -> None:
        """Wait for a turn."""
        async with self._waiting:
            now = self._clock.monotonic()
            if self._next > now:
                await self._clock.sleep(self._next - now)
            elif now - self._next >= self._interval:
                self._next = now  # nobody wanted a turn, or a request took long
            self._next += self._interval


class Cuts:
    """The cuts of one database's streams, at monotonic times in seconds. Each new stream needs a restore point."""

    def __init__(self, rest: float) -> None:
        """`rest` is how long streaming pauses after repeated cuts, in seconds."""
        self._rest = rest
        self._times: deque[float] = deque(maxlen=CUTS)
        self._began: float | None = None

    def began(self, now: float) -> None:
        """Record that a stream began."""
        self._began = now

    def pause(self, now: float) -> tuple[float, float]:
        """Record a cut. Returns the seconds until the next restore point may follow, and how long streaming then pauses."""
        self._times.append(now)
        wait = max(0.0, self._began + BETWEEN_STREAMS - now) if self._began is not None else 0.0
        if len(self._times) == CUTS and now - self._times[0] <= CUTS_WITHIN:
            self._times.clear()
            return wait, self._rest
        return wait, 0.0
