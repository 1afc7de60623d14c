"""The proof that nothing was missed between two reads of a log, as pure rules.

While a read transaction is held, SQLite resets the log only when nothing was committed after that transaction's snapshot
(wal.c: walRestartLog and walCheckpoint need the lock on its slot; a reader of the database alone, slot 0, stops every
further copy into the database). So after the last captured frame the log either continues, or starts again at frame 1, with
nothing in between. The counter of commits in the wal-index, which grows over generations, is the second proof, and needs
no lock.
"""

from dataclasses import dataclass

from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.frames import NO_SUM, Found, checksum_of
from sidecar.database.wal.header import WalIndex
from sidecar.model import LogPosition

_BACKWARDS = 1 << 31
_MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log was captured: the wal-index then, and the header of its last frame, empty at frame 0."""

    index: WalIndex
    last: bytes = b""

    @property
    def position(self) -> LogPosition:
        """The same position as a value that outlives this process."""
        return LogPosition(self.index.salts, self.index.frame, checksum_of(self.last))

    @property
    def unsummed(self) -> bool:
        """Whether the last frame has no checksum that could prove it later."""
        return self.last[8:] == NO_SUM


def growth(before: WalIndex, now: WalIndex) -> int:
    """Commits between the two by SQLite's counter; negative after a recovery, which resets it."""
    difference = (now.change - before.change) % _MODULUS
    return difference if difference < _BACKWARDS else difference - _MODULUS


def first_unread(mark: Mark, now: WalIndex, *, unsummed: bool) -> int:
    """The frame after which to continue reading. `unsummed`: the generation has frames that SQLite cannot recover."""
    before, recovered = mark.index, growth(mark.index, now) < 0
    if now.salts != before.salts:
        if recovered:
            raise StreamCut(
                CutCause.RECOVERED, "SQLite recovered the log, and reset it: commits in between may be lost"
            )
        return 0
    if recovered and unsummed:
        raise StreamCut(CutCause.RECOVERED, "SQLite recovered a log that has frames without checksums")
    if now.frame < before.frame:
        cause = CutCause.RECOVERED if recovered else CutCause.MISMATCH
        raise StreamCut(cause, f"the log went back from frame {before.frame} to {now.frame}")
    if now.frame and before.frame and now.page_size != before.page_size:
        raise StreamCut(CutCause.MISMATCH, f"the page size changed from {before.page_size} to {now.page_size}")
    return before.frame


def require_last(mark: Mark, header: bytes) -> None:
    """Raise `StreamCut` unless the last captured frame is unchanged."""
    if header != mark.last:
        raise StreamCut(CutCause.MISMATCH, f"frame {mark.index.frame} of the log is not the one that was captured")


def require_complete(mark: Mark, now: WalIndex, found: Found) -> None:
    """Raise `StreamCut` unless exactly what was committed was found, according to the wal-index."""
    if found.ends:
        require_end(now, found)
    elif now.frame and now.checksum != mark.index.checksum:
        raise StreamCut(CutCause.MISMATCH, "the last frame of the log changed without a commit")
    committed = growth(mark.index, now)
    if committed >= 0 and not committed <= len(found.ends) <= committed + found.repeated:
        lost = ": a program that has the database exclusively resets the log in spite of readers"
        hint = lost if committed > len(found.ends) else ""
        raise StreamCut(CutCause.MISMATCH, f"{committed} commits happened, but {len(found.ends)} were found{hint}")


def require_end(now: WalIndex, found: Found) -> None:
    """Raise `StreamCut` unless the last frame that was read is the last committed one."""
    if found.checksum not in {now.checksum, (0, 0)}:
        raise StreamCut(CutCause.MISMATCH, "the end of the log is not the last commit of the wal-index")


def require_resumable(log: LogPosition, now: WalIndex) -> None:
    """Raise `StreamCut` unless a log that was not followed for a while still has the same generation."""
    if log.salts == bytes(8):
        # Every log without frames has these.
        raise StreamCut(CutCause.RESET, "the log had no frame when it was last followed, so it cannot be recognised")
    if now.salts != log.salts or now.frame < log.frame:
        raise StreamCut(CutCause.RESET, "the log was reset while it was not followed")


def require_same_frame(log: LogPosition, header: bytes) -> None:
    """Raise `StreamCut` unless the last captured frame is provably still in its place."""
    if len(header) < len(NO_SUM) or header[8:16] != log.salts or checksum_of(header) != log.checksum:
        raise StreamCut(CutCause.RESET, f"frame {log.frame} of the log is not the one that was captured last")
