"""An unbroken hold on an open database, by overlapping read transactions.

A read transaction is held at every moment, whose snapshot is not newer than what was captured. A hop begins the next one
first, then learns from the wal-index how many frames are committed, reads up to there, proves that nothing is missing, and
only then ends the old one. So no commit can leave the log before it was captured (see `proof`).

Where a checkpoint shall get past us, a pin takes the place of the transaction for a while (see `pin` and `room`).
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sidecar.database.wal import frames, proof
from sidecar.database.wal.backlog import Backlog, Captured
from sidecar.database.wal.changed import Changed
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.frames import Found
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.limits import Limits
from sidecar.database.wal.marks import Marks
from sidecar.database.wal.proof import Mark
from sidecar.database.wal.reader import NotNow
from sidecar.database.wal.watch import Departed, Watch
from sidecar.model import LogPosition

_PATIENCE = 2.0  # seconds in which a beginning must find a quiet moment


@dataclass(slots=True)
class Counters:
    """What a follower has done since it was made."""

    hops: int = 0
    frames: int = 0
    unsummed: int = 0
    forced: int = 0
    longest_hold: float = 0.0  # seconds that a writer's lock was held
    emptied: int = 0
    asides: int = 0  # times that the log was pinned
    parkings: int = 0  # of those, times that all of the log got into the database
    departures: int = 0  # times that the database was closed because nobody else had it open


class Hold:
    """What is captured goes into `backlog`, proved, from commit `commits` + 1 on.

    `exact`: the held snapshot is exactly what was captured. `parked`: all of the log is in the database, and the held
    transaction reads only the database, so it blocks no checkpoint or reset. `used`: when the last commit was
    captured, in monotonic seconds. `resting`: size and time of the last write of the file when it was last seen parked.
    """

    def __init__(
        self, hands: Hands, backlog: Backlog, changed: Changed, limits: Limits, counters: Counters, commits: int
    ) -> None:
        self.hands, self.backlog, self.changed, self.commits = hands, backlog, changed, commits
        self.mark, self.marks = Mark(NOWHERE), Marks(NOWHERE, commits)
        self.exact = self.parked = False
        self.used = time.monotonic()
        self._limits, self.counters = limits, counters
        self._unsummed: bytes | None = None
        self.watch = Watch(hands)
        hands.guard = self.watch.require_files
        # A recovery would lose the frames without checksums, and all that is behind them.
        hands.has_more = lambda index: not self.unsummed and has_more(self, index)
        self.written = b""  # the salts of the last generation of the log that had a frame

    def start(self) -> None:
        """Begin where the log ends now. Raises `StreamCut`."""
        now = _patiently(self._hold_exactly)
        self._begin_at(now, now.frame, now.checksum)
        self.watch.require_files()
        self.keep(Mark(now, self._header(now, now.frame)), Found())

    def start_at_first_frame(self, is_first: Callable[[], bool], *, counted: bool = False) -> None:
        """Begin at the first frame of a log; `is_first` proves, once a read transaction is held, that it is the first log.

        With `counted`, the log must have all commits since its shared memory was made.
        """
        now = _patiently(self._hold_exactly)
        self.watch.pin()
        if not is_first():
            raise StreamCut(CutCause.REPLACED, f"{self.hands.path} was changed or replaced while nobody had it open")
        found = self._read(now, 0)
        if found.ends:
            proof.require_end(now, found)
        if counted and len(found.ends) < now.change:
            raise StreamCut(CutCause.RESET, f"the log of {self.hands.path} was reset before it could be followed again")
        self._begin_at(now, 0, (0, 0))
        self.watch.require_files()
        self.keep(Mark(now, found.last), found)

    def resume(self, log: LogPosition) -> None:
        """Continue after `log`, where an earlier follower was. Raises `StreamCut`.

        Until the end of this nothing is held that is as old as `log`, so a writer may reset the log meanwhile. So all is
        read at once, and the generation must be the same afterwards.
        """
        now = _patiently(self._hold_newest)
        proof.require_resumable(log, now)
        if log.frame:
            proof.require_same_frame(log, self._header(now, log.frame))
        found = self._read(now, log.frame)
        if found.ends:
            proof.require_end(now, found)
        last = found.last or self._header(now, log.frame)
        if _patiently(self.hands.index).salts != now.salts:
            raise StreamCut(CutCause.RESET, "the log was reset while it was read again")
        self._begin_at(now, log.frame, log.checksum)
        self.changed.anything(self.commits)  # an earlier follower has captured those
        self.watch.require_files()
        self.keep(Mark(now, last), found)

    def hop(self) -> None:
        """Capture all that is committed by now. Raises `StreamCut`, and `NotNow` where somebody has a lock."""
        hands, before = self.hands, self.hands.index()
        hands.begin()
        try:
            now = hands.index()
            self.watch.require_files()
            self.keep(*self.read_to(now))
        except BaseException:
            hands.let_go()
            raise
        hands.change()
        self.counters.hops += 1
        hands.files.pin.release()
        self.exact = before.same_commit(now)
        self.parked = self.exact and hands.held.reads_database
        self.watch.pin()

    def settle(self, *, keep: bool) -> None:
        """Close the connections that opened the database, unless they are to be kept, and see who else has it open."""
        if keep or not self.hands.connections.are_open:
            return
        self.hands.disconnect()
        with suppress(Departed, NotNow):  # seen again at the next look
            self.watch.require_files()

    def forget(self) -> None:
        """There is no log any more."""
        self.mark = Mark(NOWHERE)

    @property
    def aside(self) -> bool:
        """Whether the log is pinned, and no transaction held: checkpoints complete, and the log is not reset."""
        return self.hands.pinned

    def step_aside(self) -> bool:
        """Pin the log in place of the transaction that is held, until the next hop; whether that is possible."""
        if not self.aside and self.hands.files.pin.take():
            self.hands.end()
            self.exact = self.parked = False
            self.counters.asides += 1
        return self.aside

    def catch_up(self) -> None:
        """Capture all that is committed by now, without hopping. Raises as `hop` does."""
        index = self.hands.index()
        if not index.same_commit(self.mark.index):
            self.watch.require_files()
            self.keep(*self.read_to(index))

    def park(self) -> bool:
        """Hold the snapshot of the database alone in place of the pin, if all of the log is in it, and captured."""
        hands = self.hands
        index = hands.index()
        if index.behind or not index.same_commit(self.mark.index) or hands.files.backfilling():
            return False
        hands.begin()
        try:
            if hands.index() != index:
                hands.let_go()
                return False
        except BaseException:
            hands.let_go()
            raise
        hands.change()
        hands.files.pin.release()
        self.mark = Mark(index, self.mark.last)
        self.counters.parkings += 1
        self.exact, self.parked = True, hands.held.reads_database
        self.watch.pin()
        return self.parked

    @property
    def unsummed(self) -> bool:
        """Whether this generation of the log has frames that SQLite cannot recover after a crash."""
        return self._unsummed == self.mark.index.salts

    def read_to(self, now: WalIndex) -> tuple[Mark, Found]:
        """What was committed up to `now` and is not captured yet, proved to be all of it. Raises `StreamCut`."""
        mark = self.mark
        after = proof.first_unread(mark, now, unsummed=self.unsummed)
        same = now.salts == mark.index.salts
        if same and mark.last:
            header = self._header(mark.index, mark.index.frame)
            if header == mark.last or not self._was_reset(now):
                proof.require_last(mark, header)
        found = self._read(now, after)
        proof.require_complete(mark, now, found)
        return Mark(now, found.last or (mark.last if same else b"")), found

    def _was_reset(self, now: WalIndex) -> bool:
        """Whether the log was reset just now, after `now`, which it may be as long as nothing in it is to be captured.

        SQLite changes the wal-index before it touches the log.
        """
        return now.same_commit(self.mark.index) and self.hands.index().salts != now.salts

    def _read(self, now: WalIndex, after: int) -> Found:
        """Read the frames after `after`. Whether memory has room for them is known before."""
        size = (now.frame - after) * now.page_size
        if not size:
            return Found()
        waiting = self.backlog.size
        if waiting + size <= self._limits.fold_bytes:
            return frames.read(self.hands.files.wal, now, after, fold=False)
        room = self._limits.room(now.pages * now.page_size, waiting)
        if waiting + size > room:
            pages = frames.pages_of(self.hands.files.wal, now, after) | set(self.backlog.pages())
            if (needed := len(pages) * now.page_size) > room:
                raise StreamCut(
                    CutCause.BACKLOG,
                    f"{needed} bytes of changed pages wait to be stored, more than the {room} that memory may hold",
                )
        return frames.read(self.hands.files.wal, now, after, fold=size > self._limits.fold_bytes)

    def keep(self, mark: Mark, found: Found) -> None:
        """What was found is proved: it counts from here on."""
        at, captured = time.monotonic(), []
        self.marks.add(mark.index.salts, found.ends, self.commits)
        for each in found.transactions:
            first, self.commits = self.commits + 1, self.commits + each.commits
            captured.append(Captured(self.commits, at, each.pages, each.images, first, at))
            self.changed.add(self.commits, each.pages, each.images, mark.index.page_size)
            if first < self.commits:
                self.changed.anything(self.commits)
        if found.unsummed:
            self._unsummed = mark.index.salts
        if captured:
            self.used = at
        if mark.index.frame:
            self.written = mark.index.salts
        self.mark = mark
        self.counters.frames += found.frames
        self.counters.unsummed += found.unsummed
        self.backlog.add(captured, mark.position, unsummed=bool(found.unsummed))

    def _begin_at(self, now: WalIndex, frame: int, checksum: tuple[int, int]) -> None:
        self.marks = Marks(WalIndex(now.salts, frame, checksum, 0, 0, 0, 0), self.commits)
        self.written = frames.salts_of(self.hands.files.wal)

    def _header(self, index: WalIndex, frame: int) -> bytes:
        return frames.header_of(self.hands.files.wal, frame, index.page_size) if frame else b""

    def _hold_newest(self) -> WalIndex:
        self.hands.begin()
        self.hands.change()
        return self.hands.index()

    def _hold_exactly(self) -> WalIndex:
        """Hold a snapshot that is exactly what the returned header shows."""
        before = self.hands.index()
        now = self._hold_newest()
        if not before.same_commit(now):
            raise NotNow
        self.exact = True
        return now


def has_more(hold: Hold, index: WalIndex) -> bool:
    """Whether a transaction is in the log that the wal-index does not know.

    A program that has the database alone (`locking_mode=EXCLUSIVE`) commits so; or a writer was killed before it counted.
    What is rolled back may have left frames, too, but no commit.
    """
    wal = hold.hands.files.wal
    salts = frames.salts_of(wal)
    if not index.frame and (not salts or salts == hold.written):
        return False
    return (index.frame > 0 and salts != index.salts) or frames.has_commit(wal, index.frame)


def _patiently(attempt: Callable[[], WalIndex]) -> WalIndex:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return attempt()
        except NotNow:
            if time.monotonic() > until:
                raise StreamCut(CutCause.UNREADABLE, "the database had no quiet moment to begin at") from None
            time.sleep(0.001)


NOWHERE = WalIndex(bytes(8), 0, (0, 0), 0, 0, 0, 0)
