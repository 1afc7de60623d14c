"""SQLite's file format: header, b-tree pages, cells and records, as bytes in and values out. Pure.

After https://sqlite.org/fileformat2.html, whose words are used. Records are decoded type by type, so that the integer 1
is not the real number 1.0, and text that is not valid in the database's encoding is kept as it is.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.compare.values import InvalidText, Value

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = 100
INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13
KINDS = frozenset({INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF})
INTERIOR = frozenset({INDEX_INTERIOR, TABLE_INTERIOR})
LOCK_BYTE = 0x40000000  # the page with this byte is never used
_ENCODINGS = {0: "utf-8", 1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL = struct.Struct(">d")


class Malformed(Exception):
    """The bytes do not follow the file format. The message says which page, and `of` in which state, if that is known."""

    of = ""


class NotSqlite(Exception):
    """The file does not begin like a SQLite database."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 100 bytes of a database say. Sizes are bytes; `usable` is what a page has for content.

    `user_version` and `application_id` are numbers that the app has set by PRAGMA.
    """

    page_size: int
    usable: int
    encoding: str
    auto_vacuum: bool
    freelist: int
    user_version: int = 0
    application_id: int = 0

    @classmethod
    def parse(cls, head: bytes) -> "Header":
        """Raises `NotSqlite`."""
        if head[: len(MAGIC)] != MAGIC or len(head) < HEADER_SIZE:
            raise NotSqlite
        size = int.from_bytes(head[16:18], "big")
        page_size = 65536 if size == 1 else size
        encoding = _ENCODINGS.get(int.from_bytes(head[56:60], "big"))
        if page_size < 512 or page_size & (page_size - 1) or encoding is None:
            raise NotSqlite
        vacuums = int.from_bytes(head[52:56], "big") != 0
        numbers = (int.from_bytes(head[at : at + 4], "big", signed=True) for at in (60, 68))
        return cls(page_size, page_size - head[20], encoding, vacuums, int.from_bytes(head[32:36], "big"), *numbers)


class Cell(NamedTuple):
    """A row, or an entry of an index: `key` is the rowid, None in index b-trees. `size` is that of the whole payload.

    `local` is the part of the payload in the page; `overflow` is the first overflow page, 0 if there is none.
    """

    key: int | None
    size: int
    local: bytes
    overflow: int


class Page(NamedTuple):
    """A parsed b-tree page. `keys` are the rowids of an interior table page, which separate its children."""

    kind: int
    children: tuple[int, ...]
    keys: tuple[int, ...]
    cells: tuple[Cell, ...]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned value of a variable-length integer, and where the next byte is."""
    first = data[at]
    if first < 128:
        return first, at + 1
    value = 0
    for index in range(at, at + 8):
        byte = data[index]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, index + 1
    return value << 8 | data[at + 8], at + 9


def signed(value: int) -> int:
    """A variable-length integer as a rowid."""
    return value - (1 << 64) if value >> 63 else value


def kind_of(page: bytes, number: int) -> int:
    """The first byte of a page's b-tree header. It means nothing unless the page is part of a b-tree."""
    return page[HEADER_SIZE if number == 1 else 0]


def parse_page(page: bytes, number: int, usable: int) -> Page:
    """Parse a page that is part of a b-tree. Raises `Malformed`."""
    try:
        return _parse(page, number, usable)
    except (IndexError, struct.error) as error:
        raise Malformed(f"page {number} is not a b-tree page") from error


def _parse(page: bytes, number: int, usable: int) -> Page:
    start = HEADER_SIZE if number == 1 else 0
    kind, count = page[start], page[start + 3] << 8 | page[start + 4]
    if kind not in KINDS:
        raise Malformed(f"page {number} is not a b-tree page")
    is_interior = kind in INTERIOR
    places = struct.unpack_from(f">{count}H", page, start + (12 if is_interior else 8))
    children: list[int] = []
    keys: list[int] = []
    cells: list[Cell] = []
    for place in places:
        at = place
        if is_interior:
            children.append(int.from_bytes(page[at : at + 4], "big"))
            at += 4
        if kind == TABLE_INTERIOR:
            keys.append(signed(varint(page, at)[0]))
        else:
            cells.append(_cell(page, at, usable, has_rowid=kind == TABLE_LEAF))
    if is_interior:
        children.append(int.from_bytes(page[start + 8 : start + 12], "big"))
    return Page(kind, tuple(children), tuple(keys), tuple(cells))


def _cell(page: bytes, at: int, usable: int, *, has_rowid: bool) -> Cell:
    size, at = varint(page, at)
    key = None
    if has_rowid:
        number, at = varint(page, at)
        key = signed(number)
    local = size if size <= usable - 35 and has_rowid else _local_size(size, usable, is_index=not has_rowid)
    overflow = int.from_bytes(page[at + local : at + local + 4], "big") if local < size else 0
    return Cell(key, size, page[at : at + local], overflow)


def _local_size(size: int, usable: int, *, is_index: bool) -> int:
    """How many bytes of a payload are in its page: section 1.6 of the format."""
    most = (usable - 12) * 64 // 255 - 23 if is_index else usable - 35
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    rest = least + (size - least) % (usable - 4)
    return rest if rest <= most else least


def first_key(page: bytes, number: int) -> int | None:
    """The first rowid in a page that may be one of a table b-tree; None if it has none. Raises `Malformed`."""
    start = HEADER_SIZE if number == 1 else 0
    try:
        if not (page[start + 3] << 8 | page[start + 4]):
            return None
        is_interior = page[start] in INTERIOR
        head = start + (12 if is_interior else 8)
        place = page[head] << 8 | page[head + 1]
        at = place + 4 if is_interior else varint(page, place)[1]
        return signed(varint(page, at)[0])
    except IndexError as error:
        raise Malformed(f"page {number} is not a b-tree page") from error


def serial_types(record: bytes) -> list[int]:
    """The serial types of a record, one for each column that is stored. Raises `Malformed`."""
    try:
        size, at = varint(record, 0)
        types: list[int] = []
        while at < size:
            serial, at = varint(record, at)
            types.append(serial)
    except IndexError as error:
        raise Malformed("a record is too short") from error
    return types


def decode_record(record: bytes, text: Callable[[bytes], Value]) -> list[Value]:
    """The values of a record; `text` decodes text. Raises `Malformed`."""
    values: list[Value] = []
    try:
        at, place = varint(record, 0)
        end = at
        while place < end:
            serial = record[place]  # in most headers each type is one byte
            place += 1
            if serial >= 128:
                serial, place = varint(record, place - 1)
            if serial >= 12:
                size = (serial - 12) >> 1
                raw = record[at : at + size]
                at += size
                values.append(text(raw) if serial & 1 else raw)
            elif serial in _INTEGER_SIZES:
                size = _INTEGER_SIZES[serial]
                values.append(int.from_bytes(record[at : at + size], "big", signed=True))
                at += size
            elif serial == 7:
                real = _REAL.unpack_from(record, at)[0]
                values.append(None if real != real else real)
                at += 8
            else:
                values.append(serial - 8 if serial in {8, 9} else None)
    except (IndexError, OverflowError, struct.error) as error:
        raise Malformed("a record is too short") from error
    if at > len(record):
        raise Malformed("a record is too short")
    return values


def text_decoder(encoding: str) -> Callable[[bytes], Value]:
    """Decodes text of this encoding, such that nothing is lost."""

    def decode(raw: bytes) -> Value:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            return InvalidText(raw, encoding)

    return decode


def pointer_map_page(number: int, usable: int) -> int:
    """The pointer-map page with the entry of a page, in a database with auto_vacuum; the page itself if it is one."""
    per_map = usable // 5 + 1
    return (number - 2) // per_map * per_map + 2


def pointer_map_entry(pointer_map: bytes, number: int, usable: int) -> tuple[int, int]:
    """The type of a page (3 and 4 are overflow pages, the first of a chain and others) and its parent."""
    at = (number - pointer_map_page(number, usable) - 1) * 5
    return pointer_map[at], int.from_bytes(pointer_map[at + 1 : at + 5], "big")
