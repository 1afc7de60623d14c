"""The rows of two sets of pages that are not byte for byte the same, and how two rows differ. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from sidecar.compare.fileformat import TABLE_INTERIOR, TABLE_LEAF, Cell, first_key
from sidecar.compare.image import READ_AHEAD, Image
from sidecar.compare.pages import PageSet
from sidecar.compare.tables import Pair
from sidecar.compare.trees import Rows
from sidecar.compare.values import Row, same


class Side(IntEnum):
    """Which of the two states."""

    BEFORE = 0
    AFTER = 1


@dataclass(frozen=True, slots=True)
class Change:
    """A row that differs: `before` or `after` is None if it was added or removed.

    `key` is None for a row without one; the rowids are those of each state. `columns` are the positions, in the later
    table, of the values that are not the same.
    """

    kind: str
    key: Row | None
    before: Row | None
    after: Row | None
    columns: tuple[int, ...] = ()
    rowid_before: int | None = None
    rowid_after: int | None = None


Found = tuple[Side, int | None, bytes]  # the rowid and the payload of a row


def differing_rows(
    before: Image, after: Image, pair: Pair, rows: Rows, changed: PageSet | None, tick: Callable[[], None]
) -> Iterator[Found]:
    """The rows in these pages, without those with the same rowid and bytes in both states, which only moved.

    If both states have rowids, rows come in their order, and the earlier state's one of two with the same rowid first.
    """
    one, other = (
        cells_of(before, pair.before.root, rows, Side.BEFORE),
        cells_of(after, pair.after.root, rows, Side.AFTER),
    )
    if pair.before.without_rowid or pair.after.without_rowid:
        yield from _all(before, one, Side.BEFORE, tick)
        yield from _all(after, other, Side.AFTER, tick)
        return
    may_be_same = pair.before.reads_like(pair.after) and before.header.encoding == after.header.encoding

    def is_same(left: Cell, right: Cell) -> bool:
        if left.size != right.size or left.local != right.local:
            return False
        if left.overflow == right.overflow and changed is not None:
            return all(page not in changed for page in after.chain(right))
        return before.payload(left) == after.payload(right)

    left, right = next(one, None), next(other, None)
    while left or right:
        tick()
        if right is None or (left and (left.key or 0) < (right.key or 0)):
            assert left  # noqa: S101 - one of them is there
            yield Side.BEFORE, left.key, before.payload(left)
            left = next(one, None)
        elif left is None or (right.key or 0) < (left.key or 0):
            yield Side.AFTER, right.key, after.payload(right)
            right = next(other, None)
        else:
            if not (may_be_same and is_same(left, right)):
                yield Side.BEFORE, left.key, before.payload(left)
                yield Side.AFTER, right.key, after.payload(right)
            left, right = next(one, None), next(other, None)


def _all(image: Image, cells: Iterable[Cell], side: Side, tick: Callable[[], None]) -> Iterator[Found]:
    for cell in cells:
        tick()
        yield side, cell.key, image.payload(cell)


def cells_of(image: Image, root: int, rows: Rows, side: Side) -> Iterator[Cell]:
    """The rows of the pages to be compared, or of the whole b-tree; with rowids, in their order. Raises `Malformed`."""
    pages, last = rows.before if side is Side.BEFORE else rows.after, None
    for page in image.walk(root) if rows.whole else _in_order(image, pages):
        if image.kind(page) != TABLE_INTERIOR:
            cells = image.page(page).cells
            if cells and cells[0].key is not None:
                if last is not None and cells[0].key <= last:
                    raise image.malformed(f"page {page} has rows that are in another one, too")
                last = cells[-1].key
            yield from cells


def _in_order(image: Image, pages: Iterable[int]) -> Iterator[int]:
    """Pages by their first rowid; those of WITHOUT ROWID tables by their number, because they are sorted later."""
    waiting = sorted(pages)
    keyed: list[tuple[int, int]] = []
    for start in range(0, len(waiting), READ_AHEAD):
        group = waiting[start : start + READ_AHEAD]
        image.fetch(group)
        for page in group:
            key = first_key(image.raw(page), page) if image.kind(page) == TABLE_LEAF else page
            if key is not None:
                keyed.append((key, page))
    keyed.sort()
    for start in range(0, len(keyed), READ_AHEAD):
        group = [page for _, page in keyed[start : start + READ_AHEAD]]
        image.fetch(group)
        yield from group


def differences(before: Row, after: Row, ignored: frozenset[int]) -> tuple[int, ...]:
    """The positions of the values that are not the same; both rows have the later table's columns."""
    return tuple(
        at
        for at, (one, other) in enumerate(zip(before, after, strict=True))
        if at not in ignored and not same(one, other)
    )
