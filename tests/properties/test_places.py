"""The layout by prefix: every key has one meaning, and several listings read as one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import ObjectInfo, Page, Timestamp
from sidecar.repository.keys import RESERVED_NAMES, folder_of, is_point_of_the_future, key_of
from sidecar.repository.places import (
    Place,
    Slot,
    database_of_folder,
    database_of_slot,
    main_point_of,
    merged,
    placed,
    places_after,
    places_for,
    slot_for,
    slots_of,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
TIMES = st.integers(0, 40 * 24 * 60).map(lambda minutes: Timestamp.of(NOW - timedelta(minutes=minutes)))
NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name not in RESERVED_NAMES and name.strip("."))


def info(key: str) -> ObjectInfo:
    return ObjectInfo(key, 1, '"1"', NOW)


@given(name=NAMES, time=TIMES, place=st.sampled_from(Place))
def test_a_key_says_where_it_is(name: str, time: Timestamp, place: Place) -> None:
    key = key_of(name, time)
    point = main_point_of(key)
    assert point is not None
    assert (point.database, point.timestamp) == (name, time)
    assert placed(f"{place}{key}") == ((place, point) if place else None)
    assert database_of_folder(folder_of(name)) == name
    assert database_of_slot(f"{place}{key}") is None


@given(name=NAMES, time=TIMES)
def test_a_slot_is_no_restore_point_and_no_older_version_overlooks_it(name: str, time: Timestamp) -> None:
    for slot in slots_of(name):
        assert database_of_slot(slot) == name
        assert main_point_of(slot) is None
        assert is_point_of_the_future(slot, name)
        assert slot > key_of(name, time)


@given(
    places=st.dictionaries(st.sampled_from(Place), st.sets(TIMES)),
    slots=st.sets(TIMES, max_size=2),
    limit=st.integers(1, 7),
)
def test_listings_read_as_one(places: dict[Place, set[Timestamp]], slots: set[Timestamp], limit: int) -> None:
    """Page by page: each restore point once and in order, whatever the size of a page."""
    expected = sorted({key_of("a", time) for times in [*places.values(), slots] for time in times})
    found: list[str] = []
    after, more = "", True
    while more:
        pages = []
        for place in Place:
            keys = sorted(f"{place}{key_of('a', time)}" for time in places.get(place, set()))
            keys = [key for key in [*keys, *(slots_of("a") if not place else ())] if key > f"{place}{after}"]
            pages.append((place, Page(tuple(map(info, keys[:limit])), len(keys) > limit)))
        page = merged(pages, [info(key_of("a", time)) for time in slots if key_of("a", time) > after], limit)
        found += [each.key for each in page.objects]
        assert len(page.objects) <= limit
        after, more = found[-1] if found else "", page.more
    assert found == expected


CONTENTS = st.none() | st.tuples(TIMES, st.integers(0, 3))


@given(point=TIMES, epoch=st.integers(0, 3), contents=st.tuples(CONTENTS, CONTENTS))
def test_the_latest_slot_is_never_overwritten(
    point: Timestamp, epoch: int, contents: tuple[tuple[Timestamp, int] | None, ...]
) -> None:
    """Terms count before times, where there are terms; and a restore point that no slot has always gets one."""
    slots = [
        Slot(key, replace(info(key), metadata={"epoch": str(each[1])}), each[0]) if each else Slot(key)
        for key, each in zip(slots_of("a"), contents, strict=True)
    ]
    chosen = slot_for(point, epoch, slots)
    if chosen is None:
        assert any(slot.point == point for slot in slots)
        return
    assert all(slot.point != point for slot in slots)
    other = next(slot for slot in slots if slot is not chosen)
    if chosen.point:
        assert other.point
        older, newer = ((each.epoch if epoch else 0, each.point.text) for each in (chosen, other) if each.point)
        assert older <= newer


@given(time=TIMES, after=TIMES)
def test_no_place_is_left_out(time: Timestamp, after: Timestamp) -> None:
    """A restore point lies in the first place for less than a day at least; wherever it can be by then is looked at."""
    now = NOW + timedelta(minutes=1)
    point = main_point_of(key_of("a", time))
    assert point is not None
    for placing in (True, False):
        assert set(places_for(point, now, placing=placing)) == set(Place)
    looked_at = places_after(key_of("a", after), now)
    assert set(looked_at) == set(Place) or (
        {Place.RECENT, Place.MAIN} <= set(looked_at) and now - after.instant < timedelta(days=1)
    )
