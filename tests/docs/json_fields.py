"""The fields of the JSON of `list` and `status`: those that it has, and those that docs/json.md describes."""

import re
from collections.abc import Iterator

from tests.docs import DOCS
from tests.docs.markdown import Page

JSON = Page(DOCS / "json.md")

# Fields whose own keys are databases, outcomes, phases, tiers, or what is counted.
_COUNTS = {"backups", "drills", "renewals", "seconds", "stored_bytes", "notifications", "cuts"}


def undocumented(command: str, shown: object) -> set[str]:
    """The fields of a command's JSON, at any depth, that its section does not name in backquotes."""
    return fields(shown) - set(
        re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", JSON.section(f"sidecar {command}"))))
    )


def documented(command: str) -> set[str]:
    """The fields that the tables of a command's section describe: the last word of each name in the first column."""
    rows = re.findall(r"^\| (`.+?) \|", JSON.section(f"sidecar {command}"), re.MULTILINE)
    return {re.findall(r"\w+", name)[-1] for row in rows for name in re.findall(r"`([^`]+)`", row)}


def fields(shown: object) -> set[str]:
    """The names of all fields, at any depth, but for keys that are data."""
    return set(_names(shown))


def _names(shown: object) -> Iterator[str]:
    if isinstance(shown, list):
        for each in shown:
            yield from _names(each)
    elif isinstance(shown, dict):
        for name, each in shown.items():
            yield name
            if name not in _COUNTS:
                yield from _names(each)
