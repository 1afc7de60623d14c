"""Values for people, in SQL's notation. Nothing in them can control a terminal, and long ones are folded. Pure."""

from os.path import commonprefix

from sidecar.compare.values import InvalidText, Shortened, Shown, type_name

LONGEST = 60  # characters
_CONTEXT = 20  # characters before the first difference of two long texts
NEW_COLUMN = "(new column)"  # instead of a value that the earlier state had no place for


def format_value(value: Shown, start: int = 0) -> str:
    """A value on one line; text from character `start` on."""
    match value:
        case None:
            return "NULL"
        case str():
            return _folded(value[start : start + LONGEST], start, len(value), "characters")
        case bytes():
            return _blob(value)
        case InvalidText():
            return f"{_blob(value.raw)} (text that is not valid {value.encoding})"
        case Shortened():
            return f"{_quoted(value.start[:LONGEST])}… ({value.length:,} {'bytes' if value.kind == 'blob' else 'characters'}, SHA-256 {value.digest[:12]}…)"
    return str(value)


def format_change(before: Shown, after: Shown) -> tuple[str, str, str]:
    """Both values, and a note if it is the type that changed."""
    start = 0
    if isinstance(before, str) and isinstance(after, str) and max(len(before), len(after)) > LONGEST:
        start = max(0, len(commonprefix([before, after])) - _CONTEXT)  # noqa: RUF071 - of text
    types = type_name(before), type_name(after)
    told = types[0] != types[1] and None not in {before, after}
    return format_value(before, start), format_value(after, start), f"({types[0]} -> {types[1]})" if told else ""


def visible(text: str) -> str:
    """Text in which characters that are not printed are written as escapes: they may control a terminal, or hide."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _quoted(text: str) -> str:
    return "'" + visible(text.replace("'", "''")) + "'"


def _folded(part: str, start: int, length: int, unit: str) -> str:
    before, after = "…" if start else "", "…" if start + len(part) < length else ""
    size = f" ({length:,} {unit})" if before or after else ""
    return f"{before}{_quoted(part)}{after}{size}"


def _blob(value: bytes) -> str:
    most = LONGEST // 2
    return f"X'{value.hex()}'" if len(value) <= most else f"X'{value[:most].hex()}'… ({len(value):,} bytes)"
