"""Segments in a store: published exactly once, read only if they are what their key says, and found in few requests."""

from dataclasses import replace

import pytest
import zstandard

from sidecar.errors import DamagedSegment, OutcomeUnknown, UnsupportedSegment
from sidecar.model import AtRestorePoint, ObjectInfo, Position, Timestamp
from sidecar.repository.history import SegmentInfo
from sidecar.repository.increments import Increments
from sidecar.repository.keys import key_of, segment_key_of, segment_of, stream_folder_of
from tests.fakes import MemoryStore
from tests.harness.segments import commits_of
from tests.harness.streams import Made, StreamMaker, fill, stream_name

pytestmark = pytest.mark.anyio

POINT = Timestamp("20261120T145503.123Z")
KEY = key_of("app.db", POINT)


def maker(minutes: int = 1, after: Position | AtRestorePoint | None = None, **options: str) -> StreamMaker:
    """A stream that began so many minutes after the restore point."""
    return StreamMaker(stream_name(POINT, later=60 * minutes, epoch=minutes), after=after, **options)  # type: ignore[arg-type]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(time=POINT.instant)


@pytest.fixture
def increments(store: MemoryStore) -> Increments:
    return Increments(store)


def info_of(made: Made) -> SegmentInfo:
    found = segment_of(ObjectInfo(made.key, len(made.data), '"e"', POINT.instant))
    assert found
    return found


async def put(store: MemoryStore, *segments: Made) -> None:
    await fill(store, iter(segments), at_once=1)
    store.requests.clear()


def lists(store: MemoryStore) -> int:
    return sum(operation == "list" for operation, _ in store.requests)


async def test_a_segment_is_published_once_with_its_tag(store: MemoryStore, increments: Increments) -> None:
    made = maker().segment()
    published = await increments.publish(made.key, made.data)
    assert store.objects[made.key].data == made.data
    assert store.marks[made.key] == {"sidecar-tier": "stream"}
    again = await increments.publish(made.key, made.data)
    assert again.etag == published.etag, "a segment whose outcome was unknown is found to be there"


async def test_the_closing_segment_has_no_tag(store: MemoryStore, increments: Increments) -> None:
    made = maker().segment()
    await increments.publish(made.key, made.data, expires=False)
    assert store.marks.get(made.key, {}) == {}


@pytest.mark.parametrize("after", [False, True])
async def test_an_unknown_outcome_is_told_and_the_same_call_settles_it(
    store: MemoryStore, increments: Increments, after: bool
) -> None:
    made = maker().segment()
    if after:
        store.lose_reply("put")
    else:
        store.fail("put", OutcomeUnknown("no reply"))
    with pytest.raises(OutcomeUnknown):
        await increments.publish(made.key, made.data)
    await increments.publish(made.key, made.data)
    assert [stored.data for stored in store.objects.values()] == [made.data]


async def test_an_empty_object_of_a_write_that_was_cut_off_is_replaced(
    store: MemoryStore, increments: Increments
) -> None:
    made = maker().segment()
    store.cut_off()
    with pytest.raises(OutcomeUnknown):
        await increments.publish(made.key, made.data)
    assert store.objects[made.key].data == b""
    await increments.publish(made.key, made.data)
    assert store.objects[made.key].data == made.data
    assert store.marks[made.key] == {"sidecar-tier": "stream"}


async def test_a_key_that_another_object_has_is_never_written_over(store: MemoryStore, increments: Increments) -> None:
    made, other = maker().segment(), maker().segment(2)
    await store.put(made.key, other.data)
    with pytest.raises(DamagedSegment, match="is taken by another object"):
        await increments.publish(made.key, made.data)
    assert store.objects[made.key].data == other.data


async def test_a_segment_is_read_back(store: MemoryStore, increments: Increments) -> None:
    made = maker().segment(3)
    await put(store, made)
    assert commits_of(await increments.read(info_of(made))) == made.commits


@pytest.mark.parametrize(
    "other",
    [
        maker(database="other.db").segment(3),
        maker(minutes=2).segment(3),
        maker().segment(2),
    ],
    ids=["database", "stream", "commits"],
)
async def test_a_segment_under_another_ones_key_is_damaged(
    store: MemoryStore, increments: Increments, other: Made
) -> None:
    made = maker().segment(3)
    await put(store, replace(made, data=other.data))
    with pytest.raises(DamagedSegment, match="it holds commits 1 to"):
        await increments.read(info_of(made))


async def test_a_segment_that_is_gone_is_damaged(increments: Increments) -> None:
    with pytest.raises(DamagedSegment, match="it is gone from the store"):
        await increments.read(info_of(maker().segment()))


async def test_a_day_of_segments_is_looked_at_in_one_list(store: MemoryStore, increments: Increments) -> None:
    """Whatever lies before the restore point: 300 seconds are listed, and nothing else is."""
    stream = maker()
    await put(store, *stream.many(4_000), maker(minutes=2, database="other.db").segment())
    path = await increments.look("app.db", KEY, Position(str(stream.name), 3_700), {})
    assert (len(path.segments), path.end, path.stopped) == (300, Position(str(stream.name), 4_000), "")
    assert store.requests == [("list", stream_folder_of("app.db"))]


async def test_the_tail_and_the_streams_that_continue_it(store: MemoryStore, increments: Increments) -> None:
    first = maker()
    at_300 = Position(str(first.name), 300)
    second, third, side = maker(2, at_300), maker(4), maker(3, at_300)
    segments = [*first.many(310), *second.many(20), *side.many(2)]
    third.after = Position(str(second.name), 20)
    await put(store, *segments, *third.many(5))
    path = await increments.look("app.db", KEY, Position(str(first.name), 100), {})
    assert [(leg.stream.name, leg.after, leg.upto) for leg in path.legs] == [
        (str(first.name), 100, 300),
        (str(second.name), 0, 20),
        (str(third.name), 0, 5),
    ]
    assert [(line.stream.name, line.after) for line in path.side_lines] == [
        (str(first.name), 300),
        (str(side.name), 0),
    ]
    assert lists(store) == 1


async def test_a_stream_that_begins_at_a_restore_point(store: MemoryStore, increments: Increments) -> None:
    earlier = StreamMaker(stream_name(POINT, later=-60))
    stream = maker(1, AtRestorePoint(KEY))
    await put(store, *earlier.many(1500), *stream.many(3))
    path = await increments.look("app.db", KEY, None, {})
    assert (path.end, path.side_lines) == (Position(str(stream.name), 3), ())
    assert lists(store) == 1


async def test_streams_beside_the_path_are_not_walked(store: MemoryStore, increments: Increments) -> None:
    """Neither what is beyond a recorded end, nor a long stream that continues something else."""
    first, foreign = maker(), maker(2)
    second = maker(3, Position(str(first.name), 50))
    await put(store, first.segment(), foreign.segment(), second.segment())
    for each, last in ((first, 5_000), (foreign, 5_000), (second, 1_500)):
        for number in range(2, last + 1):
            store.add(segment_key_of("app.db", str(each.name), number, number, 1_795_000_000_000 + number))
    path = await increments.look("app.db", KEY, Position(str(first.name), 10), {str(first.name): 50})
    assert (path.end, path.stopped) == (Position(str(second.name), 1_500), "")
    assert lists(store) == 4, "one for each that is left out, two for the one that has the path"


async def test_until_an_instant_no_more_is_listed_than_needed(store: MemoryStore, increments: Increments) -> None:
    stream = maker()
    await put(store, *stream.many(3_000), *maker(2).many(1))
    until = stream.began + 1_200_000_000
    path = await increments.look("app.db", KEY, Position(str(stream.name), 0), {}, until)
    assert (path.end, path.stopped, len(path.segments)) == (Position(str(stream.name), 1_201), "", 1_201)
    assert lists(store) == 3


async def test_an_empty_store_has_no_history(store: MemoryStore, increments: Increments) -> None:
    path = await increments.look("app.db", KEY, None, {})
    assert (path.legs, path.end, path.stopped) == ((), AtRestorePoint(KEY), "")


async def test_foreign_objects_among_segments_are_left_out(store: MemoryStore, increments: Increments) -> None:
    stream = maker(1, AtRestorePoint(KEY))
    await put(store, *stream.many(2))
    folder = stream_folder_of("app.db", str(stream.name))
    for key in (
        f"{folder}README",
        f"{folder}0/x",
        f"{stream_folder_of('app.db')}x",
        f"{stream_folder_of('app.db')}~/a",
    ):
        await store.put(key, b"x")
    assert len((await increments.look("app.db", KEY, None, {})).segments) == 2
    assert len(await increments.segments("app.db", str(stream.name))) == 2
    assert [each.name for each in await increments.streams("app.db")] == [str(stream.name)]


@pytest.mark.parametrize(
    "key",
    [
        f"{maker().segment().key}.age",
        maker().segment().key.replace("-web/", "-web-2/").replace("-0000000001-", "-v2-"),
    ],
)
async def test_a_key_of_the_future_is_told(store: MemoryStore, increments: Increments, key: str) -> None:
    """Never left out: the newest commits may be there."""
    await store.put(key, b"x")
    for request in (
        increments.look("app.db", KEY, None, {}),
        increments.streams("app.db"),
        increments.newest("app.db"),
    ):
        with pytest.raises(UnsupportedSegment, match="newer version") as told:
            await request
        assert told.value.exit_code == 78


async def test_a_segment_of_the_future_is_not_left_out_of_a_history(store: MemoryStore, increments: Increments) -> None:
    stream = maker(1, AtRestorePoint(KEY))
    made = stream.segment()
    await put(store, replace(made, data=_of_the_future(made.data)))
    with pytest.raises(UnsupportedSegment):
        await increments.look("app.db", KEY, None, {})


async def test_a_stream_whose_first_segment_is_damaged_is_beside_the_path(
    store: MemoryStore, increments: Increments
) -> None:
    """Nobody knows what it continues."""
    stream = maker(1, AtRestorePoint(KEY))
    made = stream.segment()
    await put(store, replace(made, data=made.data[:-1]), stream.segment())
    path = await increments.look("app.db", KEY, None, {})
    assert path.legs == ()
    assert [line.stream.name for line in path.side_lines] == [str(stream.name)]


async def test_a_base_that_is_gone_is_a_gap(store: MemoryStore, increments: Increments) -> None:
    """The first segments of the restore point's stream have expired or were deleted."""
    stream = maker()
    _, *left = stream.many(5)
    await put(store, *left)
    path = await increments.look("app.db", KEY, Position(str(stream.name), 0), {})
    assert (path.legs, path.stopped) == ((), f"commits 1 to 1 of stream {stream.name} are missing")


async def test_streams_are_listed_from_one_to_the_next(store: MemoryStore, increments: Increments) -> None:
    first = maker()
    second = maker(2, Position(str(first.name), 2_000))
    await put(store, *first.many(2_000), *second.many(1_000))
    found = await increments.streams("app.db")
    assert [(each.name, each.epoch, each.after) for each in found] == [
        (str(first.name), 1, None),
        (str(second.name), 2, Position(str(first.name), 2_000)),
    ]
    assert lists(store) == 3, "one for each, and one more"
    assert [each.name for each in await increments.streams("app.db", str(first.name))] == [str(second.name)]
    assert await increments.newest("app.db") == second.name
    assert await increments.newest("other.db") is None
    assert (await increments.first_of("app.db", str(second.name))) == (
        await increments.segments("app.db", str(second.name))
    )[0]
    assert len(await increments.segments("app.db", str(first.name), 1_500)) == 500


async def test_the_latest_stream_is_found_however_long_ago_it_began(store: MemoryStore, increments: Increments) -> None:
    stream = StreamMaker(stream_name(POINT, later=-400 * 86_400))
    await put(store, stream.segment())
    assert await increments.newest("app.db") == stream.name


def _of_the_future(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(
        zstandard.ZstdDecompressor().decompress(data).replace(b"SIDEINC1", b"SIDEINC2")
    )


def test_the_generator_makes_keys_of_the_documentation() -> None:
    made = maker().segment(2)
    assert made.key == segment_key_of("app.db", str(maker().name), 1, 2, maker().began // 1000 + 2_000)
