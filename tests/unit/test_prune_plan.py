"""What pruning deletes of a store over the network: with tags and without, and never what somebody may still need."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sidecar.errors import AccessDenied, ConfigurationError, NotFound, StoreUnavailable, UnsupportedRestorePoint
from sidecar.lease.record import KEY, Record
from sidecar.model import AtRestorePoint, Origin, Position, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.holds import FOLDER, Holds
from sidecar.repository.keys import StreamName, key_of, segment_key_of
from sidecar.repository.pruning import Pruner, pruner_of
from sidecar.storage import Expired
from tests.fakes import FakeClock, MemoryStore
from tests.harness.streams import StreamMaker

pytestmark = pytest.mark.anyio

NAME = "app.db"
KEEP = RetentionDays()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RECENT, HELD = {"sidecar-tier": "recent"}, {"sidecar-tier": "held"}
NOON = datetime.fromisoformat("2026-11-20T12:30:00+00:00")

_TIERS = {
    2: "hourly",
    8: "hourly",
    14: "hourly",
    17: "daily",
}  # of those in `fill`: the last ones of an hour, and of the day


class Scene:
    """A store whose clock stands at noon, with a restore point every ten minutes of the last three hours and two days ago."""

    def __init__(self, *, tags: bool = True) -> None:
        self.store = MemoryStore(time=NOON)
        self.store.traits = replace(self.store.traits, tags=tags)
        self.clock = FakeClock(NOON)
        self.catalog = Catalog(self.store)
        self.left: list[int] = []  # after how many deletions pruning is killed

    @property
    def pruner(self) -> Pruner:
        """A new one, which remembers nothing."""
        return pruner_of(self.catalog, self, KEEP, self.clock)

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        deleted: list[str] = []
        for each in expired:
            if self.left and len(deleted) == self.left[0]:
                self.left.pop()
                raise StoreUnavailable("scripted: killed")
            there = self.store.objects.get(each.key)
            same = there and there.info.etag == each.etag
            if same and (each.tags is None or self.store.marks.get(each.key, {}) == each.tags):
                del self.store.objects[each.key]
                deleted.append(each.key)
        return tuple(deleted)

    def add(self, instant: datetime, tier: str | None = None, **metadata: str) -> str:
        """A restore point."""
        key = key_of(NAME, Timestamp.of(instant))
        self.store.add(key, b"12345678", metadata)
        if tier and self.store.traits.tags:
            self.store.marks[key] = {"sidecar-tier": tier}
        return key

    def fill(self) -> list[str]:
        """Three hours, two days ago: of each only the last one is no `recent`. And a few of today."""
        begin = NOON - 2 * DAY - 3 * HOUR
        keys = [self.add(begin + number * HOUR / 6, _TIERS.get(number, "recent")) for number in range(18)]
        for each in (NOON - DAY - HOUR, NOON - DAY):
            self.add(each, "daily")
        self.add(NOON - HOUR / 6)
        return [key for number, key in enumerate(keys) if number not in _TIERS]

    async def run(self) -> tuple[str, ...]:
        """Plan and carry it out."""
        pruner = self.pruner
        return (await pruner.carry_out(await pruner.planner.plan(NAME))).keys

    def there(self) -> set[str]:
        """Everything in the store."""
        return set(self.store.objects)


def first_segment(stream: str, after: Origin | None) -> bytes:
    return StreamMaker(StreamName.of(stream), NAME, after).segment().data


@pytest.fixture(params=[True, False], ids=["tags", "names"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(tags=request.param)


async def test_what_has_expired_goes_and_the_rest_stays(scene: Scene) -> None:
    expired = scene.fill()
    before = scene.there()
    found = await scene.pruner.prospect(NAME)
    assert [each.point.key for each in found.plan.points] == expired
    assert (found.size, found.segments, found.plan.kept) == (8 * len(expired), 0, len(before) - len(expired))
    assert scene.there() == before, "a plan changes nothing"
    assert await scene.run() == tuple(expired)
    assert scene.there() == before - set(expired)
    assert await scene.run() == ()


async def test_a_held_restore_point_stays(scene: Scene) -> None:
    expired = scene.fill()
    if scene.store.traits.tags:
        scene.store.marks[expired[3]] = HELD
    else:
        await Holds(scene.store).mark(expired[3])
        marked = await scene.store.head(f"{FOLDER}{expired[3]}")
        await Holds(scene.store).mark(expired[3])
        assert await scene.store.head(marked.key) == marked, (
            "written with If-None-Match, which a bucket's policy may demand"
        )
    assert expired[3] not in await scene.run()
    plan = await scene.pruner.planner.plan(NAME)
    assert (plan.points, plan.held) == ((), 1)
    with pytest.raises(NotFound):
        await Holds(scene.store).mark(key_of(NAME, Timestamp.of(NOON + DAY)))


async def test_one_that_is_held_after_the_plan_stays(scene: Scene) -> None:
    expired = scene.fill()
    plan = await scene.pruner.planner.plan(NAME)
    scene.store.marks[expired[3]] = HELD
    scene.store.add(f"{FOLDER}{expired[3]}")
    assert expired[3] not in (await scene.pruner.carry_out(plan)).keys
    assert expired[3] in scene.there()


async def test_one_without_a_tag_stays_where_there_are_tags() -> None:
    """It was the newest for long, or nobody had the time or the right to tag it."""
    scene = Scene()
    expired = scene.fill()
    del scene.store.marks[expired[3]]
    assert expired[3] not in await scene.run()


@pytest.mark.parametrize("error", [AccessDenied("denied"), ConfigurationError("not implemented")])
async def test_where_tags_cannot_be_read_nothing_is_deleted(error: AccessDenied | ConfigurationError) -> None:
    """They may say that it is held. A proxy that does not know them is no reason to delete anything."""
    scene = Scene()
    scene.fill()
    scene.store.fail("tags", error, times=100)
    before = scene.there()
    with pytest.raises(type(error)):
        await scene.run()
    assert scene.there() == before


@pytest.mark.parametrize("killed", [0, 1, 7])
async def test_pruning_that_was_killed_continues(scene: Scene, killed: int) -> None:
    expired = scene.fill()
    before = scene.there()
    scene.left = [killed]
    with pytest.raises(StoreUnavailable):
        await scene.run()
    assert before - scene.there() == set(expired[:killed]), "oldest first"
    await scene.run()
    assert before - scene.there() == set(expired)


async def test_two_at_once_delete_each_restore_point_once(scene: Scene) -> None:
    """And leave alone what was written anew under a key that had expired, which nobody does."""
    expired = scene.fill()
    one, other = [await scene.pruner.planner.plan(NAME) for _ in range(2)]
    first = await scene.pruner.carry_out(one)
    scene.add(Timestamp(expired[0].rpartition("/")[2].removesuffix(".sqlite3.zst")).instant)
    assert (first.keys, (await scene.pruner.carry_out(other)).keys) == (tuple(expired), ())
    assert expired[0] in scene.there()


async def test_a_fenced_machine_s_restore_points_supersede_nothing(scene: Scene) -> None:
    """It goes on publishing after it was fenced: the newest one of the main line is older than its, and stays for ever."""
    scene.store.time = NOON - 3 * DAY
    newest = scene.add(scene.store.time, epoch="8", size="1")
    record = Record(8, "us", "boot", 120.0, latest={NAME: newest}, settled={NAME: 8})
    scene.store.add(KEY, record.to_bytes())
    fenced = [scene.add(scene.store.time + number * HOUR / 6, epoch="7") for number in range(1, 30)]
    scene.store.time = NOON
    assert await scene.run() == ()
    assert scene.there() >= {newest, *fenced}


async def test_without_a_lease_the_epochs_say_it(scene: Scene) -> None:
    """It was deleted, or is in another store that nobody named: the newest one of the highest term stays."""
    scene.store.time = NOON - 3 * DAY
    newest = scene.add(scene.store.time, epoch="8")
    for number in range(1, 6):
        scene.add(scene.store.time + number * HOUR / 20, epoch="7")
    scene.store.time = NOON
    assert await scene.run() == ()
    assert newest in scene.there()


async def test_in_the_middle_too_they_supersede_nothing() -> None:
    """Its position is beyond the commit at which the main line left its stream, so that it is no last one of its hour."""
    scene = Scene(tags=False)
    begin = NOON - 3 * DAY
    left, entered = (
        str(StreamName(Timestamp.of(begin + shift), epoch, "m")) for shift, epoch in ((-HOUR, 1), (HOUR / 3, 2))
    )
    scene.store.add(segment_key_of(NAME, entered, 1, 1, 1), first_segment(entered, Position(left, 5)))
    last = scene.add(begin + HOUR / 4, stream=left, commit="5", epoch="1")
    fenced = scene.add(begin + HOUR / 3, stream=left, commit="9", epoch="1")
    for number in range(4, 9):
        scene.add(begin + number * HOUR / 4, stream=entered, commit="1", epoch="2")
    scene.add(NOON, stream=entered, commit="1", epoch="2")
    await scene.run()
    assert {last, fenced} <= scene.there()


@pytest.mark.parametrize("gone", [False, True])
async def test_the_last_one_that_is_left_stays(scene: Scene, gone: bool) -> None:
    """Somebody has deleted the newest one, or its tag says that it expires."""
    scene.store.time = NOON - 3 * DAY
    last = scene.add(scene.store.time, "recent")
    later = scene.add(scene.store.time + HOUR / 10, "recent", epoch="7")
    named = key_of(NAME, Timestamp.of(scene.store.time + HOUR / 6)) if gone else later
    record = Record(8, "us", "boot", 120.0, latest={NAME: named}, settled={NAME: 8} if gone else {})
    scene.store.add(KEY, record.to_bytes())
    for number in range(4):
        scene.add(scene.store.time - number * HOUR / 20 - HOUR / 20, "recent")
    for number in range(3 if gone else 0):
        scene.add(NOON - DAY + number * HOUR, epoch="7")
    scene.store.time = NOON
    await scene.run()
    assert later in scene.there()
    assert gone or last in scene.there(), "some are always spared"


async def test_clocks_that_disagree_prune_nothing(scene: Scene) -> None:
    """A proxy whose Date is days ahead, or a machine whose own clock is wrong."""
    scene.fill()
    scene.clock.wall += timedelta(hours=2)
    with pytest.raises(ConfigurationError, match="this machine 2026-11-20 14:30 UTC"):
        await scene.run()


async def test_a_gap_in_the_history_is_waited_out(scene: Scene) -> None:
    expired = scene.fill()
    scene.store.time = scene.clock.wall = NOON + 8 * DAY
    newest = scene.add(NOON + 8 * DAY)
    found = await scene.pruner.planner.plan(NAME)
    assert (found.points, found.kept) == ((), len(scene.there()))
    assert "nothing was published for 7 days before 2026-11-28" in found.distrust
    scene.store.time = scene.clock.wall = NOON + 9 * DAY
    assert {*expired} <= {*await scene.run()}
    assert newest in scene.there()


async def test_a_store_that_a_newer_version_wrote_to_is_left_alone(scene: Scene) -> None:
    """Nobody here knows what it needs."""
    scene.fill()
    scene.store.add(f"{NAME}/20261121T120000.000Z.sqlite4.zst")
    before = scene.there()
    with pytest.raises(UnsupportedRestorePoint):
        await scene.run()
    assert scene.there() == before


async def test_segments_go_that_no_history_needs(scene: Scene) -> None:
    """By the age in their keys; those that the newest restore point is before of stay, however old."""
    scene.store.time = scene.clock.wall = NOON
    name = str(StreamName(Timestamp.of(NOON - 60 * DAY), 1, "m"))
    ages = [60, 50, 40, 36, 34, 1]
    keys = [
        segment_key_of(NAME, name, number, number, int((NOON - age * DAY).timestamp() * 1000))
        for number, age in enumerate(ages, 1)
    ]
    for key in keys:
        scene.store.add(key, first_segment(name, AtRestorePoint("x")))
    for hours in (30, 20, 10):
        scene.add(NOON - hours * HOUR, "daily", stream=name, commit="3")
    found = await scene.pruner.prospect(NAME)
    assert found.segments == 3
    done = await scene.pruner.carry_out(found.plan)
    assert (done.segments, done.size) == (3, found.size)
    assert scene.there() >= {*keys[3:]}


async def test_the_first_one_in_a_stream_lives_longer_by_name_too() -> None:
    """It is the only way into a stream that continues no other."""
    scene = Scene(tags=False)
    begin = NOON - 2 * DAY - HOUR * 5 / 12
    name = str(StreamName(Timestamp.of(begin), 1, "m"))
    scene.store.add(segment_key_of(NAME, name, 1, 1, 1), first_segment(name, None))
    before, first, second = (
        scene.add(begin + number * HOUR / 20, **({"stream": name, "commit": str(number)} if number else {}))
        for number in range(3)
    )
    scene.fill()
    gone = await scene.run()
    assert (before in gone, first in gone, second in gone) == (True, False, True)
