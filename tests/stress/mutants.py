"""The protocol, broken on purpose in one way each, in the process that follows.

`MUTANTS` lose or mix up commits, which the harness must detect. `SURVIVORS` are broken as well, but the remaining proof
must turn every loss into a cut.
"""

import os
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sidecar.database.wal import proof
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.frames import FRAME_HEADER, LOG_HEADER, Found
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.hold import Hold
from sidecar.database.wal.pin import Pin
from sidecar.database.wal.proof import Mark
from sidecar.model import LogPosition

Patch = Callable[[object, str, object], None]  # setattr, or a replacement that a test undoes

_PAUSE = 0.003  # seconds without a read transaction, as if the process were not scheduled


def without_proofs(patch: Patch) -> None:
    """Without the proofs: only locks protect."""
    patch(proof, "require_complete", lambda mark, now, found: None)
    patch(proof, "require_last", lambda mark, header: None)
    patch(proof, "first_unread", _first_unread)


def _first_unread(mark: Mark, now: WalIndex, *, unsummed: bool) -> int:
    same = now.salts == mark.index.salts
    return min(mark.index.frame, now.frame) if same else 0


def nothing_held(patch: Patch) -> None:
    """No read transaction is held between two hops: only the proofs can detect a loss."""
    hop = Hold.hop

    def ending(self: Hold) -> None:
        hop(self)
        self.hands.end()

    patch(Hold, "hop", ending)


def _nothing_held_unproved(patch: Patch) -> None:
    nothing_held(patch)
    without_proofs(patch)


def old_one_ended_first(patch: Patch) -> None:
    """A hop ends the old transaction before it begins the new one."""
    begin = Hands.begin

    def late(self: Hands) -> None:
        self.held.end()
        time.sleep(_PAUSE)
        begin(self)

    patch(Hands, "begin", late)
    without_proofs(patch)


def commit_markers(patch: Patch) -> None:
    """Commit markers in the file count, instead of the wal-index."""
    index = Hands.index
    patch(Hands, "index", lambda self: scanned(self.files.wal, index(self)))
    without_proofs(patch)


def resumed_by_position(patch: Patch) -> None:
    """A successor compares only the position in the log, and leaves the rest to its first hop."""

    def resume(self: Hold, log: LogPosition) -> None:
        now = self._hold_newest()
        if now.salts != log.salts or now.frame < log.frame:
            raise StreamCut(CutCause.RESET, "the log was reset while nothing followed it")
        at = replace(now, frame=log.frame, checksum=log.checksum)
        self._begin_at(now, log.frame, log.checksum)
        self.keep(Mark(at, self._header(at, log.frame)), Found())

    patch(Hold, "resume", resume)
    without_proofs(patch)


def uncounted(patch: Patch) -> None:
    """The commit counter is ignored; the locks that would otherwise protect are lost now and then."""
    require = proof.require_complete

    def uncounting(mark: Mark, now: WalIndex, found: Found) -> None:
        counted = (mark.index.change + len(found.ends)) % (1 << 32)
        require(mark, replace(now, change=counted), found)

    patch(proof, "require_complete", uncounting)


def unpinned(patch: Patch) -> None:
    """Nothing keeps the log while we stand aside; only the proofs notice."""
    patch(Pin, "_lock", lambda self, slot: True)
    patch(Pin, "_unlock", lambda self, slot: None)
    patch(Pin, "_is_seen", lambda self, slot: True)


def _unpinned_unproved(patch: Patch) -> None:
    unpinned(patch)
    without_proofs(patch)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "nothing-held": _nothing_held_unproved,
    "unpinned": _unpinned_unproved,
    "markers": commit_markers,
    "end-first": old_one_ended_first,
    "resume-by-position": resumed_by_position,
    "uncounted": uncounted,
}
SURVIVORS: dict[str, Callable[[Patch], None]] = {
    "nothing-held-proved": nothing_held,
    "unpinned-proved": unpinned,
    "locks-lost": lambda patch: None,
}
# The properties of a mutant's rounds, besides busy writers.
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing-held": {"sample": 0.0},  # no snapshot is held
    "nothing-held-proved": {"sample": 0.0},
    "unpinned": {"limits": {"soft_frames": 10}, "look_every": 0.01},
    "unpinned-proved": {"limits": {"soft_frames": 10}, "look_every": 0.01},
    "markers": {"busy": None, "calm": False, "kill_all": 0.1},
    "end-first": {"look_every": 0.005},
    "resume-by-position": {"reopen": 0.7, "publish_every": 0.02, "busy": (0.005, 0.03), "look_every": 0.05},
    "uncounted": {"loses_locks": True, "sample": 0.0, "publish_every": 0.1},
    "locks-lost": {"loses_locks": True, "sample": 0.0, "publish_every": 0.1},
}


def apply(name: str, patch: Patch = setattr) -> None:
    """Break the protocol in this process."""
    (MUTANTS | SURVIVORS)[name](patch)


def scanned(file: int, now: WalIndex) -> WalIndex:
    """The end of the log according to markers and checksums in the file (https://sqlite.org/fileformat2.html#walformat)."""
    head = os.pread(file, LOG_HEADER, 0)
    if len(head) < LOG_HEADER:
        return replace(now, frame=0)
    size = struct.unpack_from(">I", head, 8)[0] + FRAME_HEADER
    order = ">" if head[3] & 1 else "<"
    sums, frame, end = struct.unpack_from(">II", head, 24), 0, 0
    found = replace(now, salts=head[16:24], page_size=size - FRAME_HEADER, frame=0)
    while len(raw := os.pread(file, size, LOG_HEADER + frame * size)) == size and raw[8:16] == head[16:24]:
        sums = _summed(raw[:8] + raw[FRAME_HEADER:], sums, order)
        if sums != struct.unpack_from(">II", raw, 16):
            break
        frame += 1
        if pages := struct.unpack_from(">I", raw, 4)[0]:
            end, found = frame, replace(found, frame=frame, checksum=sums, pages=pages)
    return replace(found, frame=end)


def _summed(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for index in range(0, len(words), 2):
        one = (one + words[index] + two) & 0xFFFFFFFF
        two = (two + words[index + 1] + one) & 0xFFFFFFFF
    return one, two
