"""Restore points in a store whose rules select by prefix: always the newest and the held ones, whatever happens when."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.errors import NotFound, StoreUnavailable, UnsupportedRestorePoint
from sidecar.model import Database, Span, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.holds import Holds
from sidecar.repository.keys import key_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.places import SLOTS
from sidecar.status.model import Status
from sidecar.storage import Retrying, RetryPolicy, Traits
from tests.fakes import FakeClock, MemoryStore
from tests.harness.lifecycle import apply_rules
from tests.harness.placing import (
    BIG,
    NAME,
    SMALL,
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
