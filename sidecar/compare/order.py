"""The order of the rows of a WITHOUT ROWID table, and of the entries of an index: section 2.4 of the file format. Pure."""

from collections.abc import Sequence
from functools import total_ordering

from sidecar.compare.values import InvalidText, Value


@total_ordering
class _Descending:
    """A part of a key that sorts backwards."""

    def __init__(self, part: "_Part") -> None:
        self.part = part

    def __lt__(self, other: "_Descending") -> bool:
        return other.part < self.part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.part == other.part

    __hash__ = None  # type: ignore[assignment]


_Part = tuple[int, object]
SortKey = list[_Part | _Descending]


def sort_key(values: Sequence[Value], collations: Sequence[tuple[str, bool]], encoding: str) -> SortKey:
    """What a record is sorted by: as many of its values as there are `collations`, each with whether it is descending."""
    return [
        _Descending(_part(value, collation, encoding)) if descending else _part(value, collation, encoding)
        for value, (collation, descending) in zip(values, collations, strict=False)
    ]


def _part(value: Value, collation: str, encoding: str) -> _Part:
    match value:
        case None:
            return 0, 0
        case int() | float():
            return 1, value
        case bytes():
            return 3, value
        case str() if collation == "BINARY":
            return 2, value.encode(encoding)
        case str():
            raw = value.encode()
        case InvalidText():
            raw = value.raw
    if collation == "NOCASE":
        raw = raw.lower()
    return 2, raw.rstrip(b" ") if collation == "RTRIM" else raw
