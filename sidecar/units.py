"""Durations and sizes as people write them: `5m`, `90s`, `1h30m`, `500ms`; `64MiB`, `8MB`."""

import re
from datetime import timedelta
from decimal import Decimal

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_LONGEST = timedelta(days=3650)


def parse_duration(value: object) -> timedelta:
    """Parse a duration; `0` needs no unit. Raises ValueError with the expected form."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip().lower()
    if text == "0":
        return timedelta(0)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("not a duration like 5m, 90s, 1h30m or 500ms")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST.total_seconds():
        raise ValueError("longer than ten years")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Format a duration to the millisecond, without zero units: `5m`, `1h30m`, `1s500ms`."""
    rest = round(value.total_seconds() * 1000)
    text = ""
    for unit, milliseconds in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, milliseconds)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(value: object) -> int:
    """Parse a size in bytes: `MiB` is 2**20, `MB` is 10**6, a bare number is bytes. Raises ValueError."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if not match:
        raise ValueError("not a size like 64MiB, 8MB or 1048576")
    number, prefix = match.groups()
    base = 1024 if prefix and prefix.lower().endswith("i") else 1000
    power = "kmgt".index(prefix[0].lower()) + 1 if prefix else 0
    return int(Decimal(number) * base**power)


def format_size(size: float) -> str:
    """Format a number of bytes: `12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def whole_number(text: str | None) -> int | None:
    """Parse a number in an object's metadata; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() else None
