"""Commits made fewer or smaller before they are published: many folded into one, many or giant ones split. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from sidecar.model import Bytes, Commit

PART = 8 << 20  # bytes of page images: a restore fetches several segments at once, and one may be raw beside its pages


def fold(commits: Sequence[Commit]) -> Commit:
    """One commit with the effect of all: the last image of each page, none beyond the final size.

    SQLite writes every page by which a database grows, so a page beyond a size in between has a newer image.
    Raises ValueError where there is no commit.
    """
    if not commits:
        raise ValueError("there is no commit to fold")
    last = commits[-1]
    images: dict[int, Bytes] = {}
    for commit in commits:
        images.update(commit.images)
    several = any(commit.folded for commit in commits) or commits[0].number != last.number
    kept = {page: images[page] for page in sorted(images) if page <= last.pages}
    return replace(last, images=kept, folded=several)


def bytes_of(commits: Sequence[Commit]) -> int:
    """The bytes of all page images."""
    return sum(len(image) for commit in commits for image in commit.images.values())


@dataclass(frozen=True, slots=True)
class Portion:
    """What goes into one segment: the commits `first` to `last`. `time` is for its key, in milliseconds.

    The parts of a transaction that goes over several segments have the same numbers: `time` counts down to the
    commit's own time at the last part, so that their keys differ and sort in order.
    """

    commits: tuple[Commit, ...]
    first: int
    last: int
    time: int


def split(commits: Sequence[Commit], first: int, limit: int = PART) -> list[Portion]:
    """Commits, of which the first is or begins with number `first`, in portions of at most `limit` bytes of images.

    A transaction that does not fit into one portion by itself goes on in the next ones.
    """
    groups: list[list[Commit]] = []
    for commit in commits:
        pieces = list(_pieces(commit, limit))
        if groups and not groups[-1][-1].continued and bytes_of([*groups[-1], pieces[0]]) <= limit:
            groups[-1].append(pieces.pop(0))
        groups += [[piece] for piece in pieces]
    return _portions(groups, first)


def _pieces(commit: Commit, limit: int) -> Iterator[Commit]:
    """The commit, in parts of at most `limit` bytes, or of one page."""
    pages = sorted(commit.images)
    size = len(commit.images[pages[0]]) if pages else limit
    each = max(1, limit // size)
    cuts = list(range(0, max(1, len(pages)), each))
    for start in cuts:
        images = {page: commit.images[page] for page in pages[start : start + each]}
        yield replace(commit, images=images, continued=commit.continued or start != cuts[-1])


def _portions(groups: list[list[Commit]], first: int) -> list[Portion]:
    firsts = accumulate(groups[:-1], lambda _, group: group[-1].number + (not group[-1].continued), initial=first)
    portions: list[Portion] = []
    later = 0
    for group, begin in reversed(list(zip(groups, firsts, strict=bool(groups)))):
        later = later + 1 if group[-1].continued else 0
        portions.append(Portion(tuple(group), begin, group[-1].number, group[-1].time // 1000 - later))
    return portions[::-1]
