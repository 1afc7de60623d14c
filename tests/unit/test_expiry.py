"""The restore points before the newest: tagged oldest first, held when a snapshot is suspicious, also after failures."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.errors import AccessDenied, ConfigurationError, StoreUnavailable
from sidecar.lease.record import KEY, Record
from sidecar.model import Database, FileStamp, Signature, Snapshot, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.keys import key_of
from sidecar.repository.pruning import PRUNE_EVERY
from sidecar.status.model import Status
from sidecar.storage import Expired
from tests.fakes import START, FakeClock, MemoryStore

pytestmark = pytest.mark.anyio

NAME = "app.db"
BIG, SMALL = 1000 << 12, 5 << 12
HELD = {"sidecar-tier": "held"}
RECENT = {"sidecar-tier": "recent"}
STAMP = Signature(FileStamp(1, 1, 1), None, racy=False)


class Pruning(MemoryStore):
    """A store whose expired objects are ours to delete."""

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        return tuple(each.key for each in expired if self.objects.pop(each.key, None))


class Scene:
    """A store with restore points, and the daemon that makes them; `restart` is a new daemon."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.clock = FakeClock()
        self.status = Status((Database(NAME, Path("/app.db")),), "", "0", self.clock.now)
        self.catalog = Catalog(self.store)
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not in the store."""
        prunable = self.store if isinstance(self.store, Pruning) else None
        self.expiry = expiry_of(NAME, self.catalog, self.status, self.clock, RetentionDays(), prunable)

    def at(self, text: str) -> None:
        """Set the store's clock: `21T15:05` is of November 2026."""
        self.store.time = datetime.fromisoformat(f"2026-11-{text}:00+00:00")

    async def publish(
        self,
        at: str,
        size: int = BIG,
        tables: int = 3,
        *,
        live: int | None = None,
        older: bool = False,
        settle: bool = True,
    ) -> str:
        """A cycle that publishes a database of this size, of which `live` bytes are in use; `older` does not write that down."""
        self.at(at)
        used = size if live is None else live
        snapshot = Snapshot(Path("/x"), size, used, 4096, tables, STAMP, "3", on_tmpfs=True)
        await self.expiry.hold_before(snapshot)
        key = key_of(NAME, Timestamp.of(self.store.time))
        metadata = {"size": str(size), "tables": str(tables)} | ({} if older else {"live": str(used)})
        self.expiry.add(self.store.add(key, b"x", metadata), snapshot)
        if settle:
            await self.expiry.tag_and_prune()
        if older:
            self.restart()
        return key

    def tiers(self) -> list[str]:
        """The tier of every restore point, oldest first."""
        return [self.store.marks.get(key, {}).get("sidecar-tier", "-") for key in sorted(self.store.objects)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_each_gets_its_tier_when_a_newer_one_exists(scene: Scene) -> None:
    """The last of a day is daily, of an hour hourly; the newest has no tag."""
    for at in ("20T14:50", "20T14:55", "20T15:00", "20T15:05", "21T00:01", "21T00:02", "25T09:00"):
        await scene.publish(at)
    assert scene.tiers() == ["recent", "hourly", "recent", "daily", "recent", "daily", "-"]


async def test_what_others_published_meanwhile_is_superseded_too(scene: Scene) -> None:
    """Two machines without a lease: each sees the restore points of the other."""
    await scene.publish("20T14:50")
    scene.store.add(key_of(NAME, Timestamp("20261120T145200.000Z")))
    scene.store.add(key_of(NAME, Timestamp("20261120T145300.000Z")))
    await scene.publish("20T15:00")
    assert scene.tiers() == ["recent", "recent", "hourly", "-"]


async def test_what_a_fenced_machine_published_supersedes_nothing(scene: Scene) -> None:
    """It came late and is not on the main line, whose newest one has no tag and is the one to hold."""
    real = await scene.publish("20T14:50")
    record = Record(8, "us", "boot", 120.0, latest={NAME: real}, settled={NAME: 8})
    scene.store.add(KEY, record.to_bytes())
    scene.store.add(real, b"x", {"size": str(BIG), "tables": "3", "epoch": "8"})
    straggler = key_of(NAME, Timestamp("20261120T145200.000Z"))
    scene.store.add(straggler, b"x", {"size": "4096", "tables": "1", "epoch": "7"})
    snapshot = Snapshot(Path("/x"), SMALL, SMALL, 4096, 1, STAMP, "3", on_tmpfs=True)
    await scene.expiry.hold_before(snapshot)  # whose publish then fails
    await scene.expiry.tag_and_prune()
    assert (scene.store.marks.get(real), scene.store.marks.get(straggler)) == (HELD, None)


@pytest.mark.parametrize("size", [BIG, SMALL])
async def test_newest_that_was_deleted_by_hand_blocks_nothing(scene: Scene, size: int) -> None:
    """The lease still names it; the one before it is the one to protect."""
    first = await scene.publish("20T14:50")
    gone = await scene.publish("20T14:55")
    scene.store.add(KEY, Record(8, "us", "boot", 120.0, latest={NAME: gone}).to_bytes())
    del scene.store.objects[gone]
    scene.restart()
    await scene.expiry.tag_and_prune()
    assert scene.store.marks[first] == {}, "it is the newest now, and had a tier"
    await scene.publish("20T15:00", size)
    assert scene.store.marks[first] == {"sidecar-tier": "held" if size == SMALL else "hourly"}


async def test_crash_between_publish_and_tag_is_made_up_for(scene: Scene) -> None:
    """By the next daemon, as soon as it runs, also when it publishes nothing."""
    await scene.publish("20T14:50")
    await scene.publish("20T14:55", settle=False)
    scene.restart()
    await scene.expiry.tag_and_prune()
    assert scene.tiers() == ["recent", "-"]
    for _ in range(3):  # and a crash loop
        scene.restart()
        await scene.publish(f"20T15:0{_}", settle=False)
    scene.restart()
    await scene.publish("20T15:10")
    assert scene.tiers() == ["recent", "hourly", "recent", "recent", "recent", "-"]


async def test_missed_tags_are_made_up_for_oldest_first(scene: Scene) -> None:
    """Else a crash halfway could leave one untagged below one with a tier, where the look back would not find it."""
    for minute in range(5):
        await scene.publish(f"20T14:5{minute}", settle=False)
        scene.restart()
    tags = 0

    def crash(operation: str, _key: str) -> None:
        nonlocal tags
        tags += operation == "tag"
        if tags > 2:
            raise StoreUnavailable("down")

    scene.store.hook = crash
    await scene.publish("20T14:55")
    assert scene.tiers() == ["recent", "recent", "-", "-", "-", "-"]
    scene.store.hook = None
    scene.restart()
    await scene.expiry.tag_and_prune()
    assert scene.tiers() == ["recent"] * 5 + ["-"]


async def test_looking_back_ends_at_the_first_that_has_a_tier(scene: Scene) -> None:
    for minute in range(50):
        await scene.publish(f"20T14:{minute:02}")
    scene.restart()
    before = scene.store.count()
    await scene.expiry.tag_and_prune()
    assert scene.store.count() - before <= 8
    await scene.expiry.tag_and_prune()
    assert scene.store.count() - before <= 8, "once"


async def test_app_that_slept_for_months_keeps_its_only_predecessor(scene: Scene) -> None:
    await scene.publish("01T14:50")
    await scene.publish("20T14:50", settle=False)
    scene.restart()
    scene.at("21T00:00")
    await scene.expiry.tag_and_prune()
    assert scene.tiers() == ["daily", "-"]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), AccessDenied("no")])
async def test_failed_tag_is_made_up_for_at_the_next_publish(scene: Scene, error: StoreUnavailable) -> None:
    await scene.publish("20T14:50")
    scene.store.fail("tag", error, times=2)
    await scene.publish("20T14:55")
    await scene.publish("20T15:05")
    assert scene.tiers() == ["-", "hourly", "-"], "one that fails again does not block the others"
    assert scene.status.databases[NAME].untagged == 1
    await scene.publish("20T15:06")
    assert scene.tiers() == ["recent", "hourly", "recent", "-"]
    assert scene.status.databases[NAME].untagged == 0


async def test_restore_point_that_is_gone_does_not_block_the_others(scene: Scene) -> None:
    gone = await scene.publish("20T14:50")
    del scene.store.objects[gone]
    for at in ("20T14:55", "20T15:05"):
        await scene.publish(at)
    assert scene.tiers() == ["hourly", "-"]


async def test_store_without_tags_is_no_obstacle(scene: Scene) -> None:
    """No rule on tags expires anything there: an untagged restore point is as safe as a held one."""
    scene.store.fail("tag", ConfigurationError("501"), times=100)
    scene.store.fail("tags", ConfigurationError("501"), times=100)
    await scene.publish("20T14:50")
    await scene.publish("20T14:55", SMALL)
    assert (scene.tiers(), scene.status.databases[NAME].suspicious) == (["-", "-"], 1)


async def test_tags_of_others_are_kept(scene: Scene) -> None:
    key = await scene.publish("20T14:50")
    scene.store.marks[key] = {"cost-center": "7"}
    await scene.publish("20T14:55")
    assert scene.store.marks[key] == {"cost-center": "7", **RECENT}


async def test_hold_by_hand_is_never_overwritten(scene: Scene) -> None:
    key = await scene.publish("20T14:50")
    scene.store.marks[key] = HELD
    await scene.publish("20T14:55")
    assert scene.tiers() == ["held", "-"]


async def test_machine_that_may_not_read_tags_tags_only_its_own(scene: Scene) -> None:
    """Others may be held. Those without a tier never expire, which is safe."""
    scene.store.fail("tags", AccessDenied("no"), times=1000)
    theirs = await scene.publish("20T14:50")
    scene.store.marks[theirs] = HELD
    scene.restart()
    for at in ("20T14:55", "20T15:05", "20T15:06"):
        await scene.publish(at)
    assert scene.tiers() == ["held", "hourly", "recent", "-"]


async def test_machine_that_may_not_read_tags_remembers_its_holds(scene: Scene) -> None:
    scene.store.fail("tags", AccessDenied("no"), times=1000)
    await scene.publish("20T14:50")
    await scene.publish("20T14:55", SMALL)
    await scene.publish("20T14:56", SMALL)
    assert scene.tiers() == ["held", "recent", "-"]


async def test_newest_that_would_expire_is_saved(scene: Scene) -> None:
    """Somebody deleted a newer one; an idle app would be left with nothing."""
    key = await scene.publish("20T14:50")
    newest = await scene.publish("20T14:55")
    scene.store.marks[key] = {"cost-center": "7", **RECENT}
    del scene.store.objects[newest]
    scene.restart()
    await scene.expiry.tag_and_prune()
    assert scene.store.marks[key] == {"cost-center": "7"}
    scene.restart()
    scene.store.marks[key] = HELD
    await scene.expiry.tag_and_prune()
    assert scene.store.marks[key] == HELD


LOST = [(BIG // 11, 3), (SMALL, 3), (BIG, 0), (4096, 0)]


@pytest.mark.parametrize(("size", "tables"), LOST)
@pytest.mark.parametrize("restarted", [False, True])
async def test_suspicious_snapshot_has_its_predecessor_held(
    scene: Scene, size: int, tables: int, restarted: bool
) -> None:
    """Even one of another machine. It is counted and reported once, and no later tier replaces the hold."""
    key = await scene.publish("20T14:50")
    if restarted:
        scene.restart()
    await scene.publish("20T14:55", size, tables)
    assert scene.tiers() == ["held", "-"]
    database = scene.status.databases[NAME]
    assert (database.suspicious, database.backups) == (1, {})
    (problem,) = scene.status.problems
    assert key in problem.message
    assert key in problem.hint
    await scene.publish("20T15:00", size, tables)
    assert scene.tiers() == ["held", "hourly", "-"]
    assert database.suspicious == 1


@pytest.mark.parametrize("size", [BIG // 10, BIG, 50 * BIG])
async def test_ordinary_snapshot_holds_nothing(scene: Scene, size: int) -> None:
    await scene.publish("20T14:50")
    await scene.publish("20T14:55", size)
    assert (scene.tiers(), scene.status.databases[NAME].suspicious) == (["recent", "-"], 0)


async def test_lost_database_that_grows_again_holds_nothing_more(scene: Scene) -> None:
    await scene.publish("20T14:50")
    for minute, (size, tables) in enumerate([(4096, 0), (4096, 0), (8192, 1), (SMALL, 2), (BIG, 3)]):
        await scene.publish(f"20T14:5{minute + 1}", size, tables)
    assert scene.tiers() == ["held", "recent", "recent", "recent", "recent", "-"]


async def test_two_losses_in_a_row_hold_both(scene: Scene) -> None:
    await scene.publish("20T14:50", 1000 << 12)
    await scene.publish("20T14:51", 50 << 12)
    await scene.publish("20T14:52", 2 << 12)
    await scene.publish("20T14:53", 2 << 12)
    assert scene.tiers() == ["held", "held", "recent", "-"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_rows_deleted_without_vacuum_hold_and_the_vacuum_after_it_nothing_more(
    scene: Scene, restarted: bool
) -> None:
    """The file keeps its size. It is reported once, when the rows go, not again when the file shrinks."""
    await scene.publish("20T14:50")
    for at, size in (("20T14:55", BIG), ("20T15:00", BIG), ("20T15:05", SMALL)):
        if restarted:
            scene.restart()
        await scene.publish(at, size, live=SMALL)
    assert scene.tiers() == ["held", "hourly", "recent", "-"]
    assert scene.status.databases[NAME].suspicious == 1
    assert "in use" in scene.status.problems[-1].message


async def test_vacuum_of_unused_pages_is_no_loss(scene: Scene) -> None:
    await scene.publish("20T14:50", BIG, live=SMALL)
    await scene.publish("20T14:55", SMALL, live=SMALL)
    assert scene.tiers() == ["recent", "-"]


async def test_restore_point_of_an_older_sidecar_is_compared_by_size(scene: Scene) -> None:
    """Its unused pages are not known: an update must not look like a loss, and a loss must still be noticed."""
    await scene.publish("20T14:50", BIG, live=SMALL, older=True)
    await scene.publish("20T14:55", BIG, live=SMALL)
    assert scene.tiers() == ["recent", "-"]
    await scene.publish("20T15:00", BIG, older=True)
    await scene.publish("20T15:05", SMALL)
    assert scene.tiers() == ["recent", "hourly", "held", "-"]


async def test_rows_deleted_bit_by_bit_hold_the_one_that_has_most_of_them(scene: Scene) -> None:
    """No single step is suspicious; when the last one is noticed, the one before it has hardly anything left."""
    most = await scene.publish("20T14:50", live=BIG)
    for minute, parts in enumerate((2, 4, 8, 9), 51):
        await scene.publish(f"20T14:{minute}", live=BIG // parts)
    assert scene.status.databases[NAME].suspicious == 0
    await scene.publish("20T14:56", live=4096)
    assert scene.tiers() == ["held", "recent", "recent", "recent", "held", "-"]
    (problem,) = scene.status.problems
    assert f"restore --key {most}" not in problem.hint.split(", or ")[0]
    assert f"--key {most}" in problem.hint
    assert most in problem.message


async def test_rows_deleted_so_slowly_that_no_step_is_noticed_hold_the_one_that_has_most_once(scene: Scene) -> None:
    """However slowly a database is emptied, it does not push the real one out of the store."""
    most = await scene.publish("20T14:00", live=BIG)
    left = BIG
    for minute in range(1, 20):
        left = left * 4 // 5
        await scene.publish(f"20T14:{minute:02}", live=left)
    assert left * 50 < BIG
    assert [tier for tier in scene.tiers() if tier == "held"] == ["held"]
    assert scene.tiers()[0] == "held"
    assert scene.status.databases[NAME].suspicious == 1
    (problem,) = scene.status.problems
    assert f"restore --key {most}" in problem.hint


async def test_after_a_loss_that_was_noticed_its_rest_is_no_second_one(scene: Scene) -> None:
    """Later small snapshots are normal; another loss is another alarm."""
    await scene.publish("20T14:50", live=BIG)
    await scene.publish("20T14:51", live=BIG // 2)
    for minute in range(52, 59):
        await scene.publish(f"20T14:{minute}", live=BIG // 30)
    assert scene.status.databases[NAME].suspicious == 1
    await scene.publish("20T14:59", live=BIG // 400)
    assert scene.status.databases[NAME].suspicious == 2


@pytest.mark.parametrize(("at", "tier"), [("21T14:49", "held"), ("21T14:51", "daily")])
async def test_the_largest_of_the_last_day_is_held_and_none_from_before(scene: Scene, at: str, tier: str) -> None:
    await scene.publish("20T14:50", live=BIG)
    await scene.publish("20T14:55", live=BIG // 5)
    await scene.publish(at, live=BIG // 9)
    await scene.publish("21T14:55", live=4096)
    assert scene.tiers()[0] == ("held" if tier == "held" else "recent")


async def test_when_the_largest_is_gone_the_next_largest_is_held(scene: Scene) -> None:
    gone = await scene.publish("20T14:50", live=BIG)
    await scene.publish("20T14:51", live=BIG // 2)
    await scene.publish("20T14:52", live=BIG // 9)
    del scene.store.objects[gone]
    await scene.publish("20T14:53", live=4096)
    assert scene.tiers() == ["held", "held", "-"]


async def test_without_the_hold_of_the_largest_nothing_is_published(scene: Scene) -> None:
    most = await scene.publish("20T14:50", live=BIG)
    await scene.publish("20T14:55", live=BIG // 5)

    def refuse(operation: str, key: str) -> None:
        if (operation, key) == ("tag", most):
            raise StoreUnavailable("down")

    scene.store.hook = refuse
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await scene.publish("20T15:00", live=4096)
    scene.store.hook = None
    await scene.publish("20T15:05", live=4096)
    assert scene.tiers() == ["held", "held", "-"]


async def test_it_is_held_before_the_new_one_exists(scene: Scene) -> None:
    """At no instant is the emptied database the newest while the real one is free to expire."""
    await scene.publish("20T14:50")
    await scene.publish("20T14:55", SMALL, settle=False)
    assert scene.tiers() == ["held", "-"]
    scene.restart()  # a crash before anything is tagged: what the first daemon knew is forgotten
    await scene.publish("20T15:00", SMALL)
    assert scene.tiers() == ["held", "hourly", "-"]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), AccessDenied("no")])
async def test_without_the_hold_nothing_is_published(scene: Scene, error: StoreUnavailable) -> None:
    await scene.publish("20T14:50")
    scene.store.fail("tag", error)
    with pytest.raises(type(error)):
        await scene.publish("20T14:55", SMALL)
    assert (len(scene.store.objects), scene.status.databases[NAME].suspicious) == (1, 0)
    await scene.publish("20T14:56", SMALL)
    assert (scene.tiers(), scene.status.databases[NAME].suspicious) == (["held", "-"], 1)


async def test_predecessor_that_was_deleted_meanwhile_is_looked_up_anew(scene: Scene) -> None:
    """The next attempt holds the one that is the newest now, instead of failing for ever."""
    first = await scene.publish("20T14:50")
    gone = await scene.publish("20T14:55")
    del scene.store.objects[gone]
    with pytest.raises(StoreUnavailable):
        await scene.publish("20T14:56", SMALL)
    await scene.publish("20T14:57", SMALL)
    assert scene.store.marks[first] == HELD


@pytest.mark.parametrize(
    ("stored", "size", "held"), [(400_000, SMALL, True), (400_000, 1 << 20, False), (5, 4096, False)]
)
async def test_predecessor_without_our_metadata_counts_by_its_own_size(
    scene: Scene, stored: int, size: int, held: bool
) -> None:
    """Copied there by hand: a database is hardly ever smaller than its compressed form."""
    scene.store.add(key_of(NAME, Timestamp("20261120T145200.000Z")), bytes(stored), {"size": "many", "tables": "-1"})
    await scene.publish("20T15:00", size)
    assert scene.tiers() == ["held" if held else "hourly", "-"]


@pytest.fixture
def pruning() -> Scene:
    return Scene(Pruning())


async def test_expired_restore_points_of_a_directory_are_deleted(pruning: Scene) -> None:
    """By the same tiers; held ones, those without a tier, other databases and diverged states stay."""
    others = [
        key_of("other.db", Timestamp.of(START)),
        "diverged/app.db/20260101T000000.000Z-x.sqlite3.zst",
        "app.db/note",
    ]
    for key in others:
        pruning.store.add(key)
        pruning.store.marks[key] = RECENT
    for at in ("01T14:50", "01T14:55", "01T15:00", "02T10:00"):
        await pruning.publish(at)
    kept = await pruning.publish("02T11:00")
    pruning.store.marks[kept] = HELD
    for day in range(3, 30):
        pruning.clock.advance(86400)
        newest = await pruning.publish(f"{day:02}T10:00")
        assert newest in pruning.store.objects
    tiers = dict(zip(sorted(pruning.store.objects), pruning.tiers(), strict=True))
    assert tiers.pop(kept) == "held"
    for key in others:
        assert tiers.pop(key) == "recent"
    assert list(tiers.values()) == ["daily"] * 27 + ["-"], "one a day: the last of each"


async def test_directory_is_pruned_once_an_hour(pruning: Scene) -> None:
    """Pruning reads every file."""
    for minutes in range(0, 130, 10):
        await pruning.publish(f"20T{10 + minutes // 60}:{minutes % 60:02}")
        pruning.clock.advance(600)
    assert pruning.store.requests.count(("list", "stream/app.db/")) == 3, "at 10, 11 and 12 o'clock"


async def test_clock_that_jumps_prunes_nothing(pruning: Scene) -> None:
    await pruning.publish("01T14:50")
    for minute in range(51, 56):
        await pruning.publish(f"01T14:{minute}")
    pruning.clock.advance(2 * PRUNE_EVERY)
    await pruning.publish("06T14:50")  # five days by the store's clock
    assert len(pruning.store.objects) == 7
    pruning.clock.advance(2 * PRUNE_EVERY)
    pruning.store.time += timedelta(seconds=2 * PRUNE_EVERY)
    await pruning.expiry.tag_and_prune()
    assert len(pruning.store.objects) == 3, "it has gone on steadily since"


async def test_a_queue_that_is_drained_again_and_again_is_reported_once_a_day() -> None:
    """A loss like the reported one is not reported or held again, until a day has passed."""
    scene = Scene()
    keys = []
    for hour in range(0, 20, 2):
        keys.append(await scene.publish(f"21T{hour:02}:05"))
        scene.clock.advance(3600)
        await scene.publish(f"21T{hour + 1:02}:05", SMALL)
        scene.clock.advance(3600)
    assert [scene.store.marks[key] == HELD for key in keys] == [True] + [False] * 9
    assert scene.status.databases[NAME].suspicious == 1
    scene.clock.advance(6 * 3600)
    again = await scene.publish("22T05:05")
    await scene.publish("22T06:05", SMALL)
    assert scene.store.marks[again] == HELD
    assert scene.status.databases[NAME].suspicious == 2


async def test_a_loss_that_leaves_less_than_a_drained_queue_is_reported() -> None:
    """The drained queue was never that empty."""
    scene = Scene()
    await scene.publish("21T10:05")
    await scene.publish("21T11:05", SMALL)
    full = await scene.publish("21T12:05")
    await scene.publish("21T13:05", 1 << 12, 1)
    assert scene.store.marks[full] == HELD
    assert scene.status.databases[NAME].suspicious == 2


async def test_a_loss_whose_hold_failed_does_not_count_as_reported() -> None:
    """Else the next cycle would publish it without a hold."""
    scene = Scene()
    full = await scene.publish("21T10:05")
    scene.store.fail("tag", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await scene.publish("21T11:05", SMALL)
    await scene.publish("21T12:05", SMALL)
    assert scene.store.marks[full] == HELD


async def test_a_large_loss_after_a_small_one_is_held_too() -> None:
    """The reported one was much smaller."""
    scene = Scene()
    await scene.publish("21T10:05", 100 << 12)
    await scene.publish("21T11:05", SMALL)
    full = await scene.publish("21T12:05", BIG)
    await scene.publish("21T13:05", SMALL)
    assert scene.store.marks[full] == HELD
    assert scene.status.databases[NAME].suspicious == 2
