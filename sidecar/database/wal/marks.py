"""Determines which commit a snapshot of the database shows, by the wal-index that was read together with it."""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar.database.wal.header import WalIndex

KEPT = 100_000  # commits; four bytes each


@dataclass(slots=True)
class _Generation:
    """A generation of the log: its commits end at `frames`, and the first one has the number `first`."""

    salts: bytes
    first: int
    frames: "array[int]" = field(default_factory=lambda: array("I"))


class Marks:
    """The numbers of the latest commits, by generation and frame. Older commits have been forgotten."""

    def __init__(self, index: WalIndex, number: int) -> None:
        """Commit `number` is the last one in `index`."""
        self._generations = deque([_Generation(index.salts, number, array("I", [index.frame]))])
        self._kept = 1

    def add(self, salts: bytes, ends: Sequence[int], number: int) -> None:
        """Add commits that end at these frames of a generation; commit `number` precedes them."""
        if self._generations[-1].salts != salts:
            self._generations.append(_Generation(salts, number, array("I", [0])))
            self._kept += 1
        self._generations[-1].frames.extend(ends)
        self._kept += len(ends)
        while self._kept > KEPT:
            self._drop()

    def find(self, index: WalIndex) -> int | None:
        """The number of the last commit that `index` shows."""
        for generation in reversed(self._generations):
            if generation.salts == index.salts:
                place = bisect_left(generation.frames, index.frame)
                if place < len(generation.frames) and generation.frames[place] == index.frame:
                    return generation.first + place
        return None

    def _drop(self) -> None:
        """Forget the older half of the oldest generation."""
        oldest = self._generations[0]
        half = (len(oldest.frames) + 1) // 2
        del oldest.frames[:half]
        oldest.first += half
        self._kept -= half
        if not oldest.frames and len(self._generations) > 1:
            self._generations.popleft()
