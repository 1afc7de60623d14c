"""Overflow pages that SQLite wrote in place, because a long value was replaced by one of the same length. Pure.

Then the page with the row is the same in both states. Such overflow pages are what is left of the changed pages of the
later state, once those of b-trees, free ones and those that belong to rows known to have changed are taken away. Their rows
are found by the pointer map, if the database has one, else among the pages nearby, else by reading the tables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sidecar.compare.fileformat import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    KINDS,
    LOCK_BYTE,
    TABLE_LEAF,
    Malformed,
    pointer_map_entry,
    pointer_map_page,
)
from sidecar.compare.image import Image
from sidecar.compare.owners import Owners
from sidecar.compare.pages import PageSet
from sidecar.compare.tables import Table
from sidecar.compare.trees import Rows
from sidecar.repository.format.index import CHUNK_SIZE

_BEARING = {INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF}
_FIRST_OF_CHAIN, _NEXT_OF_CHAIN = 3, 4
_AMBIGUOUS = 2 << 24  # pages: in a file of so many, the first byte of an overflow page may be that of a b-tree page


class InPlace:
    """Looks for overflow pages of the later state that were written in place."""

    def __init__(self, image: Image, changed: PageSet, work: Mapping[str, Rows], tick: Callable[[], None]) -> None:
        """`work` has the pages of each table whose rows are compared anyway."""
        self._image = image
        self._changed = changed
        self._work = work
        self._tick = tick

    def lost(self, added: Iterable[Table]) -> set[int]:
        """The changed overflow pages of rows that are not compared yet. `added` are tables that are new as a whole."""
        image, known = self._image, self._known_pages()
        lost = {page for page in self._changed if self._may_be_overflow(page) and page not in known}
        if lost:
            lost -= image.free_pages()
        if lost:
            lost -= self._chains(known)
        if lost:
            lost -= self._chains(self._index_pages(known))
        for root in (1, *(table.root for table in added)):  # 1: the schema, whose statements may be long
            if lost:
                lost -= self._chains(image.walk(root))
        return lost

    def _known_pages(self) -> set[int]:
        return {page for rows in self._work.values() for page in rows.after}

    def _may_be_overflow(self, page: int) -> bool:
        image = self._image
        if not 1 < page <= image.pages or page == LOCK_BYTE // image.page_size + 1:
            return False
        if image.header.auto_vacuum and pointer_map_page(page, image.usable) == page:
            return False
        return image.raw(page)[0] not in KINDS or image.pages >= _AMBIGUOUS

    def _index_pages(self, known: set[int]) -> Iterator[int]:
        """Changed pages of indexes. A page that is not free is one if it looks like one."""
        for page in self._changed:
            inside = 1 < page <= self._image.pages and page not in known
            if inside and self._image.kind(page) in {INDEX_INTERIOR, INDEX_LEAF}:
                yield page

    def _chains(self, pages: Iterable[int]) -> set[int]:
        """The overflow pages of all cells of these pages."""
        found: set[int] = set()
        for page in pages:
            self._tick()
            if self._image.kind(page) in _BEARING:
                found |= self._chains_of(page)
        return found

    def _chains_of(self, page: int) -> set[int]:
        found: set[int] = set()
        try:
            for cell in self._image.page(page).cells:
                if cell.overflow:
                    found.update(self._image.chain(cell))
        except Malformed:  # a page that only looks like one of a b-tree
            pass
        return found

    def assign(self, lost: set[int], tables: Sequence[Table], take: Callable[[str, int], None]) -> None:
        """Call `take` with each table and page whose rows have these overflow pages."""
        left = set(lost)
        likely = self._by_pointer_map(left) if self._image.header.auto_vacuum else self._nearby(left)
        ordered = [each for each in tables if each.is_ordered]
        for name, pages in Owners(self._image, ordered).find(likely, self._tick).items():
            for page in pages:
                self._take(name, page, left, take)
        for table in tables:
            if not left:
                return
            for page in self._image.walk(table.root):
                self._tick()
                self._take(table.name, page, left, take)

    def _take(self, name: str, page: int, left: set[int], take: Callable[[str, int], None]) -> None:
        if self._image.kind(page) in _BEARING:
            found = self._chains_of(page) & left
            if found:
                left -= found
                take(name, page)

    def _by_pointer_map(self, lost: set[int]) -> set[int]:
        """The pages with the rows, each by the parents of its overflow pages."""
        image, found = self._image, set[int]()
        for page in lost:
            kind, parent = self._parent(page)
            steps = 0
            while kind == _NEXT_OF_CHAIN and steps < image.pages:
                kind, parent = self._parent(parent)
                steps += 1
            if kind == _FIRST_OF_CHAIN:
                found.add(parent)
        return found

    def _parent(self, page: int) -> tuple[int, int]:
        usable = self._image.usable
        return pointer_map_entry(self._image.raw(pointer_map_page(page, usable)), page, usable)

    def _nearby(self, lost: set[int]) -> set[int]:
        """Pages in the same chunks with a cell that leads to one of the lost pages."""
        per_chunk = CHUNK_SIZE // self._image.page_size
        heads: dict[int, int] = {}
        before: dict[int, int] = {}
        for chunk in sorted({(page - 1) // per_chunk for page in lost}):
            for page in range(max(2, chunk * per_chunk + 1), min((chunk + 1) * per_chunk, self._image.pages) + 1):
                self._note(page, heads, before)
        found = set()
        for start in lost:
            page, seen = start, set[int]()
            while page not in heads and page in before and page not in seen:
                seen.add(page)
                page = before[page]
            if page in heads:
                found.add(heads[page])
        return found

    def _note(self, page: int, heads: dict[int, int], before: dict[int, int]) -> None:
        """Note which overflow pages this page leads to."""
        raw = self._image.raw(page)
        if raw[0] in _BEARING:
            try:
                cells = self._image.page(page).cells
            except Malformed:
                return
            for cell in cells:
                if cell.overflow:
                    heads.setdefault(cell.overflow, page)
        else:
            before.setdefault(int.from_bytes(raw[:4], "big"), page)
