"""The one thread that follows all databases of the process."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import close_kept, close_kept_in_passing
from sidecar.database.wal.follower import BETWEEN_STATS, Follower
from sidecar.database.wal.reader import NotNow
from sidecar.database.wal.wakeups import Wakeups
from sidecar.log import log

EVERY = 0.05  # seconds between looks
EVERY_PARKED = 0.25
EVERY_ASIDE = 0.002
EVERY_EAGER = 0.01  # after a program has opened a database that we had closed
EAGER = 0.5  # seconds


@dataclass(eq=False, slots=True)
class Track:
    """A database that is followed, or was followed until `cut`. `on_news` is called in the worker's thread.

    `tried` and `looked` are monotonic times of looks: the last one, and the last one that saw all that was committed.
    """

    path: Path
    follower: Follower
    on_news: Callable[[], None]
    cut: StreamCut | None = None
    leaves_log: bool = False  # at the cut
    due: float = 0.0
    tried: float = 0.0
    looked: float = 0.0
    eager_until: float = 0.0
    touched: bool = False  # a program has opened, closed or moved the database since
    warned: bool = False

    @property
    def has_news(self) -> bool:
        """Whether something is waiting to be taken."""
        return self.cut is not None or not self.follower.backlog.empty

    def rests(self, now: float, due: float) -> bool:
        """Whether nothing has happened, so that the next look comes at `due`. Nearly all looks at idle databases end here."""
        follower = self.follower
        calm = follower.calm
        if calm is None or self.touched or now < self.eager_until or now - follower.checked >= BETWEEN_STATS:
            return False
        try:
            if calm.is_over():
                return False
        except OSError:  # the look that follows meets it as well, and ends the stream
            return False
        self.tried = self.looked = now
        self.due = due
        return True

    def look(self, now: float, *, thorough: bool = False) -> None:
        """Look once. A cut closes the database."""

        thorough, self.touched = thorough or self.touched, False
        self.tried = now
        if not thorough and self._is_quiet(now):
            self.looked, self.due = now, _next(now, EVERY_EAGER if self._is_eager(now) else EVERY_PARKED)
            return

        def look() -> None:  # neither at a cut nor while the database is locked, all that was committed is captured
            if self.follower.look(thorough=thorough):
                self.looked = now

        with suppress(StreamCut):
            self.attempt(look)
            self._warn()
        every = EVERY_PARKED if self.follower.parked else EVERY
        if self.follower.hold.aside:
            every = EVERY_ASIDE
        if self.looked < now or self._is_eager(now):
            every = EVERY_EAGER
        self.due = _next(now, every)
        if self.has_news:
            self.on_news()

    def _is_quiet(self, now: float) -> bool:
        try:
            return self.follower.is_quiet(now)
        except Exception:  # noqa: BLE001 - the look that follows meets it as well, and ends the stream
            return False

    def _is_eager(self, now: float) -> bool:
        return now < self.eager_until and self.follower.away is not None

    def attempt(self, work: Callable[[], object]) -> None:
        """Do something with the follower. Raises `NotNow`; any other failure is a cut, which ends the capture.

        After a cut, which may have come since this was ordered, it raises that one again.
        """
        if self.cut:
            raise StreamCut(self.cut.cause, str(self.cut)) from self.cut
        try:
            work()
        except NotNow:
            raise
        except StreamCut as cut:
            self._end(cut)
            raise
        except Exception as error:
            log.exception("following failed", path=str(self.path))
            bug = StreamCut(CutCause.ERROR, f"{self.path}: {error!r}")
            self._end(bug)
            raise bug from error

    def _end(self, cut: StreamCut) -> None:
        self.leaves_log = _leaves_log(self.follower)  # before anybody can see the cut
        self.cut = cut
        self.follower.close()

    def _warn(self) -> None:
        if self.follower.counters.unsummed and not self.warned:
            self.warned = True
            log.warning(
                "frames without checksums found",
                path=str(self.path),
                hint="the app's SQLite writes a WAL that it cannot recover after a crash: 3.40 and older do after ROLLBACK TO; use a newer one",
            )


def _leaves_log(follower: Follower) -> bool:
    """Whether a log that belongs to the followed file stays beside another file of that name, and is read over that one.

    It may have commits that no look has seen, and a program that has the followed file open may add some.
    """
    try:
        if follower.position.frame:
            return True
        files = follower.hold.hands.files
        return files.has_log(follower.path) and (follower.index().frame > 0 or files.others())
    except (NotNow, StreamCut, OSError):  # its header is being written, or we had it closed for want of others
        return follower.away is None


def _next(now: float, every: float) -> float:
    """The time of the next look: the same for all databases, so that the thread wakes up rarely."""
    return (now // every + 1) * every


class Worker:
    """Runs until it is stopped. Orders are executed in its thread, between two looks."""

    def __init__(self) -> None:
        self._wakeups = Wakeups()
        self._tracks: dict[Path, Track] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._stopping = self._ended = False
        self._putting = threading.Lock()

    def put(self, order: Callable[[], None]) -> None:
        """Have an order, which must not raise, executed soon; callable from any thread. Raises RuntimeError after the end."""
        with self._putting:
            if self._ended:
                raise RuntimeError("nothing is followed any more")
            self._orders.append(order)
            self._wakeups.wake()

    def stop(self) -> None:
        """Stop soon; callable from any thread."""
        with self._putting:
            self._stopping = True
            if not self._ended:
                self._wakeups.wake()

    def add(self, track: Track) -> None:
        """Follow a database from now on, replacing any track of the same path. Called in the worker's thread."""
        self.remove(track.path)
        self._tracks[track.path] = track
        self._wakeups.watch(track.path)

    def remove(self, path: Path) -> None:
        """Close a database. Called in the worker's thread."""
        if track := self._tracks.pop(path, None):
            self._wakeups.ignore(path)
            track.follower.close()

    def run(self) -> None:
        """Follow until `stop`, and then close everything."""
        try:
            while not self._stopping:
                self._obey()
                now = time.monotonic()
                due = _next(now, EVERY_PARKED)
                for track in list(self._tracks.values()):
                    if track.due <= now and track.cut is None and not track.rests(now, due):
                        track.look(now)
                close_kept_in_passing()
                self._wait()
        finally:
            with self._putting:
                self._ended = True
            self._obey()
            for path, track in list(self._tracks.items()):
                track.cut = track.cut or StreamCut(CutCause.ERROR, f"{path} is not followed any more")
                track.on_news()
                self.remove(path)
            close_kept()
            self._wakeups.close()

    def _obey(self) -> None:
        while self._orders:
            self._orders.popleft()()

    def _wait(self) -> None:
        dues = [track.due for track in self._tracks.values() if track.cut is None]
        seconds = min(dues) - time.monotonic() if dues else 60.0
        for path in self._wakeups.wait(0.0 if self._orders or self._stopping else min(seconds, 60.0)):
            if (track := self._tracks.get(path)) and track.cut is None:
                self._touched(track)

    @staticmethod
    def _touched(track: Track) -> None:
        """Look at once after a program has opened, closed or moved the database, unless it does so all the time."""
        now = time.monotonic()
        if track.follower.away:
            track.eager_until = now + EAGER
        if now - track.tried >= EVERY_EAGER:
            track.look(now, thorough=True)
        else:
            track.touched, track.due = True, min(track.due, track.tried + EVERY_EAGER)
