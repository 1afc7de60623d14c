"""Restore points in a store whose rules select by prefix: always the newest and the held ones, whatever happens when."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.errors import AccessDenied, NotFound, StoreUnavailable, UnsupportedRestorePoint
from sidecar.model import Database, ObjectInfo, Span, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.holds import Holds
from sidecar.repository.inventory import describe
from sidecar.repository.keys import key_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.places import SLOTS
from sidecar.repository.pruning import pruner_of
from sidecar.status.model import Status
from sidecar.storage import Expired, Retrying, RetryPolicy, Traits
from tests.fakes import FakeClock, MemoryStore, Stored
from tests.harness.lifecycle import apply_rules
from tests.harness.placing import (
    BIG,
    BY_PREFIX,
    KEEP,
    NAME,
    SMALL,
    Killed,
    Paused,
    Scene,
    require_kept,
    require_readable,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_the_newest_is_there_however_long_the_app_sleeps(scene: Scene) -> None:
    for at in ("20T14:50", "20T14:55", "20T15:00"):
        await scene.publish(at)
    scene.pass_time(timedelta(days=400))
    newest = await Catalog(PlacedStore(scene.store)).newest(NAME)
    assert newest
    assert newest.key == scene.published[-1]
    assert await scene.shown() == scene.published[-2:]  # in the slots


async def test_the_last_of_an_hour_and_of_a_day_live_as_long_as_their_tiers(scene: Scene) -> None:
    for at in ("20T14:50", "20T14:55", "20T15:00", "20T15:05", "21T00:01", "21T00:02"):
        await scene.publish(at)
    assert (scene.at("expiring/hourly/"), scene.at("expiring/daily/")) == (["20261120T14"], ["20261120T15"])
    assert await scene.shown() == scene.published
    scene.pass_time(timedelta(days=6))
    assert await scene.shown() == [scene.published[number] for number in (1, 3, 4, 5)]
    scene.pass_time(timedelta(days=5))
    assert await scene.shown() == [scene.published[number] for number in (3, 4, 5)]
    scene.pass_time(timedelta(days=40))
    assert await scene.shown() == scene.published[-2:]


async def test_a_slow_copy_to_the_place_of_a_tier_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag that is cancelled is set after the next cycle; a copy of a large object might never be made."""
    monkeypatch.setattr("sidecar.repository.expiry.TIME_LIMIT", 0.0)
    scene = Scene()
    for at in ("20T14:50", "20T15:00"):
        await scene.publish(at)
    assert scene.at("expiring/hourly/") == ["20261120T14"]


async def test_a_held_one_outlives_all_rules(scene: Scene) -> None:
    await scene.publish("20T14:50", BIG)
    await scene.publish("20T14:51", SMALL)
    for minute in range(52, 60):
        await scene.publish(f"20T14:{minute}", SMALL)
    scene.pass_time(timedelta(days=400))
    assert await scene.shown() == [scene.published[0], *scene.published[-2:]]
    assert (await PlacedStore(scene.store).tags(scene.published[0]))["sidecar-tier"] == "held"


async def test_the_store_does_not_grow_while_the_app_writes() -> None:
    """37 days, every eight hours: what is there is what tags would leave, and no more."""
    scene = Scene(patience=False)
    scene.store.time = datetime.fromisoformat("2026-11-20T00:01:00+00:00")
    for number in range(37 * 3):
        await scene.publish()
        scene.store.time += timedelta(hours=8)
        if number % 3 == 0:
            apply_rules(scene.store)
            require_kept(scene.store.objects, scene.published[-1], set())
    apply_rules(scene.store)
    assert len(scene.at("expiring/recent/")) in range(2, 5)
    assert len(scene.at("expiring/hourly/")) in range(7 * 2 - 1, 7 * 2 + 2)
    assert len(scene.at("expiring/daily/")) in range(34, 37)
    assert len(scene.at("app.db/")) == 2


async def states_of_some_cycles() -> list[tuple[dict[str, Stored], list[str], datetime]]:
    """What the store has before each request that finds it changed, and what counted as protected by then."""
    scene = Scene()
    for at in ("20T13:50", "20T14:50"):
        await scene.publish(at)
    states: list[tuple[dict[str, Stored], list[str], datetime]] = []

    def remember(_operation: str, _key: str) -> None:
        if not states or states[-1][:2] != (scene.store.objects, scene.published):
            states.append((dict(scene.store.objects), scene.published.copy(), scene.store.time))

    scene.store.hook = remember
    for at, size in (("20T15:10", BIG), ("20T15:15", SMALL), ("21T09:00", SMALL)):
        await scene.publish(at, size)
    return states


async def test_a_kill_between_any_two_requests_loses_nothing() -> None:
    """The restart is at once, or almost a day later, by turns; two more cycles follow. Reads between leave the same state."""
    states = await states_of_some_cycles()
    for number, (objects, protected, time) in enumerate(states):
        scene = Scene(patience=False)
        scene.store.objects, scene.store.time, scene.published = dict(objects), time, protected.copy()
        require_kept(objects, protected[-1], set())
        scene.pass_time(timedelta(hours=20 * (number % 2)))
        assert protected[-1] in await scene.shown(), f"killed in state {number}"
        await scene.expiry.tag_and_prune()
        for _ in range(2):
            await scene.publish(size=SMALL)
            scene.store.time += timedelta(minutes=5)
        scene.pass_time(timedelta(days=3))
        shown = await scene.shown()
        assert set(shown) >= {protected[0], protected[1], *scene.published[-2:]}, f"killed in state {number}"
        if "20261120T1515" in "".join(protected):
            assert scene.at("held/") == ["20261120T15"]
    assert len(states) > 12


async def test_a_restart_makes_up_for_a_copy_that_is_missing(scene: Scene) -> None:
    """The process was killed after its publish, before the copy; the app writes nothing any more."""
    await scene.publish("20T14:50")

    def kill(operation: str, _key: str) -> None:
        if operation == "copy":
            raise Killed

    scene.store.hook = kill
    with pytest.raises(Killed):
        await scene.publish("20T14:55")
    scene.store.hook = None
    scene.restart()
    await scene.expiry.tag_and_prune()
    scene.pass_time(timedelta(days=400))
    assert [key.rpartition("/")[2][:13] for key in await scene.shown()] == ["20261120T1450", "20261120T1455"]


@pytest.mark.parametrize("operation", ["put", "copy", "head", "list", "tag", "now"])
async def test_a_lost_reply_changes_nothing(scene: Scene, operation: str) -> None:
    for at in ("20T13:50", "20T14:50", "20T15:10", "20T15:15"):
        if operation in {"head", "list", "now"}:
            scene.store.fail(operation)
        else:
            scene.store.lose_reply(operation)
        await scene.publish(at)
    assert await scene.shown() == scene.published
    assert (scene.at("expiring/hourly/"), len(scene.store.objects)) == (["20261120T13", "20261120T14"], 8)


async def test_a_publish_does_not_count_before_its_copy_is_there(scene: Scene) -> None:
    """A copy that is refused fails the publish; the next one is not hindered, and what is there is seen."""
    await scene.publish("20T14:50")
    scene.store.fail("copy", AccessDenied("scripted"))
    with pytest.raises(StoreUnavailable, match="no lifecycle rule reaches"):
        await scene.publish("20T14:55")
    assert len(await scene.shown()) == 2
    await scene.publish("20T15:00")
    assert len(await scene.shown()) == 3


async def test_a_copy_that_is_cut_short_is_no_copy(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store says that it copied, and kept less."""
    whole = scene.store.copy

    async def cut(source: ObjectInfo, key: str, *, metadata: dict[str, str]) -> ObjectInfo:
        await whole(source, key, metadata=metadata)
        return scene.store.add(key, b"x", metadata)

    monkeypatch.setattr(scene.store, "copy", cut)
    with pytest.raises(StoreUnavailable, match=r"copied 1 of the"):
        await scene.publish("20T14:50")


@pytest.mark.parametrize("publishes", [1, 2, 3])
async def test_a_paused_machine_displaces_nothing(publishes: int) -> None:
    """It was paused before its copy, while another machine took over, published once or more, and then sleeps for ever."""
    scene = Scene(Paused(traits=BY_PREFIX), epoch=1)
    for at in ("20T14:50", "20T14:55"):
        await scene.publish(at)
    others: list[Scene] = []

    async def take_over() -> None:
        others.append(await scene.take_over())
        for minute in range(publishes):
            await others[0].publish(f"20T15:0{minute}")

    assert isinstance(scene.store, Paused)
    scene.store.meanwhile = take_over
    await scene.publish("20T14:59")
    newest = others[0].published[-1]
    require_kept(scene.store.objects, newest, set())
    scene.pass_time(timedelta(days=400))
    assert (await others[0].shown())[-1] == newest


async def test_a_paused_machine_that_dies_after_its_copy_is_made_up_for_by_the_next_cycle() -> None:
    scene = Scene(Paused(traits=BY_PREFIX), epoch=1)
    for at in ("20T14:50", "20T14:55"):
        await scene.publish(at)
    others: list[Scene] = []

    async def take_over() -> None:
        others.append(await scene.take_over())
        await others[0].publish("20T15:00")

        def kill(operation: str, _key: str) -> None:
            if operation != "copy":
                raise Killed

        scene.store.hook = kill

    assert isinstance(scene.store, Paused)
    scene.store.meanwhile = take_over
    with pytest.raises(Killed):
        await scene.publish("20T14:59")
    scene.store.hook = None
    await others[0].expiry.tag_and_prune()
    require_kept(scene.store.objects, others[0].published[-1], set())


@pytest.mark.parametrize("stale", [1, 2, 3])
async def test_what_a_fenced_machine_publishes_displaces_nothing(stale: int) -> None:
    """Nothing has told it that its term is over, and its timestamps are later than that of the newest one."""
    scene = Scene(epoch=1)
    for at in ("20T14:50", "20T14:55"):
        await scene.publish(at)
    other = await scene.take_over()
    await other.publish("20T15:00")
    for minute in range(stale):
        await scene.publish(f"20T15:1{minute}")
        require_kept(scene.store.objects, other.published[-1], set())
        await other.expiry.tag_and_prune()
        require_kept(scene.store.objects, other.published[-1], set())
    scene.pass_time(timedelta(days=400))
    newest = await Catalog(PlacedStore(scene.store)).newest(NAME)
    assert newest
    assert newest.key == other.published[-1]


async def test_the_newest_gets_a_slot_whatever_the_slots_have(scene: Scene) -> None:
    """Both have what a fenced machine published later, as an older version of sidecar could leave them."""
    for at in ("20T14:50", "20T14:55"):
        await scene.publish(at)
    other = await scene.take_over()
    newest = await other.publish("20T15:00")
    for slot, time in zip(SLOTS, ("20261120T150500.000Z", "20261120T151000.000Z"), strict=True):
        scene.store.add(f"{NAME}/{slot}", time.encode(), {"point": time, "epoch": "0"})
    await other.expiry.tag_and_prune()
    require_kept(scene.store.objects, newest, set())


async def test_what_only_a_slot_still_has_is_not_overwritten(scene: Scene) -> None:
    """The app wakes up after a week; the process is killed before it gave the older one its tier."""
    await scene.publish("10T14:50")
    scene.pass_time(timedelta(days=7))
    await scene.publish(settle=False)
    scene.restart()
    scene.store.time += timedelta(minutes=5)
    await scene.publish(settle=False)
    assert await scene.shown() == scene.published
    assert scene.at("expiring/daily/") == ["20261110T14"]


async def test_parts_come_from_wherever_the_previous_one_is(scene: Scene) -> None:
    """What was published is the parent of the next one for as long as the process lives, however long that sleeps."""
    await scene.publish("10T14:50")
    info = await scene.placed.head(scene.published[0])
    scene.pass_time(timedelta(days=7))
    key = key_of(NAME, Timestamp.of(scene.store.time))
    async with scene.placed.upload(key, metadata={"size": "1"}) as upload:
        await upload.copy_part(1, 0, info, Span(0, info.size))
        published = await upload.complete()
    assert published.key == key
    assert f"expiring/recent/{key}" in scene.store.objects
    assert bytes((await scene.placed.get(key)).data) == bytes((await scene.placed.get(scene.published[0])).data)


async def test_a_download_goes_on_with_another_copy(scene: Scene) -> None:
    """The object that it began with expires in the middle."""
    await scene.publish("10T14:50")
    etag = (await scene.placed.get(scene.published[0], span=Span(-4))).info.etag
    scene.pass_time(timedelta(days=7))
    blob = await scene.placed.get(scene.published[0], span=Span(0, 8), if_match=etag)
    assert bytes(blob.data) == b"20261110"


async def test_a_restore_point_is_found_by_each_of_its_keys(scene: Scene) -> None:
    for at in ("20T14:50", "20T15:00"):
        await scene.publish(at)
    first, second = scene.published
    slots = [key for key in scene.store.objects if key.endswith(SLOTS)]
    for key in (first, f"expiring/recent/{first}", f"expiring/hourly/{first}"):
        assert (await PlacedStore(scene.store).head(key)).key == first
    assert {(await PlacedStore(scene.store).head(key)).key for key in slots} == {first, second}
    with pytest.raises(NotFound):
        await PlacedStore(scene.store).head(f"held/{first}")


async def test_both_layouts_are_read_as_one(scene: Scene) -> None:
    """Restore points of the time before, in the main place, where no rule reaches; they are neither copied nor hidden."""
    old = key_of(NAME, Timestamp("20261101T145000.000Z"))
    scene.store.add(old, b"20261101T145000.000Z", {"size": str(BIG), "tables": "3"})
    await scene.publish("20T14:50")
    assert await scene.shown() == [old, scene.published[0]]
    assert scene.at("expiring/daily/") == scene.at("expiring/hourly/") == []
    scene.pass_time(timedelta(days=400))
    assert await scene.shown() == [old, scene.published[0]]
    assert scene.at("expiring/") == []


async def test_a_store_with_rules_by_tag_reads_what_was_placed(scene: Scene) -> None:
    """The bucket was copied to another vendor. New restore points lie in the main place, and nothing is asked twice."""
    for at in ("20T14:50", "20T15:00"):
        await scene.publish(at)
    scene.store.traits = Traits("by tag", minimum_part=1)
    assert await scene.shown() == scene.published
    for key in (scene.published[0], *scene.store.objects):
        placed = PlacedStore(scene.store)
        if key in scene.store.objects:
            found = (await placed.head(key)).key
            await require_readable(placed, found)
        else:  # as in every other store that has no such key: nothing more is asked for
            with pytest.raises(NotFound):
                await placed.head(key)
    scene.restart()
    third = await scene.publish("20T15:05")
    assert third in scene.store.objects
    assert await scene.shown() == scene.published


async def test_no_request_is_added_where_rules_select_by_tag() -> None:
    """The requests of some cycles, with and without the view."""
    requests = []
    for placed in (True, False):
        scene = Scene(MemoryStore(traits=Traits("by tag", minimum_part=1)))
        if not placed:
            scene.placed = Retrying(scene.store, FakeClock(), RetryPolicy(5.0))  # type: ignore[assignment]
            scene.catalog = Catalog(scene.placed)
            status = Status((Database(NAME, Path("/app.db")),), "", "0", FakeClock().now)
            holds = Holds(scene.placed)
            scene.expiry = expiry_of(NAME, scene.catalog, status, FakeClock(), RetentionDays(), holds=holds)
        for at, size in (("20T14:50", BIG), ("20T15:00", SMALL), ("21T15:00", BIG)):
            await scene.publish(at, size)
        await scene.catalog.newest(NAME)
        requests.append(scene.store.requests)
    assert requests[0] == requests[1]


async def test_an_older_version_refuses_a_store_where_only_slots_are_left(scene: Scene) -> None:
    """It sees the slots in the main place as what a newer version wrote, and never starts with an empty database."""
    await scene.publish("20T14:50")
    scene.pass_time(timedelta(days=400))
    with pytest.raises(UnsupportedRestorePoint):
        await Catalog(scene.store).newest(NAME)


async def test_a_slot_without_a_name_is_not_taken_for_nothing(scene: Scene) -> None:
    scene.store.add(f"{NAME}/{SLOTS[0]}", b"no restore point")
    with pytest.raises(UnsupportedRestorePoint, match="does not name"):
        await scene.catalog.newest(NAME)


@pytest.mark.parametrize("operation", ["list", "head"])
async def test_an_error_is_never_taken_for_an_empty_store(scene: Scene, operation: str) -> None:
    """Each request of a look for the newest one fails once, while only a slot has it."""
    await scene.publish("20T14:50")
    scene.pass_time(timedelta(days=2))
    before = scene.store.count(operation)
    await Catalog(PlacedStore(scene.store)).newest(NAME)
    for number in range(scene.store.count(operation) - before):
        asked = 0

        def fail(made: str, _key: str, number: int = number) -> None:
            nonlocal asked
            asked += made == operation
            if asked > number:
                raise StoreUnavailable("scripted")

        scene.store.hook = fail
        with pytest.raises(StoreUnavailable, match="scripted"):
            await Catalog(PlacedStore(scene.store)).newest(NAME)


async def test_an_error_is_never_taken_for_a_missing_restore_point(scene: Scene) -> None:
    """Its only object is that of its tier, and the request for it fails."""
    for at in ("20T14:50", "20T15:00", "20T15:05", "20T15:10"):
        await scene.publish(at)
    scene.pass_time(timedelta(days=2))

    def fail(operation: str, key: str) -> None:
        if operation == "head" and key.startswith("expiring/hourly/"):
            raise StoreUnavailable("scripted")

    scene.store.hook = fail
    for ask in (scene.placed.head, scene.placed.get, scene.placed.tags):
        with pytest.raises(StoreUnavailable, match="scripted"):
            await ask(scene.published[0])


class Pruned:
    """Deletes as a store does, and is killed after some."""

    def __init__(self, store: MemoryStore, until: int = 1000) -> None:
        self.store, self.until = store, until

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        for each in expired:
            assert self.store.objects[each.key].info.etag == each.etag
            if self.until == 0:
                raise StoreUnavailable("scripted: killed")
            self.until -= 1
            del self.store.objects[each.key]
        return tuple(each.key for each in expired)


async def two_days(scene: Scene) -> list[str]:
    """Restore points whose rules have not acted: three hours of a day, the next day, of which one is held, and the newest.

    The last two of that day were in slots; the older of them got a copy among the daily ones when its slot was needed.
    """
    for at in ("20T14:50", "20T14:55", "20T15:00", "20T15:05", "20T16:00", "21T09:00"):
        await scene.publish(at)
    await scene.publish("21T09:05", SMALL)
    await scene.publish("21T09:10", SMALL)
    scene.store.time += timedelta(days=2)
    await scene.publish()
    return scene.published


async def pruned(scene: Scene, until: int = 1000) -> tuple[str, ...]:
    pruner = pruner_of(Catalog(PlacedStore(scene.store)), Pruned(scene.store, until), KEEP, None)
    return (await pruner.carry_out(await pruner.planner.plan(NAME))).keys


async def test_pruning_deletes_what_rules_would_have(scene: Scene) -> None:
    """At all places; what is held, what has a longer tier and what is in a slot stay. A second time there is nothing to do."""
    published = await two_days(scene)
    gone = await pruned(scene)
    assert gone == (published[0], published[2])
    assert await scene.shown() == [key for key in published if key not in gone]
    assert scene.at("held/") == ["20261121T09"]
    assert await pruned(scene) == ()
    scene.store.time += timedelta(days=400)
    await scene.publish()
    scene.store.time += timedelta(days=2)  # the clock is trusted again
    await scene.publish()
    await pruned(scene)
    assert await scene.shown() == [published[5], *scene.published[-3:]]
    assert len(scene.at("app.db/")) == 2


async def test_pruning_can_be_killed_at_any_time() -> None:
    """What it was about to delete is deleted the next time, and nothing else."""
    for until in range(8):
        scene = Scene(patience=False)
        published = await two_days(scene)
        with suppress(StoreUnavailable):
            await pruned(scene, until)
        require_kept(scene.store.objects, published[-1], {published[5]})
        await pruned(scene)
        assert await scene.shown() == [published[number] for number in (1, 3, 4, 5, 6, 7, 8)]


async def test_pruning_deletes_what_was_there_before_placing(scene: Scene) -> None:
    """Rules do not reach it. A tag of that time still holds."""
    old = [key_of(NAME, Timestamp(f"20261101T14{minute}00.000Z")) for minute in (50, 52, 55)]
    for key in old:
        scene.store.add(key, key.encode()[-30:], {"size": str(BIG), "tables": "3"})
    scene.store.marks[old[1]] = {"sidecar-tier": "held"}
    for at in ("10T14:50", "12T14:50", "20T14:50", "21T15:00", "22T15:01"):
        await scene.publish(at)
    assert await pruned(scene) == (old[0],)
    assert set(old[1:]) <= set(scene.store.objects)


async def test_a_list_says_which_ones_are_recent(scene: Scene) -> None:
    """With tags and without them."""
    await two_days(scene)
    for tags in (True, False):
        scene.store.traits = replace(BY_PREFIX, tags=tags)
        catalog = Catalog(PlacedStore(scene.store))
        entries = await describe(catalog, [point async for point in catalog.points(NAME)])
        tiers = [entry.tier for entry in entries]
        assert tiers == ["recent", "hourly", "recent", "hourly", "daily", "held", "daily", "daily", None]
