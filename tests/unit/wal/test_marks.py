"""Which commit a snapshot shows."""

from sidecar.database.wal import marks
from sidecar.database.wal.marks import Marks
from tests.unit.wal.logs import SALTS, index

OTHER = b"87654321"


def test_commits_are_found_by_their_last_frame() -> None:
    known = Marks(index(4), 0)
    known.add(SALTS, [6, 9], 0)
    known.add(SALTS, [10], 2)
    assert [known.find(index(frame)) for frame in (4, 6, 9, 10)] == [0, 1, 2, 3]
    assert [known.find(index(frame)) for frame in (0, 5, 8, 11)] == [None] * 4


def test_an_empty_log_shows_the_last_commit_of_the_one_before() -> None:
    known = Marks(index(4), 7)
    known.add(SALTS, [6], 7)
    known.add(OTHER, [], 8)
    assert known.find(index(0, salts=OTHER)) == 8
    known.add(OTHER, [2, 3], 8)
    assert [known.find(index(frame, salts=OTHER)) for frame in (0, 2, 3)] == [8, 9, 10]
    assert known.find(index(6)) == 8


def test_the_oldest_are_forgotten() -> None:
    known = Marks(index(0), 0)
    for number in range(0, 3 * marks.KEPT, 1000):
        known.add(SALTS, range(number + 1, number + 1001), number)
    assert known.find(index(3 * marks.KEPT)) == 3 * marks.KEPT
    assert known.find(index(2 * marks.KEPT + marks.KEPT // 2)) == 2 * marks.KEPT + marks.KEPT // 2
    assert known.find(index(1)) is None
    known.add(OTHER, range(1, marks.KEPT), 3 * marks.KEPT)
    assert known.find(index(marks.KEPT - 1, salts=OTHER)) == 4 * marks.KEPT - 1
