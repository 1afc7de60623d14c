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
"""A snapshot is suspicious below one part in this many of what the previous restore point's database has in use."""


SIGNIFICANT_BYTES = 64 << 10
"""Below this content a few pages more or less mean nothing; rows are compared there."""


SIGNIFICANT_ROWS = 50
"""Small queues and caches delete fewer rows than these all day."""


METADATA = ("size", "live", "tables", "bare", "rows")


MEMORY = timedelta(days=1)
"""How long a larger restore point is remembered: for less time than any tier keeps it."""


REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is in a database, in the words of `Snapshot`. None means unknown."""

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
        """The extent that is written in a restore point's metadata; `size` is the object's.

        Without our metadata (copied there by hand) it is the object's own size: a database is hardly ever smaller.
        """
        found = {name: whole_number(metadata.get(name)) for name in METADATA}
        known = found.pop("size")
        return cls(size if known is None else known, **found)

    def to_metadata(self) -> dict[str, str]:
        """The metadata of a restore point, which `written` reads again."""
        values = asdict(self)
        return {name: str(values[name]) for name in METADATA if values[name] is not None}

    @property
    def in_use(self) -> int:
        """Bytes that are not known to be unused."""
        return self.size if self.live is None else self.live

    @property
    def content(self) -> int:
        """Bytes in use beyond those of empty tables: none is left when all rows are deleted."""
        return max(0, self.in_use - (self.bare or 0))


def loss(previous: Extent, now: Extent) -> str | None:
    """Why a snapshot looks as if the database had been lost, or None.

    - Bytes in use are compared, because deleted rows leave the file as large as it was until VACUUM. In bytes, so that
      a new page size neither hides a loss nor looks like one.
    - Each table and index keeps a page when everything is deleted. So the pages of the schema itself are left out, and
      rows are compared too where they are counted: in small databases.
    - Where bytes in use of the previous one are not known (older sidecars did not write them down), sizes are compared:
      its unused pages would look like a loss.
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
        return f"it has {format_size(left)}{what}, the previous restore point's database {format_size(previous.in_use)}"
    if (
        previous.rows is not None
        and previous.rows >= SIGNIFICANT_ROWS
        and now.rows is not None
        and now.rows * SHRUNKEN < previous.rows
    ):
        return f"it has {now.rows} rows, the previous restore point's database {previous.rows}"
    if previous.bare is None or now.bare is None or previous.content < SIGNIFICANT_BYTES:
        return None
    if now.content * SHRUNKEN >= previous.content:
        return None
    return (
        f"without its empty tables it has {format_size(now.content)} in use, "
        f"the previous restore point's database {format_size(previous.content)}"
    )


GRADUAL = "bit by bit it has lost nine tenths of what it had within a day; the restore point with most is held"


@dataclass(frozen=True, slots=True)
class Sized:
    """A restore point's key and instant, and how much is in its database."""

    key: str
    at: datetime
    extent: Extent


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a snapshot looks as if data had been lost, and what to hold before it is published.

    `holds_previous` tells whether that is the restore point before it. `larger` are the keys of those of the last day
    that have more, the largest first: the first one that exists is to be held too, or alone. `hint` says how to avoid it.
    """

    reason: str
    holds_previous: bool
    larger: tuple[str, ...]
    hint: str = ""


class LossMemory:
    """What a database had within the last day, and which losses were reported: enough to judge the next snapshot. Pure."""

    def __init__(self) -> None:
        self._largest: deque[Sized] = deque(maxlen=REMEMBERED)  # each larger than those after it
        self._reported: list[tuple[datetime, Extent, Extent]] = []  # when, before and after

    def remember(self, superseded: Sized) -> None:
        """A restore point was superseded: it may be the largest of the day."""
        while self._largest and self._largest[-1].extent.content <= superseded.extent.content:
            self._largest.pop()
        self._largest.append(superseded)

    def forget(self, key: str) -> None:
        """This restore point is gone from the store."""
        self._largest = deque((each for each in self._largest if each.key != key), REMEMBERED)

    def assess(self, previous: Sized, now: Extent, at: datetime) -> Suspicion | None:
        """Whether a snapshot is suspicious beside the restore point before it, or beside those of the last day."""
        self._reported = [each for each in self._reported if each[0] >= at - MEMORY]
        reason = loss(previous.extent, now)
        if reason and not self._is_reported(previous.extent, now):
            larger = self._larger(previous, lambda extent: had_shed(extent, previous.extent))
            return Suspicion(f"{reason}; the previous restore point is held", holds_previous=True, larger=larger)
        larger = self._larger(previous, lambda extent: bool(loss(extent, now)) and not self._is_reported(extent, now))
        return Suspicion(GRADUAL, holds_previous=False, larger=larger) if larger else None

    def report(self, suspicion: Suspicion, previous: Sized, now: Extent, at: datetime) -> None:
        """A loss was reported, and what was before it is held: every snapshot from now on would be as suspicious."""
        if suspicion.holds_previous:
            self._reported.append((at, previous.extent, now))
        self._largest.clear()

    def _is_reported(self, before: Extent, now: Extent) -> bool:
        return any(_is_like(before, now, *reported) for _, *reported in self._reported)

    def _larger(self, previous: Sized, has_more: Callable[[Extent], bool]) -> tuple[str, ...]:
        """Where rows were deleted bit by bit, most are in an older restore point than the previous one."""
        largest = takewhile(lambda each: has_more(each.extent), self._largest)
        return tuple(each.key for each in largest if each.at >= previous.at - MEMORY)


def _is_like(before: Extent, now: Extent, reported_before: Extent, reported_now: Extent) -> bool:
    """Whether a loss is like one that was reported: a queue that is drained again and again is reported once.

    There was not much more before it than before the reported one, and not less is left.
    """
    return _within(reported_now, now) and _within(before, reported_before, times=2)


def _within(less: Extent, more: Extent, times: int = 1) -> bool:
    """Whether one has at most `times` as much of everything as the other."""
    pairs = ((less.content, more.content), (less.rows, more.rows), (less.tables, more.tables))
    return all(one is None or other is None or one <= times * other for one, other in pairs)


def had_shed(largest: Extent, previous: Extent) -> bool:
    """Whether a database had lost more than half before the loss that is noticed: rows were deleted bit by bit."""
    return largest.content > 2 * previous.content
