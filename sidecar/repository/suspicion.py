"""Whether a snapshot lost so much that an earlier restore point must be held. Pure."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Self

from sidecar.model import Snapshot
from sidecar.units import format_size, whole_number

SHRUNKEN = 10
"""A snapshot is suspicious if its bytes in use are fewer than those of the previous restore point divided by this."""


SIGNIFICANT_BYTES = 64 << 10
"""With less content than this, a few pages more or less mean nothing; rows are compared instead."""


SIGNIFICANT_ROWS = 50
"""Small queues and caches delete fewer rows than this all day long."""


METADATA = ("size", "live", "tables", "bare", "rows")


MEMORY = timedelta(days=1)
"""How long a larger restore point is remembered: about as long as the shortest tier keeps it. One that is gone gives way to the next."""


REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a database contains; the fields are those of `Snapshot`. None means unknown."""

    size: int
    tables: int | None
    live: int | None = None
    bare: int | None = None
    rows: int | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The extent of a snapshot."""
        return cls(snapshot.size, snapshot.tables, snapshot.live, snapshot.bare, snapshot.rows)

    @classmethod
    def written(cls, metadata: Mapping[str, str], size: int) -> Self:
        """The extent in a restore point's metadata; `size` is that of the object.

        Without our metadata (the object was copied by hand) it is the object's own size: a database is hardly ever smaller.
        """
        found = {name: whole_number(metadata.get(name)) for name in METADATA}
        known = found.pop("size")
        return cls(size if known is None else known, **found)

    def to_metadata(self) -> dict[str, str]:
        """The metadata that `written` reads."""
        values = asdict(self)
        return {name: str(values[name]) for name in METADATA if values[name] is not None}

    @property
    def in_use(self) -> int:
        """Bytes that are not known to be unused."""
        return self.size if self.live is None else self.live

    @property
    def content(self) -> int:
        """Bytes in use beyond those of empty tables: zero once all rows are deleted."""
        return max(0, self.in_use - (self.bare or 0))


def loss(previous: Extent, now: Extent) -> str | None:
    """Why a snapshot looks as if the database had been lost, or None.

    - Bytes in use are compared, because a file keeps its size until VACUUM when rows are deleted. They are bytes, not
      pages, so that a new page size neither hides a loss nor looks like one.
    - Each table and index keeps a page when everything is deleted. So the pages of the schema itself are left out, and
      rows are compared as well if they were counted, which is done in small databases.
    - If the bytes in use of the previous one are unknown (older versions did not record them), sizes are compared:
      otherwise its unused pages would look like a loss.
    - A database without tables has nothing to lose.
    """
    if previous.tables == 0:
        return None
    if now.tables == 0:
        return "it has no table"
    known = previous.live is not None
    left = now.in_use if known else now.size
    if left * SHRUNKEN < previous.in_use:
        what = " in use" if known else ""
        return f"it has {format_size(left)}{what}, the previous restore point's database has {format_size(previous.in_use)}"
    if (
        previous.rows is not None
        and previous.rows >= SIGNIFICANT_ROWS
        and now.rows is not None
        and now.rows * SHRUNKEN < previous.rows
    ):
        return f"it has {now.rows} rows, the previous restore point's database has {previous.rows}"
    if previous.bare is None or now.bare is None or previous.content < SIGNIFICANT_BYTES:
        return None
    if now.content * SHRUNKEN >= previous.content:
        return None
    return (
        f"without its empty tables it has {format_size(now.content)} in use, "
        f"the previous restore point's database has {format_size(previous.content)}"
    )


GRADUAL = "it has gradually lost nine tenths of its content within a day; the restore point with the most data is held"


@dataclass(frozen=True, slots=True)
class Sized:
    """A restore point's key and time, and how much its database contains."""

    key: str
    at: datetime
    extent: Extent


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a snapshot looks as if data had been lost, and what to hold before it is published.

    `holds_previous`: the previous restore point must be held. `larger` are the keys of restore points of the last day that
    have more data, largest first: the first one that still exists must be held as well. `hint` says how to avoid this.
    """

    reason: str
    holds_previous: bool
    larger: tuple[str, ...]
    hint: str = ""


class LossMemory:
    """How much a database contained within the last day and which losses were reported, to judge the next snapshot. Pure."""

    def __init__(self) -> None:
        self._largest: deque[Sized] = deque(maxlen=REMEMBERED)  # each larger than those after it
        self._reported: list[tuple[datetime, Extent, Extent]] = []  # when, before and after

    def remember(self, superseded: Sized) -> None:
        """Remember a superseded restore point, which may be the largest of the day."""
        while self._largest and self._largest[-1].extent.content <= superseded.extent.content:
            self._largest.pop()
        self._largest.append(superseded)

    def forget(self, key: str) -> None:
        """Forget a restore point that is gone from the store."""
        self._largest = deque((each for each in self._largest if each.key != key), REMEMBERED)

    def assess(self, previous: Sized, now: Extent, at: datetime) -> Suspicion | None:
        """Whether a snapshot is suspicious compared with the previous restore point, or with those of the last day."""
        self._reported = [each for each in self._reported if each[0] >= at - MEMORY]
        reason = loss(previous.extent, now)
        if reason and not self._is_reported(previous.extent, now):
            larger = self._larger(previous, lambda extent: had_shed(extent, previous.extent))
            return Suspicion(f"{reason}; the previous restore point is held", holds_previous=True, larger=larger)
        larger = self._larger(previous, lambda extent: bool(loss(extent, now)) and not self._is_reported(extent, now))
        return Suspicion(GRADUAL, holds_previous=False, larger=larger) if larger else None

    def report(self, suspicion: Suspicion, previous: Sized, now: Extent, at: datetime) -> None:
        """Record a loss that was reported, so that the following snapshots, which are just as small, are not suspicious."""
        if suspicion.holds_previous:
            self._reported.append((at, previous.extent, now))
        self._largest.clear()

    def _is_reported(self, before: Extent, now: Extent) -> bool:
        return any(_is_like(before, now, *reported) for _, *reported in self._reported)

    def _larger(self, previous: Sized, has_more: Callable[[Extent], bool]) -> tuple[str, ...]:
        """Restore points with more data than the previous one, largest first: rows may have been deleted gradually."""
        largest = takewhile(lambda each: has_more(each.extent), self._largest)
        return tuple(each.key for each in largest if each.at >= previous.at - MEMORY)


def _is_like(before: Extent, now: Extent, reported_before: Extent, reported_now: Extent) -> bool:
    """Whether a loss is like one that was reported: a queue that is drained again and again is reported once.

    That is so if it started from at most twice as much as the reported one, and no less is left.
    """
    return _within(reported_now, now) and _within(before, reported_before, times=2)


def _within(less: Extent, more: Extent, times: int = 1) -> bool:
    """Whether `less` has at most `times` as much of everything as `more`."""
    pairs = ((less.content, more.content), (less.rows, more.rows), (less.tables, more.tables))
    return all(one is None or other is None or one <= times * other for one, other in pairs)


def had_shed(largest: Extent, previous: Extent) -> bool:
    """Whether a database had already lost more than half before the loss that is noticed, because rows went gradually."""
    return largest.content > 2 * previous.content
