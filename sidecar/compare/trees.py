"""The pages of a table whose rows have to be compared: those that changed, and those that only one state has. Pure.

Rows can differ nowhere else: a page that is the same, and part of the table in both states, holds the same rows. One
exception are overflow pages that were written in place, whose rows are in a page that is the same: see `overflow`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sidecar.compare.fileformat import INTERIOR
from sidecar.compare.image import Image
from sidecar.compare.pages import PageSet
from sidecar.compare.tables import Pair


@dataclass(slots=True)
class Rows:
    """The pages of a table with rows to be compared, of each state. `whole`: all pages of the b-tree, by walking it."""

    before: set[int] = field(default_factory=set)
    after: set[int] = field(default_factory=set)
    whole: bool = False

    def __bool__(self) -> bool:
        return self.whole or bool(self.before or self.after)


@dataclass(slots=True)
class _Side:
    """One state of a table: `opened` are interior pages whose children are known, `children` are all of these."""

    image: Image
    root: int
    alive: set[int]
    waiting: set[int] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)
    children: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.children = {self.root}
        self.image.fetch(self.alive)
        self.waiting = {page for page in self.alive if self.image.kind(page) in INTERIOR}

    def open_waiting(self) -> None:
        """Learn the children of the interior pages that wait."""
        self.image.fetch(self.waiting)
        for page in self.waiting:
            self.children.update(self.image.children(page))
        self.opened |= self.waiting
        self.waiting = set()

    def wait_for(self, pages: Iterable[int]) -> None:
        """Have these pages opened, if they are interior ones."""
        new = set(pages) - self.opened
        self.image.fetch(new)
        self.waiting |= {page for page in new if self.image.kind(page) in INTERIOR}

    def bearing(self, pages: Iterable[int]) -> set[int]:
        """Those of the pages that have rows."""
        found = set(pages)
        self.image.fetch(found)
        return {page for page in found if self.image.bears_rows(page)}


def pages_to_compare(
    before: Image,
    after: Image,
    pair: Pair,
    alive: tuple[set[int], set[int]],
    changed: PageSet,
    tick: Callable[[], None],
) -> Rows:
    """The pages of both states of a table whose rows are to be compared; `alive` are the changed pages of each state's b-tree.

    Children of changed interior pages are followed, and those that one state alone has further down. A page that is the same
    in both is opened in both or in none: else its children would seem to be in one alone.
    """
    one, other = _Side(before, pair.before.root, alive[0]), _Side(after, pair.after.root, alive[1])
    if one.root != other.root:
        one.wait_for([one.root])
        other.wait_for([other.root])
    while one.waiting or other.waiting:
        tick()
        one.open_waiting()
        other.open_waiting()
        other.wait_for(page for page in one.opened & other.children if page not in changed)
        one.wait_for(page for page in other.opened & one.children if page not in changed)
        if one.waiting or other.waiting:
            continue
        one.wait_for(one.children - other.children)
        other.wait_for(other.children - one.children)
    both = one.children & other.children
    common = {page for page in both if page in changed}
    return Rows(
        one.bearing((one.children - other.children) | one.alive | common),
        other.bearing((other.children - one.children) | other.alive | common),
    )
