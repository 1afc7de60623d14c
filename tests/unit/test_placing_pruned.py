"""Pruning and listing restore points that are placed for rules by prefix."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from sidecar.errors import StoreUnavailable
from sidecar.model import Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.inventory import describe
from sidecar.repository.keys import key_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.pruning import pruner_of
from sidecar.storage import Expired
from tests.fakes import MemoryStore
from tests.harness.placing import (
    BIG,
    BY_PREFIX,
    KEEP,
    NAME,
    SMALL,
    Scene,
    require_kept,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def scene() -> Scene:
    return Scene()


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
