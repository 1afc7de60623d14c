"""A choice between kinds of steps in a single draw: drawing is most of an example's time."""

from collections.abc import Sequence
from math import lcm
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


def evenly(*kinds: Sequence[T]) -> st.SearchStrategy[T]:
    """One of the kinds, each as likely as any other, and one of its steps."""
    each = lcm(*(len(kind) for kind in kinds))
    return st.sampled_from([step for kind in kinds for step in kind for _ in range(each // len(kind))])
