"""From captured commits to segments: time never goes back, the chain has no gap, large ones are folded."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.backup.segmenter import FOLDED_BEYOND, Outgoing, Segmenter, StoreTime, StreamIdentity
from sidecar.database.wal import Batch, Captured, StreamCut
from sidecar.model import LogPosition, ObjectInfo, Position
from sidecar.repository.format.increment import decode, first_prev
from sidecar.repository.keys import segment_of
from tests.harness.segments import commits_in, commits_of

STORE = datetime(2026, 11, 20, 14, 55, 3, tzinfo=UTC)
MACHINE = STORE + timedelta(hours=1)
NAME = "20261120T145503.123Z-0000000007-web"
END = LogPosition(b"12345678", 9, (1, 2))


def identity() -> StreamIdentity:
    return StreamIdentity("app.db", NAME, "web", 7, "3.53.4", Position("before", 3))


def captured(number: int, at: float, images: dict[int, bytes], pages: int = 3) -> Captured:
    return Captured(number, at, pages, images, number, at)


def batch(*commits: Captured) -> Batch:
    return Batch(commits, END)


def page(content: bytes) -> bytes:
    return content * 512


def times(segmenter: Segmenter, *commits: Captured) -> Sequence[int]:
    segmenter.add(batch(*commits))
    outgoing = segmenter.next()
    assert outgoing
    return [commit.time for commit in commits_in(outgoing.data)]


def test_a_segment_says_what_it_holds_and_continues_the_one_before() -> None:
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 100.0))
    assert segmenter.next() is None
    segmenter.add(batch(captured(1, 100.5, {1: page(b"a")}), captured(2, 101.0, {2: page(b"b")})))
    assert segmenter.oldest == 100.5
    first = segmenter.next()
    assert first
    assert not segmenter.oldest
    segmenter.add(batch(captured(3, 102.0, {1: page(b"c")})))
    second = segmenter.next()
    assert second
    one, two = decode(first.data, first.key), decode(second.data, second.key)
    assert (one.header.prev, two.header.prev) == (first_prev(NAME), one.digest)
    assert (one.header.first, one.header.last, two.header.first, two.header.last) == (1, 2, 3, 3)
    assert (one.header.after, one.header.log, one.header.page_size) == (Position("before", 3), END, 512)
    assert [commit.time for commit in commits_of(one)] == [
        round(STORE.timestamp() * 1e6) + each for each in (500_000, 1_000_000)
    ]
    known = segment_of(ObjectInfo(second.key, 1, "", STORE))
    assert known
    assert (known.first, known.last, known.time) == (3, 3, second.time // 1000)


def test_a_segment_with_much_in_it_is_folded() -> None:
    """Commits beyond a megabyte become one, with the last image of each page."""
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 0.0))
    many = [captured(n + 1, float(n), {n % 7 + 1: bytes([n % 251]) * 65536}) for n in range(FOLDED_BEYOND // 65536 + 1)]
    segmenter.add(batch(*many))
    outgoing = segmenter.next()
    assert outgoing
    (commit,) = commits_in(outgoing.data)
    assert (commit.folded, commit.number, len(commit.images)) == (True, len(many), 7)
    assert commit.images[many[-1].number % 7 or 7] is not None
    assert bytes(commit.images[(len(many) - 1) % 7 + 1]) == bytes(many[-1].images[(len(many) - 1) % 7 + 1])


def test_what_the_follower_folded_stays_folded() -> None:
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 0.0))
    segmenter.add(batch(Captured(5, 2.0, 3, {1: page(b"a")}, 1, 1.0)))
    outgoing = segmenter.next()
    assert outgoing
    segment = decode(outgoing.data, outgoing.key)
    assert (segment.header.first, segment.header.last, segment.records[0].folded) == (1, 5, True)


def test_time_is_corrected_by_replies_and_never_goes_back() -> None:
    """A machine that slept is put right by the next reply; a store whose clock is set back does not turn time around.

    A reply is truncated to the second: a later one can prove that the store's clock is ahead of the estimate, never that it is
    behind it.
    """
    time = StoreTime(STORE, MACHINE, 0.0)
    segmenter = Segmenter(identity(), time)
    start = round(STORE.timestamp() * 1e6)
    assert times(segmenter, captured(1, 1.0, {1: page(b"a")})) == [start + 1_000_000]
    time.correct(STORE + timedelta(seconds=2), MACHINE, 1.1)
    assert times(segmenter, captured(2, 2.0, {1: page(b"a")})) == [start + 2_900_000]
    time.correct(STORE + timedelta(seconds=2), MACHINE, 2.0)
    assert times(segmenter, captured(3, 2.1, {1: page(b"a")})) == [start + 3_000_000]
    time.correct(STORE + timedelta(minutes=10), MACHINE, 3.0)
    assert times(segmenter, captured(4, 4.0, {1: page(b"a")})) == [start + 601_000_000]
    time.correct(STORE, MACHINE, 5.0)
    assert times(segmenter, captured(5, 6.0, {1: page(b"a")})) == [start + 601_000_000]


def test_a_gap_between_captured_commits_is_a_cut() -> None:
    """Whatever was lost on the way: what follows must not be published as if it continued."""
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 0.0))
    segmenter.add(batch(captured(1, 1.0, {1: page(b"a")})))
    with pytest.raises(StreamCut, match="commit 3 was captured after commit 1"):
        segmenter.add(batch(captured(3, 2.0, {1: page(b"a")})))


def test_a_giant_transaction_goes_over_several_segments() -> None:
    """Each has a key of its own, in order, and none but the last is whole: nothing of it is protected before."""
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 0.0), part=4 * 512)
    segmenter.add(batch(captured(1, 1.0, {1: page(b"a")}), captured(2, 2.0, {n: page(b"b") for n in range(1, 11)})))
    parts = drained(segmenter)
    segments = [decode(each.data, each.key) for each in parts]
    assert [(each.header.first, each.header.last) for each in segments] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert [each.whole for each in parts] == [True, False, False, True]
    assert [each.header.log for each in segments] == [None, None, None, END]
    assert [each.key for each in parts] == sorted({each.key for each in parts})
    digests = [first_prev(NAME), *(each.digest for each in segments)]
    assert [each.header.prev for each in segments] == digests[:-1]
    pages = {
        number for each in segments for commit in commits_of(each) if commit.number == 2 for number in commit.images
    }
    assert pages == set(range(1, 11))


def test_what_waits_is_as_old_as_the_first_part_until_the_last_one_is_taken() -> None:
    segmenter = Segmenter(identity(), StoreTime(STORE, MACHINE, 0.0), part=512)
    segmenter.add(batch(captured(1, 1.0, {1: page(b"a"), 2: page(b"b")})))
    assert segmenter.next()
    segmenter.add(batch(captured(2, 5.0, {1: page(b"c")})))
    assert segmenter.oldest == 1.0
    assert segmenter.next()
    assert segmenter.oldest == 5.0


def drained(segmenter: Segmenter) -> list[Outgoing]:
    found: list[Outgoing] = []
    while outgoing := segmenter.next():
        found.append(outgoing)
    return found
