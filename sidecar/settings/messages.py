"""What is wrong with a setting, in our words: a library's say what its types are called."""

from enum import StrEnum
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from sidecar.units import format_size

_NUMBERS = {"greater_than_equal", "less_than_equal", "int_parsing", "int_type", "int_from_float", "int_parsing_size"}


def said_of(field: FieldInfo, kind: str, words: str, given: object, *, sized: bool) -> str:
    """Words for a kind of pydantic's errors; `sized` says that the number is one of bytes."""
    if choices := choices_of(field):
        quoted = isinstance(given, bool) and "on" in choices
        return f"it is one of {', '.join(choices)}" + (
            f': write "{"on" if given else "off"}", in quotes' if quoted else ""
        )
    if kind in _NUMBERS:
        low, high = range_of(field)
        shown = format_size if sized else str
        return f"it is a {'size' if sized else 'whole number'} from {shown(low)} to {shown(high)}"
    if kind in {"tuple_type", "path_type"}:
        return 'it is a list of text: ["one", "another"]'
    if kind == "string_type":
        return "it is text: write it in quotes"
    return words.removeprefix("Value error, ")


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that a setting may be, if it is one of some."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return tuple(field.annotation)
    return ()


def range_of(field: FieldInfo) -> tuple[int, int]:
    """The least and the most that a number may be."""
    bounds = {name: int(getattr(each, name)) for each in field.metadata for name in ("ge", "le") if hasattr(each, name)}
    return bounds["ge"], bounds["le"]
