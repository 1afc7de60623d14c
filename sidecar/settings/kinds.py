"""The kinds of values that settings have: how each is read, validated, named on the command line and shown."""

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from sidecar.policies import Growth, RetentionDays
from sidecar.storage.urls import is_http, without_password
from sidecar.units import format_duration, format_size, parse_duration, parse_size

SMALLEST_ALERT = 64 << 10


@dataclass(frozen=True, slots=True)
class Kind:
    """Properties of a field's values, which pydantic keeps in the field's metadata."""

    metavar: str
    secret: bool = False  # never shown, not even in an error
    repeatable: bool = False
    size: bool = False


def kind_of(field: FieldInfo) -> Kind:
    """The kind that a field was declared with, or one made from its choices."""
    if choices := choices_of(field):
        return Kind(f"[{'|'.join(choices)}]")
    return next(each for each in field.metadata if isinstance(each, Kind))


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The allowed words of a setting, empty if it is not a choice of words."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return tuple(field.annotation)
    return ()


def range_of(field: FieldInfo) -> tuple[int, int]:
    """The smallest and the largest allowed number of a setting."""
    bounds = {name: int(getattr(each, name)) for each in field.metadata for name in ("ge", "le") if hasattr(each, name)}
    return bounds["ge"], bounds["le"]


def format_value(field: FieldInfo, value: object) -> str:
    """A value for people: durations and sizes with units, secrets and passwords masked, `-` for no value."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value) or "-"
    if isinstance(value, int) and kind_of(field).size:
        return format_size(value)
    return "-" if value is None else without_password(str(value))


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _require_positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def _require_number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic catches ValueError
    return value


def _require_url(value: SecretStr) -> SecretStr:
    if not is_http(value.get_secret_value()):
        raise ValueError("not a URL like https://example.com/hook")
    return value


def _require_metrics_url(value: str) -> str:
    if value and not is_http(value):
        raise ValueError("not a URL like http://127.0.0.1:8000/metrics")
    return value


def _parse_growth(value: object) -> object:
    if value is None or isinstance(value, Growth):
        return value
    if not isinstance(value, str):
        raise ValueError("neither a size like 2GiB nor a growth like 50%, in quotes")  # noqa: TRY004 - as above
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())
    if percent and float(percent[1]) > 0:
        return Growth(factor=float(percent[1]) / 100)
    if percent:
        raise ValueError("a growth must be more than 0%")
    try:
        size = parse_size(value)
    except ValueError:
        raise ValueError("neither a size like 2GiB nor a growth like 50%") from None
    if size < SMALLEST_ALERT:
        raise ValueError(
            f"a size must be at least {format_size(SMALLEST_ALERT)}: every database soon exceeds a smaller one"
        )
    return Growth(limit=size)


def _parse_retention(value: object) -> object:
    """Days by tier: text like `recent=1,daily=35`, or a table in TOML. Tiers that are not named keep their default."""
    if isinstance(value, RetentionDays):
        return value
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        given: dict[str, object] = {name.strip(): _days(name, text) for name, _, text in pairs}
        if len(given) < len(pairs):
            raise ValueError("names a tier twice")
    elif isinstance(value, dict):
        given = value
    else:
        raise ValueError("not days by tier, like recent=1,hourly=7,daily=35,stream=35")  # noqa: TRY004 - as above
    tiers = [each.name for each in fields(RetentionDays)]
    if unknown := next((name for name in given if name not in tiers), None):
        raise ValueError(f"{unknown!r} is not a tier: they are {', '.join(tiers)}")
    return RetentionDays(**given)  # type: ignore[arg-type] # it checks them itself


def _days(tier: str, text: str) -> int:
    if not text.strip():
        raise ValueError(f"{tier.strip()!r} is not days by tier, like recent=1,hourly=7")
    if not re.fullmatch(r"\s*-?[0-9]+\s*", text):
        raise ValueError(f"{tier.strip()}={text.strip()} is not a whole number of days")
    return int(text)


_Hook = Annotated[SecretStr, AfterValidator(_require_url)]

StoreUrl = Annotated[str, Kind("URL")]
OtherStoreUrl = Annotated[str | None, Kind("URL")]
Address = Annotated[str, Kind("HOST:PORT")]
PathOrWord = Annotated[str, Kind("PATH")]
User = Annotated[str | None, Kind("USER")]
Number = Annotated[int, BeforeValidator(_require_number), Kind("NUMBER")]
Duration = Annotated[timedelta, BeforeValidator(parse_duration), Kind("DURATION")]
PositiveDuration = Annotated[Duration, AfterValidator(_require_positive)]
Size = Annotated[int, BeforeValidator(parse_size), Kind("SIZE", size=True)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_split), Kind("PATH", repeatable=True)]
MetricsUrl = Annotated[Annotated[str, AfterValidator(_require_metrics_url)] | None, Kind("URL")]
SecretUrl = Annotated[_Hook | None, Kind("URL", secret=True)]
SecretUrls = Annotated[tuple[_Hook, ...], BeforeValidator(_split), Kind("URL", secret=True, repeatable=True)]
GrowthLimit = Annotated[Growth | None, BeforeValidator(_parse_growth), Kind("SIZE|PERCENT")]
Retention = Annotated[RetentionDays, BeforeValidator(_parse_retention), Kind("DAYS")]
