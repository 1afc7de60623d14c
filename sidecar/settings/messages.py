"""Messages about wrong settings, in a user's terms instead of pydantic's type names."""

from pydantic.fields import FieldInfo

from sidecar.settings.kinds import choices_of, kind_of, range_of
from sidecar.units import format_size

_NUMBERS = {"greater_than_equal", "less_than_equal", "int_parsing", "int_type", "int_from_float", "int_parsing_size"}


def explain(field: FieldInfo, kind: str, words: str, given: object) -> str:
    """What the setting must be; `kind` and `words` are the type and the message of pydantic's error."""
    if choices := choices_of(field):
        quoted = isinstance(given, bool) and "on" in choices
        return f"must be one of {', '.join(choices)}" + (
            f': write "{"on" if given else "off"}", in quotes' if quoted else ""
        )
    if kind in _NUMBERS:
        low, high = range_of(field)
        size = kind_of(field).size
        shown = format_size if size else str
        return f"must be a {'size' if size else 'whole number'} from {shown(low)} to {shown(high)}"
    if kind in {"tuple_type", "path_type"}:
        return 'must be a list of strings: ["one", "another"]'
    if kind == "string_type":
        return "must be a string: write it in quotes"
    return words.removeprefix("Value error, ")
