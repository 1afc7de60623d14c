"""Restore points in a store whose rules select by prefix: always the newest and the held ones, whatever happens when."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from sidecar.errors import AccessDenied, NotFound, StoreUnavailable, UnsupportedRestorePoint
from sidecar.model import Database, FileStamp, IfAbsent, ObjectInfo, Signature, Snapshot, Span, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.keys import key_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.places import SLOTS
from sidecar.status.model import Status
from sidecar.storage import Retrying, RetryPolicy, Traits
from tests.fakes import FakeClock, MemoryStore
from tests.harness.lifecycle import apply_rules

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NAME = "app.db"
BIG, SMALL = 1000 << 12, 5 << 12
STAMP = Signature(FileStamp(1, 1, 1), None, racy=False)
BY_PREFIX = Traits("by prefix", minimum_part=1, tag_rules=False)
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process ends between two requests."""


class Paused(MemoryStore):
    """Once, before a copy to a slot, something else happens first: the process that copies was paused."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        """See `MemoryStore`."""
        if operation == "copy" and key.endswith(SLOTS) and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().request(operation, key, work)


class Scene:
    """A store with rules by prefix, and the daemon that publishes to it; `restart` is a new daemon.

    Without `patience` no request is tried again, which is twice as fast.
    """

    def __init__(self, store: MemoryStore | None = None, *, patience: bool = True) -> None:
        self.store = store or MemoryStore(traits=BY_PREFIX)
        self.patience = patience
        self.published: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not in the store."""
        clock = FakeClock()
        self.placed = PlacedStore(Retrying(self.store, clock, RetryPolicy(5.0)) if self.patience else self.store)
        self.catalog = Catalog(self.placed)
        status = Status((Database(NAME, Path("/app.db")),), "", "0", clock.now)
        self.expiry = expiry_of(NAME, self.catalog, status, clock, RetentionDays())

    def pass_time(self, time: timedelta) -> None:
        """Let time pass, and the rules act each day."""
        end = self.store.time + time
        while self.store.time < end:
            self.store.time = min(end, self.store.time + DAY)
            apply_rules(self.store)

    async def publish(self, at: str = "", size: int = BIG, *, settle: bool = True) -> str:
        """A cycle that publishes, `at` a time of November 2026 like `21T15:05`, or now."""
        if at:
            self.store.time = datetime.fromisoformat(f"2026-11-{at}:00+00:00")
        snapshot = Snapshot(Path("/x"), size, size, 4096, 3, STAMP, "3", on_tmpfs=True)
        await self.expiry.hold_before(snapshot)
        stamp = await self.catalog.stamp(NAME, self.store.time, None)
        key = key_of(NAME, stamp)
        metadata = {"size": str(size), "tables": "3", "live": str(size)}
        info = await self.placed.put(key, stamp.text.encode(), condition=IfAbsent(), metadata=metadata)
        self.published.append(key)
        self.expiry.add(info, snapshot)
        if settle:
            await self.expiry.tag_and_prune()
        return key

    async def shown(self) -> list[str]:
        """The keys of all restore points that a new process finds, oldest first, each of which it can read."""
        placed = PlacedStore(self.store)
        keys = [point.key async for point in Catalog(placed).points(NAME)]
        for key in keys:
            await require_readable(placed, key)
        return keys

    def at(self, prefix: str) -> list[str]:
        """The times of the restore points at a place."""
        return [key.rpartition("/")[2][:11] for key in sorted(self.store.objects) if key.startswith(prefix)]


async def require_readable(placed: PlacedStore, key: str) -> None:
    assert bytes((await placed.get(key)).data).decode() in key
    assert (await placed.head(key)).key == key


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


async def test_a_held_one_outlives_all_rules(scene: Scene) -> None:
    await scene.publish("20T14:50", BIG)
    await scene.publish("20T14:51", SMALL)
    for minute in range(52, 60):
        await scene.publish(f"20T14:{minute}", SMALL)
    scene.pass_time(timedelta(days=400))
    assert await scene.shown() == [scene.published[0], *scene.published[-2:]]
    assert (await PlacedStore(scene.store).tags(scene.published[0]))["sidecar-tier"] == "held"


async def test_the_store_does_not_grow_while_the_app_writes() -> None:
    """90 days, every four hours: what is there is what tags would leave, and no more."""
    scene = Scene(patience=False)
    scene.store.time = datetime.fromisoformat("2026-11-20T00:01:00+00:00")
    for number in range(90 * 6):
        await scene.publish()
        scene.store.time += timedelta(hours=4)
        if number % 6 == 0:
            apply_rules(scene.store)
            newest = await scene.catalog.newest(NAME)
            assert newest
            assert newest.key == scene.published[-1]
    apply_rules(scene.store)
    assert len(scene.at("expiring/recent/")) in range(5, 8)
    assert len(scene.at("expiring/hourly/")) in range(7 * 5 - 1, 7 * 5 + 2)
    assert len(scene.at("expiring/daily/")) in range(34, 37)
    assert len(scene.at("app.db/")) == 2


async def killed_at(number: int, *, sleep: timedelta) -> bool:
    """Some cycles in a store, of which the process is killed before its request of this number. False: it made fewer.

    Then the machine sleeps, and after the restart two more cycles follow.
    """
    scene = Scene(patience=False)
    for at in ("20T13:50", "20T14:50"):
        await scene.publish(at)
    made = 0

    def count(_operation: str, _key: str) -> None:
        nonlocal made
        made += 1
        if made > number:
            raise Killed

    scene.store.hook = count
    try:
        for at, size in (("20T15:10", BIG), ("20T15:15", SMALL), ("21T09:00", SMALL)):
            await scene.publish(at, size)
        return False
    except Killed:
        pass
    scene.store.hook = None
    seen = scene.published.copy()  # those that counted as protected
    scene.pass_time(sleep)
    scene.restart()
    shown = await scene.shown()
    assert seen[-1] in shown, f"killed before request {number}: {shown}"
    await scene.expiry.tag_and_prune()
    for _ in range(2):
        await scene.publish(size=SMALL)
        scene.store.time += timedelta(minutes=5)
    scene.pass_time(timedelta(days=3))
    shown = await scene.shown()
    assert set(shown) >= {scene.published[0], scene.published[1], *scene.published[-2:]}, f"before request {number}"
    if "20261120T1515" in "".join(seen):
        assert scene.at("held/") == ["20261120T15"]
    return True


async def test_a_kill_between_any_two_requests_loses_nothing() -> None:
    """The restart is at once, or almost a day later, by turns."""
    number = 0
    while await killed_at(number, sleep=timedelta(hours=20 * (number % 2))):
        number += 1
    assert number > 40


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


async def test_a_paused_machine_displaces_nothing() -> None:
    """It was paused before its copy, while another machine took over, published once or more, and then sleeps for ever."""
    for publishes in (1, 2, 3):
        scene = Scene(Paused(traits=BY_PREFIX))
        for at in ("20T14:50", "20T14:55"):
            await scene.publish(at)
        other = Scene(scene.store)

        async def take_over(other: Scene = other, publishes: int = publishes) -> None:
            for minute in range(publishes):
                await other.publish(f"20T15:0{minute}")

        assert isinstance(scene.store, Paused)
        scene.store.meanwhile = take_over
        await scene.publish("20T14:59")
        scene.pass_time(timedelta(days=400))
        assert (await scene.shown())[-1] == other.published[-1], f"{publishes} publishes"


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
            scene.expiry = expiry_of(NAME, scene.catalog, status, FakeClock(), RetentionDays())
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
