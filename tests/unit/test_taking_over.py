"""Which chunks of the next restore point are read, and which the store copies unread."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import ObjectInfo
from sidecar.repository.format.index import CHUNK_SIZE, Index
from sidecar.repository.format.tail import Contents
from sidecar.repository.reuse import CopiedChunks, Parent, PartLimits
from sidecar.repository.taking_over import must_read, take_over

LIMITS = PartLimits(minimum_part=50, copy_limit=200)


def digest(letter: int) -> bytes:
    return bytes([letter]) * 32


def parent_of(letters: list[int], frame: int = 20) -> Parent:
    index = Index("db", "", 4096, len(letters) * CHUNK_SIZE, b"".join(map(digest, letters)))
    offsets = tuple(range(0, frame * (len(letters) + 1), frame))
    info = ObjectInfo("key", offsets[-1] + 9, '"etag"', datetime(2026, 11, 20, tzinfo=UTC))
    return Parent(info, Contents(index, offsets, info.size))


@pytest.mark.parametrize(
    ("before", "now", "written", "read"),
    [
        (50, 50, [], [0, 4]),
        (50, 50, [2], [0, 2, 4]),
        (47, 50, [], [0, 4]),
        (47, 95, [], [0, 4, 5, 6, 7, 8, 9]),
        (95, 50, [], [0, 4]),
        (50, 43, [], [0, 4]),
        (8, 8, [], [0]),
    ],
)
def test_what_may_differ_is_read(before: int, now: int, written: list[int], read: list[int]) -> None:
    """Written parts, the first and the last one, and those that end elsewhere. A part has 10 bytes here."""
    assert must_read(before, now, written.__contains__, 10) == read


def test_a_small_restore_point_is_read_whole() -> None:
    assert take_over(parent_of([1, 2]), 2 * CHUNK_SIZE, 4096, lambda _: False, LIMITS) is None


def test_with_another_page_size_everything_is_read() -> None:
    assert take_over(parent_of([1] * 20), 20 * CHUNK_SIZE, 8192, lambda _: False, LIMITS) is None


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.sets(st.integers(0, 70)),
    st.integers(1, 70),
    st.integers(1, 60),
    st.sets(st.integers(0, 70)),
)
def test_what_is_not_read_is_copied_from_the_same_place(
    old: list[int], written: set[int], count: int, frame: int, same: set[int]
) -> None:
    """Also when some of what was read turns out to be unchanged."""
    parent = parent_of(old, frame)
    plan = take_over(parent, count * CHUNK_SIZE, 4096, written.__contains__, LIMITS)
    if plan is None:
        return
    assert set(must_read(len(old) * CHUNK_SIZE, count * CHUNK_SIZE, written.__contains__)) <= plan.read
    assert set(plan.untouched) | plan.read == set(range(count))
    read = {each: digest(old[each] if each in same and each < len(old) else 100 + each) for each in plan.read}
    now = Index("db", "", 4096, count * CHUNK_SIZE, plan.digests(read))
    runs = plan.runs_of(now, LIMITS)
    assert [each for run in runs for each in run.chunks] == list(range(count))
    for run in runs:
        if isinstance(run, CopiedChunks):
            source = range(run.first_in_parent, run.first_in_parent + len(run.chunks))
            assert [now.digest(each) for each in run.chunks] == [digest(old[each]) for each in source]
        else:
            assert set(run.chunks) <= plan.read
