"""Which parts of a database commits have written."""

from sidecar.database.wal.changed import PART, Changed
from sidecar.repository.format.index import CHUNK_SIZE

PAGE = 4096
PAGES = PART // PAGE
BEYOND = range(5, 10)  # the database ends before it


def written(changed: Changed, after: int) -> list[int]:
    return [part for part in range(10) if changed.wrote(part, after)]


def test_parts_are_the_chunks_of_restore_points() -> None:
    assert PART == CHUNK_SIZE


def test_what_each_commit_wrote() -> None:
    changed = Changed()
    changed.add(1, 5 * PAGES, [1, PAGES, 3 * PAGES + 1], PAGE)
    changed.add(2, 5 * PAGES, [PAGES + 1], PAGE)
    assert [written(changed, after) for after in (0, 1, 2)] == [[0, 1, 3, *BEYOND], [1], []]


def test_the_first_commit_may_have_cut_something_off() -> None:
    """The size before it is not known."""
    changed = Changed()
    changed.add(1, 2 * PAGES, [1], PAGE)
    changed.add(2, 10 * PAGES, [1], PAGE)
    assert written(changed, 0) == [0, *range(2, 10)]


def test_what_was_cut_off_counts_as_written() -> None:
    """It may be there again later, as it was or as zeros, without any commit that wrote it."""
    changed = Changed()
    changed.add(1, 4 * PAGES + 1, [1], PAGE)
    changed.add(2, PAGES + 7, [1], PAGE)
    changed.add(3, 4 * PAGES, [1], PAGE)
    assert written(changed, 1) == [0, 1, 2, 3, 4]
    assert written(changed, 2) == [0]


def test_commits_whose_sizes_are_not_known_may_have_written_anything() -> None:
    changed = Changed()
    changed.add(9, PAGES, [1], PAGE)
    changed.anything(9)
    assert written(changed, 8) == list(range(10))
    assert written(changed, 9) == []
