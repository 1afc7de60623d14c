"""When drills happen, and how they hold back: virtual time, a store in memory, a backup that is only listened to."""

import os
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from sidecar.backup import Repository, build_backup
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database.base import YieldToApp
from sidecar.database.findings import CheckReport
from sidecar.database.lineage import Lineage
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import AccessDenied, StoreUnavailable
from sidecar.lease.disabled import NoLease
from sidecar.model import Database, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.drill_tag import Drilled, DrillOutcome, drilled_of, last_drill
from sidecar.repository.keys import key_of
from sidecar.repository.reader import Reader
from sidecar.repository.writer import Publisher, PublisherIdentity
from sidecar.restore.drill import Drill
from sidecar.restore.proof import Prover, Throttle
from sidecar.status.model import Status
from tests.fakes import START, FakeClock, MemoryStore
from tests.properties.restore_points import encode

pytestmark = pytest.mark.anyio

NAME = "app.db"
DAY = timedelta(hours=24)
DATABASE = os.urandom(3000)


class Checker:
    """Implements `base.IntegrityCheck`: there is no database here, and SQLite has these findings."""

    def __init__(self) -> None:
        self.unreadable = ""
        self.findings: tuple[str, ...] = ()
        self.during: Callable[[], None] = lambda: None

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> CheckReport:
        assert (mode, path.stat().st_mode & 0o777) == ("full", 0o600)
        assert yield_to_app
        self.during()
        return CheckReport.of(mode, self.findings, self.unreadable)

    async def unreadable_live(self, path: Path, yield_to_app: YieldToApp | None = None) -> str:
        return self.unreadable


class Scene:
    """A store, a clock, and the drills of one database."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore(time=START)
        self.clock = FakeClock()
        database = Database(NAME, directory / NAME)
        self.status = Status((database,), "", "0", self.clock.now)
        self.catalog = Catalog(self.store)
        self.checker = Checker()
        reader = Reader(self.store, self.checker, concurrency=1, integrity="full")
        publisher = Publisher(self.store, PublisherIdentity("holder", "0"))
        self.turns = ConcurrencyLimit(2)
        self.backup = build_backup(
            database,
            Lineage(database.path, "", durable=False),
            Repository(self.catalog, publisher, reader, RetentionDays()),
            SqliteSnapshotter(Staging(directory)),  # there is no database to copy
            self.status,
            self.clock,
            NoLease(self.store),
            self.turns,
        )
        prover = Prover(reader, Staging(directory), database, "drill")
        self.drill = Drill(
            NAME,
            self.catalog,
            prover,
            Throttle(self.turns, self.clock, anyio.Lock()),
            self.status,
            self.clock,
            self.backup,
            self.backup.cycle.mark,
        )

    def publish(self, at: str) -> str:
        """A good restore point."""
        timestamp = Timestamp(f"20261120T{at}.000Z")
        key = key_of(NAME, timestamp)
        self.store.add(key, encode(DATABASE, timestamp=str(timestamp)).object)
        return key

    async def until(self, drills: int, interval: timedelta = DAY) -> list[float]:
        """The hours, on the clock, at which this many drills had ended."""
        ended: list[float] = []
        async with anyio.create_task_group() as group:
            original = self.drill.drill

            async def counted() -> DrillOutcome | None:
                verdict = await original()
                ended.append(self.clock.elapsed / 3600)
                self.store.time = START + timedelta(seconds=self.clock.elapsed)
                if len(ended) == drills:
                    group.cancel_scope.cancel()
                return verdict

            self.drill.drill = counted  # type: ignore[method-assign]
            group.start_soon(self.drill.run, interval)
        return ended


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_first_drill_is_soon_then_one_a_day(scene: Scene) -> None:
    scene.publish("120000")
    ended = await scene.until(4)
    assert ended == pytest.approx([1 / 6, 24 + 1 / 6, 48 + 1 / 6, 72 + 1 / 6], rel=0.01)


@pytest.mark.parametrize("randomness", [0.0, 0.999])
async def test_drills_are_jittered(tmp_path: Path, randomness: float) -> None:
    """A fleet that is deployed at once does not drill at once."""
    scene = Scene(tmp_path)
    scene.clock.randomness = randomness
    scene.publish("120000")
    first, second = await scene.until(2)
    assert first == pytest.approx((0.5 + randomness) / 6, rel=0.01)
    assert second - first == pytest.approx(24 * (0.9 + 0.2 * randomness), rel=0.01)


async def test_restart_goes_on_from_the_drill_before(scene: Scene) -> None:
    """Of whichever machine: an app that is deployed every hour is drilled once a day all the same, not at every boot."""
    drilled = scene.publish("080000")
    scene.publish("120000")
    scene.store.marks[drilled] = {"sidecar-tier": "hourly", "sidecar-drill": "good@20261120T085503.123Z"}
    ended = await scene.until(1)
    assert ended == pytest.approx([18.0], rel=0.01)


async def test_restart_shows_what_was_proven_before(scene: Scene) -> None:
    drilled = scene.publish("080000")
    scene.store.marks[drilled] = {"sidecar-drill": "good@20261120T085503.123Z"}
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            group.cancel_scope.cancel()

        scene.drill.drill = stop  # type: ignore[method-assign]
        group.start_soon(scene.drill.run, DAY)
    status = scene.status.databases[NAME]
    assert (status.proven, status.drill_outcome) == (drilled, None)
    assert status.last_drill == Timestamp("20261120T085503.123Z").instant


@pytest.mark.parametrize("tag", ["damaged@20261120T085503.123Z", "nonsense", "good@yesterday"])
async def test_anything_but_a_good_drill_is_repeated_soon(scene: Scene, tag: str) -> None:
    scene.store.marks[scene.publish("080000")] = {"sidecar-drill": tag}
    assert await scene.until(1) == pytest.approx([1 / 6], rel=0.01)


async def test_without_the_right_to_read_tags_every_boot_drills(scene: Scene) -> None:
    """And none is written: those that are there would be gone."""
    key = scene.publish("080000")
    scene.store.marks[key] = {"sidecar-drill": "good@20261120T085503.123Z", "mine": "1"}
    scene.store.fail("tags", AccessDenied("no"), times=100)
    assert await scene.until(1) == pytest.approx([1 / 6], rel=0.01)
    assert scene.store.marks[key] == {"sidecar-drill": "good@20261120T085503.123Z", "mine": "1"}
    assert scene.status.databases[NAME].drills["good"] == 1


async def test_failed_drills_are_repeated_ever_later(scene: Scene) -> None:
    """A store that is down proves nothing: no damage, no new restore point, another try in minutes, then hours."""
    scene.publish("120000")
    scene.store.fail("get", StoreUnavailable("down"), times=1000)
    ended = await scene.until(12)
    waits = [round((later - earlier) * 60) for earlier, later in pairwise(ended)]
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440, 1440]
    status = scene.status.databases[NAME]
    assert (status.drills["failed"], status.drills["damaged"], status.drill_error) == (12, 0, "down")
    assert scene.store.count("put", "tag") == 0


async def test_every_drill_is_reported(scene: Scene) -> None:
    key = scene.publish("120000")
    assert await scene.drill.drill() is DrillOutcome.GOOD
    assert drilled_of(scene.store.marks[key]) == Drilled(DrillOutcome.GOOD, Timestamp.of(START))
    scene.checker.unreadable = "table t cannot be read"
    assert await scene.drill.drill() is DrillOutcome.DAMAGED
    assert drilled_of(scene.store.marks[key]) == Drilled(DrillOutcome.DAMAGED, Timestamp.of(START))
    assert any("table t cannot be read" in each.message for each in scene.status.problems)


async def test_drill_with_findings_is_good_and_tells_them(scene: Scene) -> None:
    """No whole restore point takes its place: this one is whole, and the next would have the same findings."""
    key = scene.publish("120000")
    scene.checker.findings = ("NULL value in t.b", "row 7 missing from index")
    assert await scene.drill.drill() is DrillOutcome.GOOD
    assert drilled_of(scene.store.marks[key]) == Drilled(DrillOutcome.GOOD, Timestamp.of(START))
    status = scene.status.databases[NAME]
    assert (status.findings, status.proven) == (scene.checker.findings, key)
    assert [(each.kind, each.message) for each in scene.status.problems] == [
        ("finding", "SQLite's check has a finding: NULL value in t.b (and 1 more)")
    ]
    scene.checker.findings = ()
    assert await scene.drill.drill() is DrillOutcome.GOOD
    assert (status.findings, list(scene.status.problems)) == ((), [])


async def test_bug_in_a_drill_is_a_failed_drill(scene: Scene) -> None:
    scene.publish("120000")
    scene.checker.during = lambda: 1 // 0  # type: ignore[assignment]
    assert await scene.drill.drill() is DrillOutcome.FAILED
    assert "ZeroDivisionError" in (scene.status.databases[NAME].drill_error or "")


async def test_no_drill_beside_a_backup(scene: Scene) -> None:
    """It waits for the cycle to end before it asks the store for anything; a cycle that begins makes it wait again."""
    scene.publish("120000")
    async with anyio.create_task_group() as group, scene.turns:
        group.start_soon(scene.drill.drill)
        await anyio.wait_all_tasks_blocked()
        assert scene.store.requests == []
    assert scene.status.databases[NAME].drills["good"] == 1
    paced = []

    async def limit_rate() -> None:
        await Throttle(scene.turns, scene.clock, anyio.Lock()).options(1).limit_rate(1)
        paced.append(True)

    async with anyio.create_task_group() as group, scene.turns:
        group.start_soon(limit_rate)
        await anyio.wait_all_tasks_blocked()
        assert not paced
    assert paced


async def test_ranges_come_at_a_bounded_rate(scene: Scene) -> None:
    """Whoever asks: a hundred megabytes take at least as long as the rate says."""
    limit_rate = Throttle(scene.turns, scene.clock, anyio.Lock()).options(2 << 20).limit_rate

    async def range_of_4_mib() -> None:
        await limit_rate(4 << 20)

    async with anyio.create_task_group() as group:
        for _ in range(25):
            group.start_soon(range_of_4_mib)
    assert scene.clock.elapsed >= 48


async def test_check_works_a_quarter_of_the_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLite worked since the last pause is rested three times."""
    now, slept = [100.0], []

    def sleep(seconds: float) -> bool:
        slept.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr("sidecar.restore.proof.time.monotonic", lambda: now[0])
    yield_to_app = Throttle(scene.turns, scene.clock, anyio.Lock()).options(1).yield_to_app
    assert yield_to_app
    for _ in range(10):
        now[0] += 0.005
        yield_to_app(sleep)
    assert slept == pytest.approx([0.015] * 10)


async def test_last_drill_is_found_among_many(scene: Scene) -> None:
    """In one request for each of the restore points of the interval at most."""
    keys = [scene.publish(f"{hour:02d}{minute:02d}00") for hour in range(12) for minute in range(0, 60, 5)]
    scene.store.marks[keys[17]] = {"sidecar-drill": "good@20261120T090000.000Z"}
    scene.store.marks[keys[3]] = {"sidecar-drill": "damaged@20261120T070000.000Z"}
    newest = await scene.catalog.newest(NAME)
    assert newest
    found = await last_drill(scene.catalog, newest, DAY)
    assert found
    assert (found[0].key, found[1].outcome) == (keys[17], DrillOutcome.GOOD)
    assert scene.store.count("tags") == len(keys)
