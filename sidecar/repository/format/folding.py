"""Folds many commits into one, and splits commits into portions of the size of a segment. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from sidecar.model import Bytes, Commit

PART = 8 << 20  # bytes of page images: a restore holds several segments at once, each possibly raw and decoded


def fold(commits: Sequence[Commit]) -> Commit:
    """One commit with the effect of all: the last image of each page, without pages beyond the final size.

    If the database shrank in between and grew again, no older image survives: SQLite writes every page by which a
    database grows. Raises ValueError if there is no commit.
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
    """The size of all page images, in bytes."""
    return sum(len(image) for commit in commits for image in commit.images.values())


@dataclass(frozen=True, slots=True)
class Portion:
    """The content of one segment: the commits `first` to `last`. `time` is for its key, in milliseconds.

    The parts of a transaction that spans several segments have the same number. Their `time` counts up to the commit's
    own time at the last part, so that the keys differ and sort in order.
    """

    commits: tuple[Commit, ...]
    first: int
    last: int
    time: int


def split(commits: Sequence[Commit], first: int, limit: int = PART) -> list[Portion]:
    """Split commits into portions of at most `limit` bytes of images. The first one stands for commits from `first` on.

    A transaction that does not fit into one portion continues in the next ones.
    """
    groups: list[list[Commit]] = []
    for commit in commits:
        pieces = list(_pieces(commit, limit))
        if groups and not groups[-1][-1].continued and bytes_of([*groups[-1], pieces[0]]) <= limit:
            groups[-1].append(pieces.pop(0))
        groups += [[piece] for piece in pieces]
    return _portions(groups, first)


def _pieces(commit: Commit, limit: int) -> Iterator[Commit]:
    """The commit in parts of at most `limit` bytes, or of one page if that is larger."""
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
