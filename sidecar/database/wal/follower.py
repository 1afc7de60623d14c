"""Follows the commits of one database in one thread: from a start, through looks, to an end or a cut."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.database.driver import Driver
from sidecar.database.wal.absence import Absence, altered, depart, is_back, leave, require_unlocked
from sidecar.database.wal.backlog import Backlog, Captured
from sidecar.database.wal.calm import Calm, Closed, Parked
from sidecar.database.wal.changed import Changed
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.habit import Habit
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.hold import Counters, Hold
from sidecar.database.wal.limits import Limits
from sidecar.database.wal.reader import NotNow
from sidecar.database.wal.rest import is_same
from sidecar.database.wal.room import await_room, tend
from sidecar.database.wal.tending import Situation, Step, Tending
from sidecar.database.wal.watch import PATIENCE, Departed
from sidecar.model import LogPosition

BETWEEN_STATS = 1.0  # seconds


class Follower:
    """All methods but `index` belong to one thread. What is captured waits in `backlog`."""

    def __init__(self, path: Path, driver: Driver, limits: Limits | None = None, habit: Habit | None = None) -> None:
        self.path, self.limits, self.habit = path, limits or Limits(), habit or Habit()
        self.backlog, self.changed, self.counters = Backlog(self.limits.fold_bytes), Changed(), Counters()
        self.driver, self._tending = driver, Tending(self.limits)
        self._hold: Hold | None = None
        self.away: Absence | None = None  # while we have it closed for want of others: the database as we left it
        self._alone_since: float | None = None
        self.calm: Calm | None = None  # while there is nothing to do
        self.staying = 0  # how many need the database to be open
        self.failed = False
        self._seen, self.checked = b"", time.monotonic()

    @property
    def hold(self) -> Hold:
        """The hold on the database since it was opened last; the last one while it is closed. Raises `StreamCut`."""
        if self._hold is None:
            raise StreamCut(CutCause.ERROR, f"{self.path} was not opened")
        return self._hold

    @property
    def position(self) -> LogPosition:
        """The place in the log up to which all was captured."""
        return self.hold.mark.position

    @property
    def commits(self) -> int:
        """The number of the last captured commit."""
        return self.hold.commits

    @property
    def parked(self) -> bool:
        """Whether nothing is left to do and we block no checkpoint or reset, so that the next look can come later."""
        return self.away is not None or (self._hold is not None and self._hold.parked and self._alone_since is None)

    def open(self, commits: int = 0) -> None:
        """Open the database; commits are numbered from `commits` + 1. Raises `StreamCut`, and `NotNow` while it is locked."""
        hands = Hands(self.path, self.driver)
        self._hold = Hold(hands, self.backlog, self.changed, self.limits, self.counters, commits)

    def start(self, since: Stamps | None = None) -> LogPosition:
        """Begin with a held read transaction whose snapshot is exactly the position. Raises `StreamCut`.

        With `since` all that was committed since the database was at rest then is captured, and waits in `backlog`.
        """
        with _ending(self):
            if since:
                self.hold.start_at_first_frame(lambda: is_same(self.path, since))
            else:
                self.hold.start()
            self.hold.settle(keep=self.habit.keeps)
        return self.position

    def resume(self, log: LogPosition) -> None:
        """Go on where an earlier follower was, if the log proves that nothing is missing; else raises `StreamCut`."""
        with _ending(self):
            self.hold.resume(log)
            self.hold.settle(keep=self.habit.keeps)

    def poll(self) -> list[Captured]:
        """Look, and take what is waiting. Raises `StreamCut`; what was captured before it still waits in `backlog`."""
        self.look()
        return list(self.backlog.take().commits)

    def is_quiet(self, now: float) -> bool:
        """Whether nothing can have happened that a look must see, at the monotonic time `now`; costs two system calls.

        Who has the database open, and whether its files are in place, is looked at once a second, which costs six more.
        """
        calm = self.calm
        if calm is None or calm.is_over():
            return False
        if now - self.checked < BETWEEN_STATS:
            return True
        if self.away or not self.hold.watch.is_undisturbed or self.is_alone():
            return False
        self.checked = now
        return True

    def look(self, *, thorough: bool = False) -> bool:
        """Capture what was committed, and tend the log; costs little when nothing happened. Raises `StreamCut`.

        False if somebody had a lock: then what was committed is captured by a later look.

        A `thorough` look also sees at once, and not within a second, that a file was replaced.
        """
        self.calm = None
        with _ending(self):
            try:
                if self.away is None or self._return(self.away):
                    self._attend(lambda: self._look(self.hold, thorough))
            except NotNow:  # what is held stays held, so nothing can be missed
                self.hold.parked = False
                return False
        return True

    def hop(self) -> None:
        """Capture all that is committed by now. Raises `StreamCut`, and `NotNow` where somebody has a lock."""
        self.calm = None
        with _ending(self):
            if self.away is None or self._return(self.away):
                self._attend(self.hold.hop)

    def index(self) -> WalIndex:
        """The header of the wal-index at this moment, from any thread.

        Raises `NotNow` while it is being written, and `StreamCut` while the database is closed.
        """
        return self.hold.hands.index()

    def commit_at(self, index: WalIndex) -> int | None:
        """The number of the commit that a snapshot shows if `index` was read beside it; None if it is not known."""
        return self.hold.marks.find(index)

    def is_alone(self) -> bool:
        """Whether nobody else has the database open."""
        return self.hold.hands.is_alone(beside=self.staying > 0)

    def close(self) -> None:
        """End, and close everything. After a cut nothing is written, nor deleted."""
        self.away = self.calm = None
        if self._hold:
            self._hold.hands.close(tidy=not self.failed)

    def _look(self, hold: Hold, thorough: bool) -> None:
        now, raw, alone = time.monotonic(), hold.hands.look(), self.is_alone()
        if self._alone_since and not alone:
            self.habit.returned()
        self._alone_since = (self._alone_since or now) if alone and not self.staying else None
        hold.settle(keep=self.habit.keeps)
        if thorough or now - self.checked >= BETWEEN_STATS:
            self.checked = now
            hold.watch.require_files()
        hold.watch.require_welcome()
        if hold.parked and hold.hands.files.checkpointing():
            hold.hop()  # it may wait for us, who only believe to be in nobody's way
        elif hold.parked and raw == self._seen and self._alone_since is None:
            self.calm = Parked.of(hold.hands.files, raw)
            return
        self._seen = raw
        if hold.aside:
            await_room(hold)
        elif not hold.hands.index().same_commit(hold.mark.index):
            hold.hop()
        index, now = hold.hands.index(), time.monotonic()
        step = self._tending.next(
            Situation(index, now, hold.parked, self._alone_since, hold.used, hold.unsummed, hold.aside)
        )
        if step is Step.LEAVE:
            self.away = leave(hold)
            self.counters.departures += self.away is not None
        else:
            forced = self.counters.forced
            tend(hold, step, self.limits, self.is_alone)
            if self.counters.forced > forced:
                self._tending.kept_out(time.monotonic())

    def _return(self, left: Absence) -> bool:
        """Open the database again if anybody has; whether it is open. Raises `StreamCut` unless nothing was missed."""
        with self.habit.noting():
            if not is_back(self.path, left) and not self.staying:
                self.away, self.checked = left.settled(self.path), time.monotonic()
                self.calm = Closed.of(self.path)
                return False
            self._reopen(left)
        self.habit.returned()
        return True

    def _reopen(self, left: Absence) -> None:
        try:
            require_unlocked(self.path)
            self.open(self.commits)
            with _closed_unless_begun(self.hold):
                self.hold.start_at_first_frame(lambda: left.is_same(self.path), counted=left.births is not None)
        except NotNow:
            if time.monotonic() - left.since > PATIENCE:
                raise StreamCut(CutCause.EXCLUSIVE, f"a program has locked {self.path} exclusively") from None
            raise
        except (StreamCut, self.driver.error) as error:
            cause = error.cause if isinstance(error, StreamCut) else CutCause.ERROR
            if cause is CutCause.MODE:  # or there is another file, or none, and SQLite tells of that one
                raise altered(self.path, left.stamps.inode, "was replaced while nobody had it open") from error
            if cause is not CutCause.ERROR or left.is_same(self.path):
                raise
            raise StreamCut(CutCause.REPLACED, f"{self.path} was replaced while nobody had it open: {error}") from error
        self.away = self._alone_since = None
        self.hold.settle(keep=self.habit.keeps)

    def _attend(self, work: Callable[[], None]) -> None:
        """Do something with the open database; if whoever else had it open has closed it, catch up, and open it again."""
        try:
            try:
                work()
            except self.driver.error:
                self.hold.watch.require_files()  # SQLite may fail because of that
                raise
        except Departed:
            with self.habit.noting():
                self.counters.departures += 1
                left = self.away = depart(self.hold)
                self._reopen(left)


@contextmanager
def _closed_unless_begun(hold: Hold) -> Iterator[None]:
    """Another attempt opens the database again: what this one holds would keep the log from being reset for ever."""
    try:
        yield
    except BaseException:
        hold.hands.close(tidy=False)
        raise


@contextmanager
def _ending(follower: Follower) -> Iterator[None]:
    """Nothing can be proved after a cut, and every unexpected error of SQLite or the system is one."""
    try:
        yield
    except StreamCut:
        follower.failed = True
        raise
    except Departed:
        follower.failed = True
        raise StreamCut(CutCause.REPLACED, f"the files of {follower.path} were removed while it was opened") from None
    except (OSError, follower.driver.error) as error:
        follower.failed = True
        cause = CutCause.ERROR if os.path.lexists(follower.path) else CutCause.REPLACED
        raise StreamCut(cause, f"{follower.path}: {error}") from error
