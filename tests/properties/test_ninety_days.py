"""Ninety days of a busy app, by a store's clock that runs fast: each way of expiring keeps what the others keep."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.errors import Transient
from sidecar.model import Database, FileStamp, Signature, Snapshot, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.holds import FOLDER, Holds
from sidecar.repository.keys import key_of, timestamp_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.pruning import pruner_of
from sidecar.repository.retention import Tagged, Tier
from sidecar.status.bill import kept_at_most
from sidecar.status.model import Status
from sidecar.storage import Expired, ObjectStore, Prunable
from sidecar.storage.file.store import FileStore
from tests.bill.days import DAY, live, take_expired
from tests.fakes import FakeClock, MemoryStore
from tests.harness.lifecycle import apply_rules
from tests.harness.placing import BY_PREFIX

NAME = "app.db"
KEEP = RetentionDays()
START = datetime(2026, 9, 1, tzinfo=UTC)
BIG, SMALL = 1000 << 12, 5 << 12
STAMP = Signature(FileStamp(1, 1, 1), None, racy=False)
# A quiet day, with a busy hour: minutes after midnight.
MINUTES = (10, 200, 215, 220, 225, 259, 600, 601, 700, 1000, 1430)


@pytest.mark.parametrize("keep", [KEEP, RetentionDays(2, 14, 90, 35), RetentionDays(1, 1, 7, 7)], ids=str)
def test_every_five_minutes_each_store_keeps_the_same(keep: RetentionDays) -> None:
    """At the end of each day, give or take one; the newest and held ones always; and as many as the bill says."""
    kept = 0
    for _, stores in live(90, timedelta(minutes=5), keep, START):
        rules, tags, names = (
            {*map(str, each)}
            for each in ([one.key for one in stores.rules], [one.key for one in stores.tags], stores.names)
        )
        assert len(rules ^ tags) <= 1
        assert tags == names
        assert rules >= {str(stores.rules[-1].timestamp), *stores.held}
        assert tags >= {str(stores.tags[-1].timestamp), *stores.held}
        kept = len(rules)
    assert abs(kept - kept_at_most(keep, 300)) <= 3


class Fake(MemoryStore):
    """A store over the network that is pruned; a kill is a reply that never comes."""

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""

        def delete() -> tuple[str, ...]:
            gone = [each for each in expired if self.stored(each.key).info.etag == each.etag]
            for each in gone:
                assert each.tags is None or self.marks.get(each.key, {}) == each.tags
                del self.objects[each.key]
            return tuple(each.key for each in gone)

        return await self.request("prune", "", delete)


class World:
    """A store, the real code that tags, holds and prunes, and a clock that runs fast."""

    def __init__(self, store: ObjectStore, prunable: Prunable | None, *, directory: bool = False) -> None:
        self.store, self.clock = store, FakeClock(START)
        self.view = PlacedStore(store)
        catalog = Catalog(self.view)
        status = Status((Database(NAME, Path("/app.db")),), "", "0", self.clock.now)
        in_cycle = prunable if directory else None
        holds = None if directory else Holds(self.view)
        self.expiry = expiry_of(NAME, catalog, status, self.clock, KEEP, in_cycle, holds)
        self.pruner = pruner_of(catalog, prunable, KEEP, self.clock) if prunable and not directory else None
        self.held: set[str] = set()

    async def publish(self, at: datetime, size: int = BIG) -> str:
        """A cycle; a database that has suddenly become small is suspicious."""
        self.clock.advance((at - self.clock.now()).total_seconds())
        if isinstance(self.store, MemoryStore):
            self.store.time = at
        snapshot = Snapshot(Path("/x"), size, size, 4096, 3, STAMP, "3", on_tmpfs=True)
        await self.expiry.hold_before(snapshot)
        key = key_of(NAME, Timestamp.of(at))
        metadata = {"size": str(size), "tables": "3", "live": str(size)}
        self.expiry.add(await self.view.put(key, b"x", metadata=metadata), snapshot)
        await self.expiry.tag_and_prune()
        return key

    async def points(self) -> list[str]:
        """The keys in the store."""
        return [each.key for each in (await self.view.list(f"{NAME}/")).objects]

    async def prune(self, now: datetime) -> None:
        """What cron does each night; it is killed, or its replies are lost, every third night, and runs again later."""
        if self.pruner is None:
            return
        assert isinstance(self.store, MemoryStore)
        self.store.time = self.clock.wall = now
        night = (now - START).days % 3
        if night == 1:
            self.store.fail("prune")
        if night == 2:
            self.store.lose_reply("prune")
        for _ in range(2):
            with suppress(Transient):
                await self.pruner.carry_out(await self.pruner.planner.plan(NAME))


@pytest.fixture(params=["tags", "names", "directory", "places", "places pruned"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    if request.param == "directory":
        files = FileStore(tmp_path)
        found = World(files, files, directory=True)

        async def now() -> datetime:
            return found.clock.wall

        monkeypatch.setattr(files, "now", now)
        monkeypatch.setattr("sidecar.storage.file.objects.sync", lambda _: None)
        monkeypatch.setattr("sidecar.storage.file.attributes.sync", lambda _: None)
        yield found
        return
    store = Fake(time=START)
    if request.param.startswith("places"):
        store.traits = replace(BY_PREFIX, tags=request.param == "places")
        yield World(store, store if "pruned" in request.param else None)
        return
    store.traits = replace(store.traits, tags=request.param == "tags")
    yield World(store, store)


@pytest.mark.anyio
async def test_the_real_code_keeps_what_rules_of_a_bucket_would(world: World) -> None:
    """With tags, by names, in a directory, and by places, with rules or pruned; a suspicious snapshot on day 20 has what was before it held for ever."""
    bucket = World(MemoryStore(time=START), None)
    days = 45 if world.store.traits.tags and not isinstance(world.store, FileStore) else 25
    for day in range(days):
        for minute in MINUTES:
            at = START + day * DAY + timedelta(minutes=minute)
            size = SMALL if (day, minute) == (20, 600) else BIG
            newest = await world.publish(at, size)
            assert await bucket.publish(at, size) == newest
        night = START + (day + 1) * DAY
        await world.prune(night)
        if isinstance(world.store, Fake) and world.pruner is None:
            world.store.time = night
            apply_rules(world.store)
        _expire_by_rules(bucket, night)
        there, wanted = set(await world.points()), set(await bucket.points())
        # A directory was last pruned at the last publish of the day, and a bucket's rules act at midnight.
        assert len(there ^ wanted) <= (1 if world.pruner else 1 + 2 * len(MINUTES)), (day, there ^ wanted)
        assert newest in there
    held = key_of(NAME, Timestamp.of(START + 20 * DAY + timedelta(minutes=259)))
    assert held in there
    assert len(there) < 120


def _expire_by_rules(bucket: World, night: datetime) -> None:
    store = bucket.store
    assert isinstance(store, MemoryStore)
    tiers = {key: store.marks.get(key, {}).get("sidecar-tier") for key in store.objects if not key.startswith(FOLDER)}
    tagged = [Tagged(key, timestamp_of(key), Tier(tier) if tier else None) for key, tier in tiers.items()]
    left = {each.key for each in take_expired(tagged, night, KEEP)}
    for key in [key for key in tiers if key not in left]:
        del store.objects[key]
