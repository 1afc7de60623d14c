"""Captured commits that have not been taken yet, in bounded memory."""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.model import LogPosition


@dataclass(frozen=True, slots=True)
class Captured:
    """A committed transaction as it was read from the log, or several that were folded into one.

    `number` counts the commits from 1. `pages` is the size of the database after it, `images` are the full pages that it
    wrote, by number from 1; some may be beyond that size. `at` is the monotonic time of the capture, in seconds. A folded
    one stands for the commits `first` to `number`, which were captured from `since` to `at`.
    """

    number: int
    at: float
    pages: int
    images: Mapping[int, bytes]
    first: int
    since: float

    @property
    def folded(self) -> bool:
        """Whether it stands for several commits."""
        return self.first < self.number

    @property
    def size(self) -> int:
        """The size of the images, in bytes."""
        return sum(map(len, self.images.values()))


def fold(commits: Sequence[Captured]) -> Captured:
    """One commit that stands for all of these, with the last image of each page.

    Pages beyond the final size are kept: if the database grows again, it may read them from the log, as SQLite does.
    """
    images: dict[int, bytes] = {}
    for commit in commits:
        images.update(commit.images)
    first, last = commits[0], commits[-1]
    return Captured(last.number, last.at, last.pages, images, first.first, first.since)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was captured since the last one was taken. `end` is the position in the log up to which it extends.

    `unsummed`: some frames of the log have no checksum, so SQLite could not recover them after a crash. Everything that was
    committed before `looked`, in monotonic seconds, is in this or in an earlier one.
    """

    commits: Sequence[Captured]
    end: LogPosition
    unsummed: bool = False
    looked: float = 0.0

    @property
    def folded(self) -> bool:
        """Whether some of it stands for several commits."""
        return any(each.folded for each in self.commits)


@dataclass(slots=True)
class Backlog:
    """Captured commits that are waiting. Beyond `fold_bytes`, only the last image of each page is kept. Thread-safe."""

    fold_bytes: int
    _commits: list[Captured] = field(default_factory=list)
    _bytes: int = 0
    _end: LogPosition = field(default_factory=lambda: LogPosition(bytes(8), 0))
    _unsummed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """The size of the waiting images, in bytes."""
        return self._bytes

    def pages(self) -> Collection[int]:
        """The numbers of the waiting pages."""
        with self._lock:
            return {page for each in self._commits for page in each.images}

    def add(self, commits: Sequence[Captured], end: LogPosition, *, unsummed: bool = False) -> None:
        """Append proved commits, up to `end`."""
        with self._lock:
            self._end, self._unsummed = end, self._unsummed or unsummed
            self._commits.extend(commits)
            self._bytes += sum(each.size for each in commits)
            if self._bytes > self.fold_bytes and len(self._commits) > 1:
                self._commits = [fold(self._commits)]
                self._bytes = self._commits[0].size

    def take(self) -> Batch:
        """Remove and return everything that is waiting."""
        with self._lock:
            batch = Batch(self._commits, self._end, self._unsummed)
            self._commits, self._bytes, self._unsummed = [], 0, False
            return batch

    @property
    def oldest(self) -> float | None:
        """When the oldest waiting commit was captured, in monotonic seconds."""
        with self._lock:
            return self._commits[0].since if self._commits else None

    @property
    def empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._commits
