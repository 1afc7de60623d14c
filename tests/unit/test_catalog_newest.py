"""Finding restore points: the newest in few requests, whatever else is in the store."""

from datetime import timedelta

import pytest

from sidecar.errors import ConfigurationError, NothingToRestore, UnsupportedLease, UnsupportedRestorePoint
from sidecar.lease.record import KEY as LEASE_KEY
from sidecar.lease.record import Record, StreamRecord
from sidecar.model import Position, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import StreamName, diverged_key_of, key_of, segment_key_of
from tests.fakes import START, MemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def ago(**duration: float) -> Timestamp:
    return Timestamp.of(START - timedelta(**duration))


def add(store: MemoryStore, *times: Timestamp, database: str = "app.db") -> None:
    for time in times:
        store.add(key_of(database, time))


async def newest(store: MemoryStore, database: str = "app.db") -> Timestamp | None:
    point = await Catalog(store).newest(database)
    return point.timestamp if point else None


@pytest.mark.parametrize(
    ("age", "lists"),
    [
        (timedelta(0), 1),
        (timedelta(hours=23), 1),
        (timedelta(days=2), 2),
        (timedelta(days=15), 2),
        (timedelta(days=17), 3),
        (timedelta(days=255), 3),
        (timedelta(days=257), 4),
        (timedelta(days=4000), 4),
        (timedelta(days=-400), 1),
    ],
)
async def test_the_newest_is_found_in_few_requests_however_old(store: MemoryStore, age: timedelta, lists: int) -> None:
    """Also for an app that slept for a year. A key from the future (a wrong clock) counts as the newest too."""
    time = Timestamp.of(START - age)
    older = [Timestamp.of(time.instant - timedelta(days=500 + number)) for number in range(20)]
    add(store, time, *older)
    assert await newest(store) == time
    assert (store.count("list"), store.count()) == (lists, lists + 2)  # the clock, and the lease


async def test_an_empty_store_has_no_newest(store: MemoryStore) -> None:
    assert await newest(store) is None
    assert store.count("list") == 4


async def test_the_history_is_not_walked(store: MemoryStore) -> None:
    """Ten thousand restore points older than a day cost nothing."""
    add(store, *(ago(days=2, minutes=5 * number) for number in range(10_000)), ago(minutes=1))
    assert await newest(store) == ago(minutes=1)
    assert store.count() == 3


async def test_a_day_with_more_points_than_fit_in_a_page_is_read_to_its_end(store: MemoryStore) -> None:
    add(store, *(ago(seconds=30 * number) for number in range(2500)))
    assert await newest(store) == ago()
    assert store.count("list") == 3


async def test_other_databases_and_diverged_states_do_not_count(store: MemoryStore) -> None:
    add(store, ago(days=3))
    add(store, ago(), database="app.db2")
    add(store, ago(), database="app.d")
    add(store, ago(), database="app.db-copy")
    store.add(diverged_key_of("app.db", ago(), "148e2"))
    assert await newest(store) == ago(days=3)


async def test_foreign_objects_do_not_hide_the_newest(store: MemoryStore) -> None:
    add(store, ago(hours=1))
    for name in ("zzz", "README", f"{ago()}.sqlite3.zst.part", f"sub/{ago()}.sqlite3.zst", f"{ago()}-.sqlite3.zst"):
        store.add(f"app.db/{name}")
    assert await newest(store) == ago(hours=1)


async def test_foreign_objects_alone_are_no_restore_points(store: MemoryStore) -> None:
    store.add("app.db/zzz")
    assert await newest(store) is None


async def test_points_are_listed_oldest_first(store: MemoryStore) -> None:
    times = [ago(days=number) for number in (400, 20, 3, 1, 0)]
    add(store, *reversed(times))
    assert [point.timestamp async for point in Catalog(store).points("app.db")] == times


async def test_diverged_points_are_listed_apart(store: MemoryStore) -> None:
    add(store, ago())
    store.add(diverged_key_of("app.db", ago(days=1), "148e2"))
    points = [point async for point in Catalog(store).points("app.db", diverged=True)]
    assert [(point.timestamp, point.diverged_holder) for point in points] == [(ago(days=1), "148e2")]


@pytest.mark.parametrize(("at", "expected"), [(ago(days=1), ago(days=1)), (ago(hours=30), ago(days=2)), (ago(), ago())])
async def test_a_time_finds_the_newest_restore_point_that_is_not_newer(
    store: MemoryStore, at: Timestamp, expected: Timestamp
) -> None:
    add(store, ago(days=2), ago(days=1), ago())
    assert (await Catalog(store).find("app.db", at)).timestamp == expected


async def test_before_the_first_restore_point_there_is_nothing(store: MemoryStore) -> None:
    add(store, ago(days=1))
    with pytest.raises(NothingToRestore, match=r"app\.db has no restore point at or before"):
        await Catalog(store).find("app.db", ago(days=2))


async def test_a_stamp_is_the_stores_time_not_this_machines(store: MemoryStore) -> None:
    assert await Catalog(store).stamp("app.db", START, None) == Timestamp.of(START)


@pytest.mark.parametrize("known", [True, False])
async def test_a_stamp_is_above_every_point_already_there(store: MemoryStore, known: bool) -> None:
    """A clock that went back, or two publishes in one tick, must not overtake: the newest key is the newest state."""
    ahead = ago(hours=-1)
    add(store, ago(days=1), ahead)
    assert await Catalog(store).stamp("app.db", START, ahead if known else None) == ahead.next()
    assert (store.count("list") == 0) == known


def named(store: MemoryStore, key: str, *, settled: int = 1, epoch: int = 1) -> None:
    """The lease object names a key, and the epoch that started from the restore points before it."""
    store.add(LEASE_KEY, Record(epoch, "m", "b", 60.0, latest={"app.db": key}, settled={"app.db": settled}).to_bytes())


async def test_with_a_lease_a_hundred_thousand_keys_cost_three_requests(store: MemoryStore) -> None:
    """GET of the lease, LIST after the key that it names, HEAD of the newest, however long and old the history is."""
    times = [ago(days=1000, seconds=30 * number) for number in range(100_000)]
    add(store, *times)
    named(store, key_of("app.db", times[0]))
    for newer in (0, 1, 5):
        for number in range(newer):
            store.add(key_of("app.db", ago(days=100 - number)), metadata={"epoch": "1"})
        store.requests.clear()
        assert await newest(store) == (ago(days=100 - newer + 1) if newer else times[0])
        asked = [operation for operation, _ in store.requests if operation != "now"]
        assert asked == ["get", "list", "head"]


async def test_what_a_fenced_machine_completes_late_is_left_out(store: MemoryStore) -> None:
    """Its epoch is older than that of the holder that started from the named one."""
    add(store, ago(days=1))
    named(store, key_of("app.db", ago(days=1)), settled=5, epoch=5)
    store.add(key_of("app.db", ago(hours=1)), metadata={"epoch": "4"})
    assert await newest(store) == ago(days=1)
    store.add(key_of("app.db", ago(hours=2)), metadata={"epoch": "5"})
    assert await newest(store) == ago(hours=2)


async def test_a_newest_that_was_deleted_is_not_silently_replaced(store: MemoryStore) -> None:
    """It is returned without a size: readers find it damaged and report that before an older one is taken."""
    add(store, ago(days=1))
    named(store, key_of("app.db", ago(hours=1)))
    point = await Catalog(store).newest("app.db")
    assert point
    assert (point.timestamp, point.size) == (ago(hours=1), 0)


async def test_a_damaged_lease_object_is_ignored_when_reading(store: MemoryStore) -> None:
    add(store, ago(days=3))
    store.add(LEASE_KEY, b"{}")
    assert await newest(store) == ago(days=3)


async def test_a_lease_that_names_nothing_of_the_last_thousand_is_not_followed_page_by_page(store: MemoryStore) -> None:
    """As with lease=off after the lease was on: then the newest is found by time."""
    add(store, ago(days=3), *(ago(days=2, seconds=number) for number in range(2500)), ago())
    named(store, key_of("app.db", ago(days=3)))
    assert await newest(store) == ago()
    assert store.count("list") == 2


def add_streams(store: MemoryStore, *epochs: int, database: str = "app.db", segments: int = 1200) -> list[str]:
    """A stream for each epoch, a minute apart, with more segments than a LIST returns."""
    names = [str(StreamName(ago(minutes=60 - epoch), epoch, "web")) for epoch in epochs]
    for name in names:
        for number in range(1, segments + 1):
            store.add(segment_key_of(database, name, number, number, 1_795_000_000_000 + number))
    return names


async def test_segments_are_not_walked_for_anything_about_restore_points(store: MemoryStore) -> None:
    """There may be more than a million of them."""
    add(store, ago(hours=2), ago(hours=1))
    add(store, ago(hours=2), database="zoo.db")
    add_streams(store, 1, 2)
    add_streams(store, 1, database="only.db")
    catalog = Catalog(store)
    assert await newest(store) == ago(hours=1)
    assert await newest(store, "only.db") is None
    assert await newest(store, "stream") is None
    assert len([point async for point in catalog.points("app.db")]) == 2
    assert (await catalog.find("app.db", ago(minutes=1))).timestamp == ago(hours=1)
    store.requests.clear()
    assert await catalog.names(5) == ("app.db", "zoo.db")
    assert store.requests == [("list", "")] * 3, "one for each folder"


async def test_the_highest_epoch_is_that_of_a_stream_where_no_restore_point_has_a_higher_one(
    store: MemoryStore,
) -> None:
    """A new lease object must not have the epoch of a machine that only streamed."""
    store.add(key_of("app.db", ago(hours=2)), metadata={"epoch": "2"})
    assert await Catalog(store).highest_epoch(["app.db"]) == 2
    add_streams(store, 4, 5, segments=3)
    add_streams(store, 3, database="b.db", segments=3)
    assert await Catalog(store).highest_epoch(["app.db", "b.db"]) == 5
    assert await Catalog(store).highest_epoch(["b.db", "c.db"]) == 3


@pytest.mark.parametrize("suffix", [".sqlite3.zst2", ".sqlite3.zst.age", ".sqlite3.br", ".v2"])
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("lease", [False, True])
async def test_a_restore_point_of_the_future_is_never_left_out(
    store: MemoryStore, suffix: str, others: int, lease: bool
) -> None:
    """An older one would take its place, or the app would start empty: with a lease and without."""
    for each in range(others):
        add(store, ago(hours=2 + each))
    if lease:
        latest = {"app.db": key_of("app.db", ago(hours=2))} if others else {}
        store.add(LEASE_KEY, Record(1, "web", "boot", 60.0, latest=latest).to_bytes())
    key = f"app.db/{ago(hours=1)}{suffix}"
    store.add(key)
    with pytest.raises(UnsupportedRestorePoint, match="not a restore point of this version") as refused:
        await newest(store)
    assert key in refused.value.message
    assert refused.value.exit_code == 78
    add(store, ago(minutes=1))
    assert await newest(store) == ago(minutes=1), "somebody went on with this version"


async def test_a_lease_of_the_future_is_never_taken_for_none(store: MemoryStore) -> None:
    """It may name what this version cannot see, and an app would be started without it."""
    add(store, ago(hours=1))
    store.add(LEASE_KEY, b'{"format": 3, "holder": "newer"}')
    with pytest.raises(UnsupportedLease):
        await newest(store)
    store.add(LEASE_KEY, b"damaged")
    assert await newest(store) == ago(hours=1)


@pytest.mark.parametrize(
    "key", ["app.db/20271120T145503.123Z.sqlite4.zst", "x", "", "other.db/20261120T145503.123Z.sqlite3.zst"]
)
async def test_a_latest_that_cannot_be_read_is_never_taken_for_none(store: MemoryStore, key: str) -> None:
    """Not even in a store that has nothing else: the app must not start with an empty database."""
    store.add(LEASE_KEY, Record(3, "newer", "boot", 60.0, latest={"app.db": key}).to_bytes())
    with pytest.raises(ConfigurationError, match="newer version") as told:
        await newest(store)
    assert told.value.exit_code == 78
    assert await newest(store, "another.db") is None


async def test_a_restore_point_beyond_the_end_of_its_stream_is_left_out(store: MemoryStore) -> None:
    """A machine that was fenced published it, whatever epoch it names."""
    named, stream = ago(hours=3), "20261120T145503.123Z-0000000003-web"
    add(store, named)
    for hours, commit in ((2, 41), (1, 42)):
        metadata = {"epoch": "3", "stream": stream, "commit": str(commit)}
        store.add(key_of("app.db", ago(hours=hours)), metadata=metadata)
    streams = {"app.db": StreamRecord(None, Position(stream, 41))}
    record = Record(3, "web", "boot", 60.0, latest={"app.db": key_of("app.db", named)}, streams=streams)
    store.add(LEASE_KEY, record.to_bytes())
    assert await newest(store) == ago(hours=2)
