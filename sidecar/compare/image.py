"""Reads b-trees, rows and the schema out of the pages of one state. Pure: the state brings the bytes."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.fileformat import (
    INTERIOR,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    Header,
    Malformed,
    Page,
    decode_record,
    kind_of,
    parse_page,
    text_decoder,
)
from sidecar.compare.pages import State
from sidecar.compare.values import Value
from sidecar.repository.format.index import CHUNK_SIZE

KEPT_BYTES = 8 << 20  # of raw pages
KEPT_INTERIOR = 2000  # parsed pages
DEEPEST = 40  # no b-tree has more levels
READ_AHEAD = 128  # pages of a walk that are fetched together


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `sqlite_schema`."""

    type: str
    name: str
    table: str
    root: int
    sql: str


class Image:
    """The pages, b-trees and records of one state."""

    def __init__(self, state: State, header: Header, name: str = "") -> None:
        """`name` is that of the state in messages."""
        self.state = state
        self.header = header
        self._name = name
        self.page_size, self.usable = header.page_size, header.usable
        self.pages = state.size // header.page_size
        self.text = text_decoder(header.encoding)
        self._raw: dict[int, bytes] = {}
        self._interior: dict[int, Page] = {}
        self._kept = max(16, KEPT_BYTES // header.page_size)

    def raw(self, number: int) -> bytes:
        """The bytes of a page. Raises `Malformed` if it is not in the file."""
        page = self._raw.get(number)
        if page is None:
            if not 0 < number <= self.pages:
                raise self._marked(Malformed(f"page {number} is not in the file"))
            if len(self._raw) >= self._kept:
                self._raw.clear()
            page = self._raw[number] = self.state.read((number - 1) * self.page_size, self.page_size)
        return page

    def fetch(self, pages: Iterable[int]) -> None:
        """Have these pages ready, with few requests."""
        self.state.fetch({(page - 1) * self.page_size // CHUNK_SIZE for page in pages if 0 < page <= self.pages})

    def kind(self, number: int) -> int:
        """The first byte of a page's b-tree header, whatever the page is."""
        return kind_of(self.raw(number), number)

    def page(self, number: int) -> Page:
        """A page that is part of a b-tree. Raises `Malformed`."""
        page = self._interior.get(number)
        if page is None:
            try:
                page = parse_page(self.raw(number), number, self.usable)
            except Malformed as error:
                raise self._marked(error) from None
            if page.kind in INTERIOR:
                if len(self._interior) >= KEPT_INTERIOR:
                    self._interior.clear()
                self._interior[number] = page
        return page

    def children(self, number: int) -> tuple[int, ...]:
        """The pages below a page; none for a leaf."""
        return self.page(number).children if self.kind(number) in INTERIOR else ()

    def bears_rows(self, number: int) -> bool:
        """Whether there are rows in a page of a table's b-tree."""
        return self.kind(number) != TABLE_INTERIOR

    def chain(self, cell: Cell) -> Iterator[int]:
        """The overflow pages of a cell."""
        if cell.size > self.pages * self.page_size:
            raise self._marked(Malformed(f"a row is said to have {cell.size} bytes, more than the file"))
        number, left = cell.overflow, cell.size - len(cell.local)
        while left > 0:
            yield number
            left -= self.usable - 4
            if left > 0:
                number = int.from_bytes(self.raw(number)[:4], "big")

    def payload(self, cell: Cell) -> bytes:
        """The whole payload of a cell."""
        if not cell.overflow:
            return cell.local
        parts = [cell.local, *(self.raw(page)[4 : self.usable] for page in self.chain(cell))]
        return b"".join(parts)[: cell.size]

    def record(self, cell: Cell) -> list[Value]:
        """The values of a cell."""
        try:
            return decode_record(self.payload(cell), self.text)
        except Malformed as error:
            raise self._marked(error) from None

    def walk(self, root: int) -> Iterator[int]:
        """Every page of a b-tree, in the order of its keys; an interior page comes before its children."""
        waiting, seen = [root], 0
        while waiting:
            number = waiting.pop()
            seen += 1
            if seen > self.pages:
                raise self._marked(Malformed(f"the b-tree of page {root} has more pages than the file"))
            yield number
            children = self.children(number)
            for start in range(0, len(children), READ_AHEAD):
                self.fetch(children[start : start + READ_AHEAD])
            waiting += reversed(children)

    def step(self, number: int, rowid: int) -> int:
        """The child of an interior table page where a rowid is or would be."""
        page = self.page(number)
        return page.children[bisect_left(page.keys, rowid)]

    def free_pages(self) -> set[int]:
        """The pages of the freelist."""
        trunk, free = self.header.freelist, set[int]()
        while trunk and trunk not in free:
            free.add(trunk)
            page = self.raw(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self.usable // 4 - 2)
            free.update(int.from_bytes(page[at : at + 4], "big") for at in range(8, 8 + 4 * count, 4))
            trunk = int.from_bytes(page[:4], "big")
        return free

    def malformed(self, what: str) -> Malformed:
        """The error for damage of this state."""
        return self._marked(Malformed(what))

    def _marked(self, error: Malformed) -> Malformed:
        error.of = self._name
        return error

    def schema(self) -> list[Entry]:
        """The rows of `sqlite_schema`, in order. Raises `Malformed`."""
        found = []
        for number in self.walk(1):
            page = self.page(number)
            if page.kind == TABLE_LEAF:
                found += [_entry(self.record(cell)) for cell in page.cells]
        return found


def _entry(values: Sequence[Value]) -> Entry:
    if len(values) < 5:
        raise Malformed("a row of sqlite_schema is too short")
    kind, name, table, root, sql = values[:5]
    return Entry(str(kind), str(name), str(table), root if isinstance(root, int) else 0, str(sql or ""))
