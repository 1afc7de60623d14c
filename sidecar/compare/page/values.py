"""Values for the page: what is shown at once, what is folded, and which part of a changed text changed. Pure.

Line ends stay; every other character that is not printed, and those that reorder text, are written as escapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

from sidecar.compare.display import visible
from sidecar.compare.reading import ComparedTable, RowChange
from sidecar.compare.tables import Table
from sidecar.compare.values import InvalidText, Shortened, Shown, type_name

LONGEST = 280  # characters that are shown at once
LINES = 6
FOLDED = 20_000  # characters that unfold
_MARKED_FROM = 12  # characters that are the same in both: in shorter text all is seen at once
_CONTEXT = 40  # characters before the first difference of two long texts


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value: `start`, `marked` and `end` are shown at once, `whole` unfolds, `note` says how long it is."""

    kind: str
    start: str
    marked: str = ""
    end: str = ""
    whole: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a row, with its value in the earlier and in the later state; None if it has none there."""

    name: str
    before: ShownValue | None
    after: ShownValue | None
    is_changed: bool = False
    types: str = ""


def shown_value(value: Shown, other: Shown = None, *, mark: bool = False) -> ShownValue:
    """A value; with `mark`, where it differs from the `other` one is marked, if both are text."""
    kind = type_name(value)
    match value:
        case None:
            return ShownValue(kind, "NULL")
        case bool() | int() | float():
            return ShownValue(kind, str(value))
        case bytes():
            return _blob(value.hex(), len(value), "")
        case InvalidText():
            return _blob(value.raw.hex(), len(value.raw), f"text that is not valid {value.encoding}")
        case Shortened():
            unit = "bytes" if value.kind == "blob" else "characters"
            return ShownValue(
                kind, f"{_lines(value.start)}…", note=f"{value.length:,} {unit}, SHA-256 {value.digest[:16]}…"
            )
    return _text(value, other if mark and isinstance(other, str) else None)


def fields_of(table: ComparedTable, change: RowChange, *, everything: bool) -> list[Field]:
    """The columns of a row that differs: of a changed one those that do, or all."""
    if change.kind != "changed" or change.before is None or change.after is None:
        return _one_sided(table, change)
    before, after = table.before, table.after
    assert before is not None  # noqa: S101 - the row is in both
    assert after is not None  # noqa: S101 - the same
    old = dict(zip(before.names, change.before, strict=True))
    return [
        _both(
            after.names[at],
            old[after.names[at]] if after.names[at] in old else after.columns[at].default,
            change.after[at],
            is_changed=at in change.columns,
        )
        for at in (range(len(after.names)) if everything else change.columns)
    ]


def named(table: Table | None, row: Sequence[Shown] | None) -> list[tuple[str, ShownValue]]:
    """A whole row."""
    if table is None or row is None:
        return []
    return [(visible(name), shown_value(value)) for name, value in zip(table.names, row, strict=True)]


def changed_field(name: str, before: Shown, after: Shown) -> Field:
    """A column that changed."""
    return _both(name, before, after, is_changed=True)


def short(value: Shown) -> str:
    """A value of a key, on one line."""
    found = shown_value(value)
    text = visible(found.start)
    return f"{text[:60]}…" if len(text) > 61 else text


def _one_sided(table: ComparedTable, change: RowChange) -> list[Field]:
    if change.kind == "added":
        return [Field(name, None, value) for name, value in named(table.after, change.after)]
    return [Field(name, value, None) for name, value in named(table.before, change.before)]


def _both(name: str, before: Shown, after: Shown, *, is_changed: bool) -> Field:
    one, other = shown_value(before, after, mark=is_changed), shown_value(after, before, mark=is_changed)
    told = is_changed and one.kind != other.kind and "null" not in {one.kind, other.kind}
    return Field(visible(name), one, other, is_changed, f"{one.kind} → {other.kind}" if told else "")


def _text(value: str, other: str | None) -> ShownValue:
    first, last = (0, len(value)) if other is None else _difference(value, other)
    if len(value) - (last - first) < max(_MARKED_FROM, len(value) // 3):
        other, first, last = None, 0, len(value)
    is_long = len(value) > LONGEST or value.count("\n") >= LINES
    begin = max(0, first - _CONTEXT) if is_long and first > LONGEST // 2 else 0
    end = min(len(value), begin + LONGEST) if is_long else len(value)
    if is_long:
        end = begin + _cut(value[begin:end])
    first, last = (end, end) if other is None else (min(first, end), min(max(last, first), end))
    return ShownValue(
        "text",
        ("…" if begin else "") + _lines(value[begin:first]),
        _lines(value[first:last]),
        _lines(value[last:end]) + ("…" if end < len(value) else ""),
        _whole(value) if is_long else "",
        f"{len(value):,} characters" if is_long else "",
    )


def _difference(value: str, other: str) -> tuple[int, int]:
    """Where the part begins and ends in which a text differs from another one."""
    start = len(commonprefix([value, other]))  # noqa: RUF071 - of text
    most = min(len(value), len(other)) - start
    back = len(commonprefix([value[::-1][:most], other[::-1][:most]]))  # noqa: RUF071 - of text
    return start, len(value) - back


def _cut(text: str) -> int:
    """How much of a text fits into so many lines."""
    at = -1
    for _ in range(LINES):
        at = text.find("\n", at + 1)
        if at < 0:
            return len(text)
    return at


def _whole(value: str) -> str:
    more = len(value) - FOLDED
    return _lines(value[:FOLDED]) + (f"\n… {more:,} more characters: `sidecar export` has them" if more > 0 else "")


def _blob(digits: str, length: int, note: str) -> ShownValue:
    size = f"{length:,} {'byte' if length == 1 else 'bytes'}"
    told = f"{size}, {note}" if note else size
    start = f"{digits[:64]}{'…' if len(digits) > 64 else ''}"
    return ShownValue("blob", start, whole=digits[:FOLDED] if len(digits) > 64 else "", note=told)


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))
