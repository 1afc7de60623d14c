"""Restore points placed for rules by prefix: kills, lost replies, refusals, and machines that were paused or fenced."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sidecar.errors import AccessDenied, StoreUnavailable
from sidecar.model import ObjectInfo
from sidecar.repository.catalog import Catalog
from sidecar.repository.placed import PlacedStore
from sidecar.repository.places import SLOTS
from sidecar.repository.slots import UNDER_WAY
from tests.fakes import Stored
from tests.harness.placing import (
    BIG,
    BY_PREFIX,
    NAME,
    SMALL,
    Killed,
    Paused,
    Scene,
    require_kept,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def scene() -> Scene:
    return Scene()


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


async def test_a_copy_that_is_made_late_displaces_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store goes on with it when nobody waits any more, until after the final backup, which no cycle follows."""
    for minute in (10, 15):
        await scene.publish(f"21T15:{minute}")
    late: list[tuple[ObjectInfo, str, Mapping[str, str]]] = []
    copy = scene.store.copy

    async def copy_later(source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        late.append((source, key, metadata))
        raise AccessDenied("as a refusal: what was not answered is tried again")

    with monkeypatch.context() as patched:
        patched.setattr(scene.store, "copy", copy_later)
        with pytest.raises(StoreUnavailable):
            await scene.publish("21T15:20")
    for minute in (25, 30):
        await scene.publish(f"21T15:{minute}", settle=False)
        before = dict(scene.store.objects)
        for source, key, metadata in late:
            await copy(source, key, metadata=metadata)
        require_kept(scene.store.objects, scene.published[-1], set())
        scene.store.objects = before
    scene.store.time += UNDER_WAY
    await scene.publish()
    slots = {each.data.decode() for key, each in scene.store.objects.items() if key.endswith(SLOTS)}
    assert len(slots) == 2, "two copies of one only for an hour"


async def test_a_fenced_machine_whose_copy_was_late_leaves_the_other_slot_alone() -> None:
    """It copies twice, but never over what the machine after it has published."""
    fenced = Scene(epoch=1)
    for minute in (10, 15):
        await fenced.publish(f"21T15:{minute}")
    fenced.store.fail("copy", AccessDenied("scripted"))
    with pytest.raises(StoreUnavailable):
        await fenced.publish("21T15:20")
    other = await fenced.take_over()
    newest = await other.publish("21T15:25")
    await fenced.publish("21T15:30", settle=False)
    require_kept(fenced.store.objects, newest, set(), other.epoch)


async def test_one_that_cannot_be_copied_does_not_keep_the_others_from_their_places(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may have lost a block of one object. Those after it would all have expired within a day."""
    copy = scene.store.copy

    async def copy_most(source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        if key == f"expiring/hourly/{NAME}/20261120T105000.000Z.sqlite3.zst":
            raise AccessDenied("as a refusal, for a shorter test")
        return await copy(source, key, metadata=metadata)

    monkeypatch.setattr(scene.store, "copy", copy_most)
    for hour in (10, 11, 12, 13):
        await scene.publish(f"20T{hour}:50")
    assert scene.at("expiring/hourly/") == ["20261120T11", "20261120T12"]
    scene.pass_time(timedelta(hours=20))
    monkeypatch.setattr(scene.store, "copy", copy)
    await scene.expiry.tag_and_prune()
    assert scene.at("expiring/hourly/") == ["20261120T10", "20261120T11", "20261120T12"]


async def test_a_proxy_that_refuses_conditions_changes_no_places(scene: Scene) -> None:
    """One reply 501 teaches that there are no conditional writes, for as long as the process runs."""
    keys = [await scene.publish(f"21T15:{minute}") for minute in (10, 15)]
    scene.store.traits = replace(scene.store.traits, conditional_put=False, tags=False)
    assert (await scene.placed.head(keys[0])).key == keys[0]
    await scene.publish("21T16:00")
    assert scene.at("expiring/hourly/") == ["20261121T15"]
    require_kept(scene.store.objects, scene.published[-1], set())


async def test_the_tag_of_a_drill_that_took_long_displaces_nothing(scene: Scene) -> None:
    """Other restore points were published meanwhile: slots are for the last two."""
    keys = [await scene.publish(f"21T15:{minute}") for minute in (10, 15, 20)]
    before = {key: each for key, each in scene.store.objects.items() if key.endswith(SLOTS)}
    await scene.expiry.add_tag(keys[0], "sidecar-drill", "passed")
    assert {key: each for key, each in scene.store.objects.items() if key.endswith(SLOTS)} == before
    assert (await scene.placed.tags(keys[0])) == {"sidecar-drill": "passed"}


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
