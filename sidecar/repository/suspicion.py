"""Whether a snapshot lost so much that the restore point before it must be held."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Self

from sidecar.model import Snapshot
from sidecar.units import format_size, whole_number

SHRUNKEN = 10
"""A snapshot is suspicious below one part in this many of what the previous restore point's database has in use."""


TELLING = 64 << 10
"""Bytes of content below which a few pages more or less say nothing: rows do, there."""


TELLING_ROWS = 50
"""Rows below which deleting them is what small queues and caches do all day."""


METADATA = ("size", "live", "tables", "bare", "rows")


MEMORY = timedelta(days=1)
"""For how long a larger restore point is remembered: less than any tier keeps it."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is in a database, as `Snapshot` says it. None is what is not known."""

    size: int
    tables: int | None
    live: int | None = None
    bare: int | None = None
    rows: int | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """That of a snapshot."""
        return cls(snapshot.size, snapshot.tables, snapshot.live, snapshot.bare, snapshot.rows)

    @classmethod
    def written(cls, metadata: Mapping[str, str], size: int) -> Self:
        """What a restore point's metadata has of it; `size` is that of the object.

        Without our metadata (copied there by hand) its own size: a database is hardly ever smaller than compressed.
        """
        found = {name: whole_number(metadata.get(name)) for name in METADATA}
        known = found.pop("size")
        return cls(size if known is None else known, **found)

    def to_metadata(self) -> dict[str, str]:
        """For a restore point; read again by `written`."""
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


def suspicion(previous: Extent, now: Extent) -> str | None:
    """Why a snapshot looks as if the database had been lost, or None.

    Bytes in use are compared: rows that were deleted leave the file as large as it was until VACUUM, which then takes
    nothing more. Each table and index keeps a page when all is deleted: what a schema takes is left out, and rows are
    compared, too, where they are counted: in small databases. Where bytes in use are not known of the previous one (older sidecars did not write
    them down), sizes are: what it had unused would look like a loss. In bytes, so that a new page size neither hides a loss nor looks like one.
    Nothing is lost with a database that had no table.
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
        and previous.rows >= TELLING_ROWS
        and now.rows is not None
        and now.rows * SHRUNKEN < previous.rows
    ):
        return f"it has {now.rows} rows, the previous restore point's database {previous.rows}"
    if previous.bare is None or now.bare is None or previous.content < TELLING:
        return None
    if now.content * SHRUNKEN >= previous.content:
        return None
    return (
        f"without its empty tables it has {format_size(now.content)} in use, "
        f"the previous restore point's database {format_size(previous.content)}"
    )


def is_like(before: Extent, now: Extent, told_before: Extent, told_now: Extent) -> bool:
    """Whether a loss is like one that was told: a queue that is drained again and again is told of once.

    What was there is not much more than was there then, and what is left is not less.
    """
    return _within(told_now, now) and _within(before, told_before, times=2)


def _within(less: Extent, more: Extent, times: int = 1) -> bool:
    """Whether one has no more of anything than so many times the other."""
    pairs = ((less.content, more.content), (less.rows, more.rows), (less.tables, more.tables))
    return all(one is None or other is None or one <= times * other for one, other in pairs)


def had_shed(largest: Extent, previous: Extent) -> bool:
    """Whether a database had lost more than half before the loss that is noticed: the rows were deleted bit by bit."""
    return largest.content > 2 * previous.content
