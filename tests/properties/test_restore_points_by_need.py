"""Which restore points `restore_points=auto` leaves out, for any size, traffic and interval."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup.need import SHARE, Added, is_worthwhile
from sidecar.policies import LONGEST_WAIT as LONGEST
from sidecar.policies import SMALL_OBJECT as SMALL

sizes = st.integers(0, 10 * SMALL)
additions = st.builds(Added, sizes, st.integers(0, 20 * SMALL), st.floats(0, 3 * LONGEST))
intervals = st.floats(1, 2 * LONGEST)


@given(additions, intervals, st.integers(0, SMALL), st.floats(0, LONGEST))
def test_what_is_worthwhile_stays_so_as_more_is_added(added: Added, interval: float, more: int, longer: float) -> None:
    later = Added(added.size, added.streamed + more, added.age + longer)
    assert is_worthwhile(later, interval) or not is_worthwhile(added, interval)


@given(additions, intervals)
def test_what_waits_is_large_new_and_adds_little(added: Added, interval: float) -> None:
    if not is_worthwhile(added, interval):
        assert added.size > SMALL
        assert added.streamed * SHARE < added.size
        assert added.age + interval <= LONGEST


@given(sizes, st.floats(10, LONGEST), st.lists(st.integers(0, SMALL), min_size=1, max_size=80))
def test_every_hour_has_a_restore_point_and_no_restore_reads_much_more(
    size: int, interval: float, traffic: list[int]
) -> None:
    """Cycles at the interval, each after some traffic. An hour without one would leave a gap in the tier `hourly`."""
    age = streamed = 0.0
    for each in traffic:
        age, streamed = age + interval, streamed + each
        before = streamed - each
        if is_worthwhile(Added(size, int(streamed), age), interval):
            assert age <= LONGEST
            assert before * SHARE < size or before == 0 or size <= SMALL
            age = streamed = 0.0
    assert age <= LONGEST
