"""Finds names of stores that may be misspellings of each other. Pure."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

NAMED = 3
ALIKE = 0.75  # `app` and `ap`, `store` and `stroe`; not `shop` and `blog`
_IDENTIFIER = re.compile(r"(?<![^\W_])(?=[a-f]*\d)[0-9a-f]{4,}(?![^\W_])", re.IGNORECASE)  # a commit, part of a UUID
_NUMBER = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[\W_]+")


def similar_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The most similar of these names, at most three, without the name itself and the others of its series."""
    series = _series(name)
    others = (each for each in names if each != name and _series(each) != series)
    return tuple(get_close_matches(name, list(others), n=NAMED, cutoff=ALIKE))


def _series(name: str) -> str:
    """The common part of names that differ only in a number or hexadecimal identifier, such as `pr-12` and `pr-13`.

    Such stores are created beside each other on purpose: one for each preview, tenant or shard.
    """
    return _SEPARATORS.sub("", _NUMBER.sub("", _IDENTIFIER.sub("", name)))
