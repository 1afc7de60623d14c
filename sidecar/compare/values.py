"""Values of SQLite as they are stored: compared by type and byte, written as JSON, as SQL, and as keys that sort. Pure.

An `int` is an INTEGER, a `float` a REAL, a `str` valid TEXT, `bytes` a BLOB. Text that is not valid is `InvalidText`.
"""

import base64
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

_REAL = struct.Struct(">d")
_WORD = struct.Struct(">Q")
LONGEST_KEY = 1 << 10  # bytes: longer ones are replaced by their digest
SHORTENED = 64 << 10  # bytes: longer values are not kept whole
EXCERPT = 200


@dataclass(frozen=True, slots=True)
class InvalidText:
    """Text that is not valid in its encoding, as bytes."""

    raw: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class Shortened:
    """A value that is too long to be kept: its type, its length in bytes (in characters for text), its digest, its beginning."""

    kind: str
    length: int
    digest: str
    start: str


Value = None | int | float | str | bytes | InvalidText
Shown = Value | Shortened
Row = tuple[Value, ...]


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same by type and byte: 1 is not 1.0, and 0.0 is not -0.0."""
    if one is other:
        return True
    if type(one) is not type(other) or one != other:
        return False
    return type(one) is not float or math.copysign(1.0, one) == math.copysign(1.0, other)  # type: ignore[arg-type]


def type_name(value: Shown) -> str:
    """The type as SQLite's `typeof` names it."""
    match value:
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "real"
        case bytes():
            return "blob"
        case Shortened():
            return value.kind
    return "text"


def key_of(values: Iterable[Value]) -> bytes:
    """Bytes that are equal only for the same values, and sort as integers, text and blobs do."""
    key = b"".join(map(_key_part, values))
    return key if len(key) <= LONGEST_KEY else key[:32] + b"\xff" + sha256(key).digest()


def _key_part(value: Value) -> bytes:
    match value:
        case None:
            return b"\x05"
        case int():
            return b"\x10" + _WORD.pack(value + (1 << 63))
        case float():
            bits = _WORD.unpack(_REAL.pack(value))[0]
            return b"\x11" + _WORD.pack(bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63))
        case str():
            return b"\x20" + _terminated(value.encode("utf-8", "surrogatepass"))
        case bytes():
            return b"\x30" + _terminated(value)
    return b"\x21" + _terminated(value.raw)


def _terminated(data: bytes) -> bytes:
    return data.replace(b"\0", b"\0\xff") + b"\0\0"


def to_json(value: Shown) -> object:
    """A value for JSON: `{"$base64": …}` is a blob, `$real` an infinite number, `$text` text that is not valid, in Base64."""
    match value:
        case bytes():
            return {"$base64": base64.b64encode(value).decode()}
        case float() if math.isinf(value):
            return {"$real": "Infinity" if value > 0 else "-Infinity"}
        case InvalidText():
            return {"$text": base64.b64encode(value.raw).decode(), "encoding": value.encoding}
        case Shortened():
            return {"$shortened": value.kind, "length": value.length, "sha256": value.digest, "start": value.start}
    return value


def of_json(value: object) -> Shown:
    """The inverse of `to_json`."""
    match value:
        case {"$base64": str(text)}:
            return base64.b64decode(text)
        case {"$real": str(text)}:
            return float(text)
        case {"$text": str(text), "encoding": str(encoding)}:
            return InvalidText(base64.b64decode(text), encoding)
        case {"$shortened": str(kind), "length": int(length), "sha256": str(digest), "start": str(start)}:
            return Shortened(kind, length, digest, start)
        case None | int() | float() | str():
            return value
    raise ValueError(f"not a value of a database: {value!r}")


def shortened(value: Value) -> Shown:
    """The value, or what is kept of a long one."""
    if type(value) is int or value is None:
        return value
    match value:
        case str() if len(value) > SHORTENED:
            raw = value.encode("utf-8", "surrogatepass")
            return Shortened("text", len(value), sha256(raw).hexdigest(), value[:EXCERPT])
        case bytes() if len(value) > SHORTENED:
            return Shortened("blob", len(value), sha256(value).hexdigest(), value[:EXCERPT].hex())
        case InvalidText() if len(value.raw) > SHORTENED:
            return Shortened("text", len(value.raw), sha256(value.raw).hexdigest(), value.raw[:EXCERPT].hex())
    return value


def literal(value: Value, encoding: str) -> str:
    """A value as SQL that gives back exactly this value, in a database of this encoding.

    Text with control characters is written in hexadecimal, because SQLite cuts SQL at NUL and a terminal obeys the others.
    """
    match value:
        case None:
            return "NULL"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else "9e999" if value > 0 else "-9e999"
        case bytes():
            return f"X'{value.hex()}'"
        case str() if _is_plain(value):
            return "'" + value.replace("'", "''") + "'"
        case str():
            return f"CAST(X'{value.encode(encoding).hex()}' AS TEXT)"
    return f"CAST(X'{value.raw.hex()}' AS TEXT)"


def _is_plain(text: str) -> bool:
    return text.isprintable() or all(each.isprintable() or each == "\n" for each in text)


def projection(positions: Sequence[int | None], defaults: Sequence[Value]) -> Callable[[Row], Row]:
    """Gives a row other columns: those at `positions`, and the default where that is None."""
    places = list(zip(positions, defaults, strict=True))
    if all(place == at for at, (place, _) in enumerate(places)):
        return lambda row: row[: len(places)]
    return lambda row: tuple([default if at is None else row[at] for at, default in places])
