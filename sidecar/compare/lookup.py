"""Finds one row by its key, on the way that SQLite takes: only the pages on it are read. Pure."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from sidecar.compare.fileformat import INTERIOR, TABLE_LEAF, Cell, Malformed
from sidecar.compare.image import DEEPEST, Entry, Image
from sidecar.compare.order import sort_key
from sidecar.compare.schema import affinity
from sidecar.compare.tables import Table, row_maker
from sidecar.compare.values import Row, Shortened, Value, of_json, same, to_json
from sidecar.errors import UsageError

_INTEGER = re.compile(r"[+-]?\d{1,19}")
_BLOB = re.compile(r"[xX]'((?:[0-9a-fA-F]{2})*)'")


def find_row(image: Image, entries: Iterable[Entry], table: Table, key: Row) -> Row | None:
    """The row with this primary key; None if there is none. All rows are read where their order is the app's own.

    Raises `Malformed`, and what reading the state raises.
    """
    make = row_maker(table)
    if table.alias is not None:
        return _of_cell(image, table, _by_rowid(image, table.root, key[0]))
    root = table.root if table.without_rowid else _root_of(entries, table)
    if not root or not table.is_ordered:
        return _by_reading_all(image, table, key)
    record = _by_order(image, root, key, table)
    if record is None or table.without_rowid:
        return None if record is None else make(None, record)
    return _of_cell(image, table, _by_rowid(image, table.root, record[-1]))


def key_of_text(text: str, table: Table) -> Row:
    """A key as a person writes it: its values separated by commas, or as a JSON array. Raises `UsageError`.

    Each value is one of the column's type, as SQLite would store it; a blob is written `X'00ff'`.
    """
    if not table.key:
        raise UsageError(
            f"{table.name} has no primary key, so none of its rows can be followed", "`sidecar diff` compares them"
        )
    parts = _parts(text, len(table.key))
    if len(parts) != len(table.key):
        raise UsageError(
            f"{text!r} is not a key of {table.name}, which has {len(table.key)} columns",
            f"write its values like {','.join(table.key_names)}",
        )
    return tuple(
        _stored(part, table.columns[at].type, is_rowid=at == table.alias)
        for part, at in zip(parts, table.key, strict=True)
    )


def text_of_key(key: Sequence[Value]) -> str:
    """A key as JSON, from which `key_of_text` makes the same one."""
    return json.dumps([to_json(each) for each in key])


def _parts(text: str, wanted: int) -> list[Value]:
    try:
        found = json.loads(text) if text.startswith("[") else None
        if isinstance(found, list):
            values = [of_json(each) for each in found]
            return [each for each in values if not isinstance(each, Shortened)]
    except (ValueError, RecursionError):
        pass
    return list(text.split(",")) if wanted > 1 else [text]


def _stored(value: Value, declared: str, *, is_rowid: bool) -> Value:
    """A value as a column of this type stores it."""
    if not isinstance(value, str):
        return value
    kind = "INTEGER" if is_rowid else affinity(declared)
    if blob := _BLOB.fullmatch(value):
        return bytes.fromhex(blob[1])
    if kind in {"INTEGER", "NUMERIC", "REAL"}:
        if _INTEGER.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63:
            return float(value) if kind == "REAL" else int(value)
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _of_cell(image: Image, table: Table, cell: Cell | None) -> Row | None:
    return None if cell is None else row_maker(table)(cell.key, image.record(cell))


def _by_rowid(image: Image, root: int, rowid: Value) -> Cell | None:
    if not isinstance(rowid, int):
        return None
    at = root
    for _level in range(DEEPEST):
        if image.kind(at) not in INTERIOR:
            cells = image.page(at).cells
            place = bisect_left([cell.key or 0 for cell in cells], rowid)
            return cells[place] if place < len(cells) and cells[place].key == rowid else None
        at = image.step(at, rowid)
    raise Malformed("a b-tree has a loop")


def _by_order(image: Image, root: int, key: Row, table: Table) -> list[Value] | None:
    """The record of a WITHOUT ROWID table, or of the index of the primary key, that begins with this key."""
    encoding, at = image.header.encoding, root
    wanted = sort_key(key, table.collations, encoding)
    for _level in range(DEEPEST):
        page = image.page(at)
        keys = [sort_key(image.record(cell), table.collations, encoding) for cell in page.cells]
        place = bisect_left(keys, wanted)
        if place < len(keys) and keys[place] == wanted:
            return image.record(page.cells[place])
        if page.kind not in INTERIOR:
            return None
        at = page.children[place]
    raise Malformed("a b-tree has a loop")


def _by_reading_all(image: Image, table: Table, key: Row) -> Row | None:
    make = row_maker(table)
    for number in image.walk(table.root):
        page = image.page(number)
        for cell in page.cells if page.kind == TABLE_LEAF or table.without_rowid else ():
            row = make(cell.key, image.record(cell))
            if all(same(row[at], value) for at, value in zip(table.key, key, strict=True)):
                return row
    return None


def _root_of(entries: Iterable[Entry], table: Table) -> int:
    """The root page of the index of the primary key; 0 if it is not known."""
    named = (each.root for each in entries if each.type == "index" and each.name == table.primary)
    return next(named, 0) if table.primary else 0
