"""Which names of stores could be typing errors of each other (pure)."""

from collections.abc import Iterable
from difflib import get_close_matches

NAMED = 3
ALIKE = 0.75  # `app` and `ap`, `store` and `stroe`; not `shop` and `blog`


def similar_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The most similar of these names, at most three, without the name itself."""
    others = (each for each in names if each != name)
    return tuple(get_close_matches(name, list(others), n=NAMED, cutoff=ALIKE))
