"""What waits to be stored, in bounded memory."""

from sidecar.database.wal import Backlog, Captured
from sidecar.model import LogPosition


def commit(number: int, page: int, size: int = 100, pages: int = 10) -> Captured:
    return Captured(number, float(number), pages, {page: bytes([number]) * size}, number, float(number))


def at(frame: int) -> LogPosition:
    return LogPosition(b"12345678", frame)


def test_what_was_added_is_taken_once_with_its_end() -> None:
    backlog = Backlog(1000)
    backlog.add([commit(1, 1)], at(1))
    backlog.add([commit(2, 1)], at(2), unsummed=True)
    batch = backlog.take()
    assert [each.number for each in batch.commits] == [1, 2]
    assert (batch.end, batch.folded, batch.unsummed) == (at(2), False, True)
    again = backlog.take()
    assert (list(again.commits), again.end, again.unsummed) == ([], at(2), False)


def test_beyond_the_bound_the_last_image_of_each_page_is_kept() -> None:
    backlog = Backlog(250)
    for number in range(1, 6):
        backlog.add([commit(number, number % 2, pages=number)], at(number))
    assert backlog.size <= 300
    assert backlog.oldest == 1.0
    folded, *rest = backlog.take().commits
    assert (folded.first, folded.number, folded.pages, folded.since) == (1, 3, 3, 1.0) or folded.folded
    last = {page: image for each in (folded, *rest) for page, image in each.images.items()}
    assert last == {0: b"\4" * 100, 1: b"\5" * 100}
