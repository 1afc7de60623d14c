"""Which table's b-tree a page is part of, found from below. Pure.

The first key of a page is looked for from the roots of the tables that it may belong to. Where the search passes through
the page, it is part of that b-tree. A page that is free, but still looks like one of a b-tree, is never reached. All
searches go down one level at a time, so that the pages of a level are fetched together.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sidecar.compare.fileformat import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    INTERIOR,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Malformed,
    first_key,
    serial_types,
)
from sidecar.compare.image import DEEPEST, Image
from sidecar.compare.order import SortKey, sort_key
from sidecar.compare.tables import Table
from sidecar.compare.values import Value

READ_TOGETHER = 256  # pages that are looked at in one go


@dataclass(slots=True, eq=False)
class _Probe:
    """A page, its first key, and the tables that are still to be tried. `at` is how far the search has come."""

    page: int
    rowid: int
    values: Sequence[Value]
    candidates: list[Table]
    key: SortKey | None = None
    path: tuple[int, ...] = ()

    @property
    def at(self) -> int:
        return self.path[-1]


class Owners:
    """Finds the tables of pages of one state."""

    def __init__(self, image: Image, tables: Iterable[Table]) -> None:
        """`tables` have an order of rows that is known here."""
        self._image = image
        self._tables = list(tables)
        self._roots = {table.root: table.name for table in self._tables}
        image.fetch(self._roots)
        self._deep = [table for table in self._tables if image.kind(table.root) in INTERIOR]
        self._found: dict[int, str] = {}

    def find(self, pages: Iterable[int], tick: Callable[[], None]) -> dict[str, set[int]]:
        """The pages of each table among these. `tick` may raise to end the work."""
        wanted = sorted(page for page in pages if page <= self._image.pages)
        for start in range(0, len(wanted), READ_TOGETHER):
            tick()
            self._find(wanted[start : start + READ_TOGETHER])
        found: dict[str, set[int]] = {table.name: set() for table in self._tables}
        for page in wanted:
            if page in self._found:
                found[self._found[page]].add(page)
        return found

    def _find(self, pages: Sequence[int]) -> None:
        image = self._image
        image.fetch(pages)
        probes = []
        for page in pages:
            if page in self._roots:
                self._found[page] = self._roots[page]
            elif page not in self._found and (probe := self._probe(page)):
                probes.append(probe)
        while probes:
            self._try_next(probes)
            probes = [each for each in probes if each.page not in self._found and each.candidates]

    def _probe(self, page: int) -> _Probe | None:
        """What to look for to find this page; None if it cannot be part of any of the tables."""
        kind = self._image.kind(page)
        try:
            if kind in {TABLE_LEAF, TABLE_INTERIOR}:
                rowid = first_key(self._image.raw(page), page)
                if rowid is None:
                    return None
                return _Probe(page, rowid, (), self._tables_of_rows(page, kind))
            if kind in {INDEX_LEAF, INDEX_INTERIOR}:
                cells = self._image.page(page).cells
                values = self._image.record(cells[0]) if cells else []
                candidates = [
                    each
                    for each in self._deep
                    if each.without_rowid and len(each.collations) <= len(values) <= len(each.order)
                ]
                return _Probe(page, 0, values, candidates)
        except Malformed:  # a free page, or one of another kind that happens to begin like this
            pass
        return None

    def _tables_of_rows(self, page: int, kind: int) -> list[Table]:
        """The tables that a page with rowids may belong to, the most likely first."""
        tables = [each for each in self._deep if not each.without_rowid]
        if kind == TABLE_INTERIOR or len(tables) < 2:
            return tables
        cell = self._image.page(page).cells[0]
        try:
            types = serial_types(cell.local)
        except Malformed:
            return tables  # its header is longer than what is in the page
        fitting = [each for each in tables if _may_hold(each, types)]
        return sorted(fitting, key=lambda table: (_contradictions(table, types), len(table.order) - len(types)))

    def _try_next(self, probes: Sequence[_Probe]) -> None:
        """Search for each probe in the next of its tables, all of them at the same time."""
        active: list[tuple[_Probe, Table]] = []
        for probe in probes:
            if not probe.candidates:
                continue
            table = probe.candidates.pop(0)
            probe.path = (table.root,)
            probe.key = self._key(probe.values, table) if table.without_rowid else None
            active.append((probe, table))
        for _level in range(DEEPEST):
            self._image.fetch({probe.at for probe, _ in active})
            active = [(probe, table) for probe, table in active if self._goes_on(probe, table)]
            if not active:
                return
        raise Malformed("a b-tree has a loop")

    def _goes_on(self, probe: _Probe, table: Table) -> bool:
        """Go down one level, unless the page or the end is reached."""
        if probe.at == probe.page:
            for page in probe.path:
                self._found[page] = table.name
            return False
        following = self._step(probe, table)
        if following is None:
            return False
        probe.path = (*probe.path, following)
        return True

    def _step(self, probe: _Probe, table: Table) -> int | None:
        image, at = self._image, probe.at
        if image.kind(at) not in INTERIOR:
            return None
        if not table.without_rowid:
            return image.step(at, probe.rowid)
        page = image.page(at)
        keys = [self._key(image.record(cell), table) for cell in page.cells]
        place = bisect_left(keys, probe.key or [])
        return None if place < len(keys) and keys[place] == probe.key else page.children[place]

    def _key(self, values: Sequence[Value], table: Table) -> SortKey:
        return sort_key(values, table.collations, self._image.header.encoding)


def _may_hold(table: Table, types: Sequence[int]) -> bool:
    """Whether a record of these serial types can be a row of the table: its rowid is stored as NULL."""
    if len(types) > len(table.order):
        return False
    return table.alias is None or table.alias >= len(types) or types[table.alias] == 0


def _contradictions(table: Table, types: Sequence[int]) -> int:
    """How many values do not look like those of the table's columns."""
    columns = [table.columns[at] for at in table.order]
    wrong = 0
    for place, (column, serial) in enumerate(zip(columns, types, strict=False)):
        is_number, is_text = 0 < serial < 10, serial >= 13 and serial & 1 == 1
        declared = column.type.upper()
        wrong += serial == 0 and column.not_null and place != table.alias
        wrong += bool(is_number and ("CHAR" in declared or "TEXT" in declared))
        wrong += bool(is_text and ("INT" in declared or column.is_real))
    return wrong
