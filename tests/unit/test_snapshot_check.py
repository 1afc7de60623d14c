"""When snapshots are checked, at what price, and what becomes of one that is not what the database is."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.backup import snapshot_check
from sidecar.backup.snapshot_check import SMALL, SnapshotCheck, Unchecked
from sidecar.database.base import YieldToApp
from sidecar.database.findings import CheckReport
from sidecar.errors import SidecarError
from sidecar.model import Database, FileStamp, Signature, Snapshot
from sidecar.status.model import Status
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

BROKEN = "table t cannot be read: database disk image is malformed"


class Checker:
    """Implements `base.IntegrityCheck`: a check takes `seconds` of the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.findings: tuple[str, ...] = ()
        self.unreadable = self.live = ""
        self.checks = self.looks = 0
        self.throttled: list[bool] = []  # of each check and look at the live database
        self.hangs = False

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> CheckReport:
        self.checks += 1
        self.throttled.append(yield_to_app is not None)
        if self.hangs:
            await anyio.sleep_forever()
        self.clock.advance(self.seconds)
        return CheckReport.of(mode, self.findings, self.unreadable)

    async def unreadable_live(self, path: Path, yield_to_app: YieldToApp | None = None) -> str:
        self.looks += 1
        self.throttled.append(yield_to_app is not None)
        return self.live


class Scene:
    def __init__(self, mode: str = "quick") -> None:
        self.clock = FakeClock()
        database = Database("app.db", Path("/data/app.db"))
        self.status = Status((database,), "", "0", self.clock.now)
        self.checker = Checker(self.clock)
        self.check = SnapshotCheck(database, self.checker, mode, self.status, self.clock)

    def snapshot(self, *, on_tmpfs: bool = True, size: int = 1) -> Snapshot:
        signature = Signature(FileStamp(1, 1, 1), None, racy=False)
        return Snapshot(Path("/staged"), size, 1, 4096, 1, signature, "3", on_tmpfs)

    async def report(
        self, *, on_tmpfs: bool = True, last: bool = False, size: int = 1, later: Unchecked | None = None
    ) -> CheckReport | None:
        return await self.check.report(self.snapshot(on_tmpfs=on_tmpfs, size=size), last=last, later=later)


async def test_first_snapshot_is_checked_wherever_it_is_staged() -> None:
    scene = Scene()
    assert await scene.report(on_tmpfs=False) == CheckReport("quick")
    assert await scene.report(on_tmpfs=False) is None
    assert scene.checker.checks == 1


async def test_later_ones_cost_a_hundredth_of_the_time() -> None:
    scene = Scene()
    scene.checker.seconds = 3.0
    await scene.report()
    for _ in range(60):
        scene.clock.advance(10)
        await scene.report()
    assert scene.checker.checks == 1 + 600 // 300


async def test_finding_that_appears_while_the_app_runs_is_told_then() -> None:
    scene = Scene()
    await scene.report()
    scene.checker.findings = ("NULL value in t.b",)
    scene.clock.advance(1)
    assert await scene.report() == CheckReport("quick", ("NULL value in t.b",))
    assert [each.kind for each in scene.status.problems] == ["finding"]


async def test_unchecked_restore_point_carries_what_is_known() -> None:
    scene = Scene()
    scene.checker.findings, scene.checker.seconds = ("NULL value in t.b",), 1.0
    await scene.report()
    assert await scene.report() == CheckReport("none", ("NULL value in t.b",))


async def test_final_backup_is_checked_only_when_that_is_quick() -> None:
    scene = Scene()
    assert await scene.report(last=True) is None
    await scene.report()
    assert await scene.report(last=True) == CheckReport("quick")
    scene.clock.advance(3600)
    scene.checker.seconds = 1.0
    await scene.report()
    assert await scene.report(last=True) is None


async def test_no_restore_point_waits_for_a_check_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_check, "LIMIT", 0.01)
    scene = Scene()
    scene.checker.hangs = True
    with anyio.fail_after(timedelta(seconds=5).total_seconds()):
        assert await scene.report() is None


async def test_table_that_the_app_cannot_read_either_is_published_and_told() -> None:
    """And the live database is looked at once, not by every snapshot."""
    scene = Scene()
    scene.checker.unreadable = scene.checker.live = BROKEN
    for _ in range(3):
        scene.clock.advance(1)
        assert await scene.report() == CheckReport("quick", (BROKEN,), BROKEN)
    assert (scene.checker.looks, scene.status.databases["app.db"].findings) == (1, (BROKEN,))


async def test_app_is_given_way_to_while_its_tables_are_read() -> None:
    """As in the check of the snapshot; after the app has ended nothing is held up."""
    scene = Scene()
    scene.checker.unreadable = scene.checker.live = BROKEN
    await scene.report()
    assert scene.checker.throttled == [True, True]
    scene.checker.unreadable = scene.checker.live = f"{BROKEN}, and another"
    await scene.report(last=True)
    assert scene.checker.throttled[2:] == [False, False]


async def test_snapshot_that_is_no_true_copy_is_not_published() -> None:
    """The next one is checked as well, however soon it comes."""
    scene = Scene()
    scene.checker.unreadable = BROKEN
    for _ in range(2):
        with pytest.raises(SidecarError, match=r"bug: the snapshot of /data/app\.db is not a true copy"):
            await scene.report(on_tmpfs=False)
    scene.checker.unreadable = ""
    assert await scene.report(on_tmpfs=False) == CheckReport("quick")
    assert not scene.status.databases["app.db"].findings


async def test_restored_database_starts_from_what_is_known() -> None:
    scene = Scene()
    scene.check.start_from(CheckReport("quick", (BROKEN,), BROKEN))
    scene.checker.unreadable = BROKEN
    assert await scene.report() == CheckReport("quick", (BROKEN,), BROKEN)
    assert scene.checker.looks == 0


async def test_without_a_check_nothing_is_said() -> None:
    scene = Scene("none")
    assert await scene.report() is None
    assert scene.checker.checks == 0


async def test_first_large_snapshot_is_published_before_it_is_checked() -> None:
    """
    1. It is left to be checked later, and published as one that nobody has checked.
    2. What is found is told then, and kept with the next restore point.
    """
    scene, later = Scene(), Unchecked()
    scene.checker.findings = ("NULL value in t.b",)
    assert await scene.report(size=SMALL + 1, later=later) is None
    assert (scene.checker.checks, later.snapshot) == (0, scene.snapshot(size=SMALL + 1))
    assert await scene.check.check_later(scene.snapshot()) is None
    assert [each.kind for each in scene.status.problems] == ["finding"]
    assert await scene.report(on_tmpfs=False) == CheckReport("none", ("NULL value in t.b",))


async def test_small_one_is_checked_before_and_a_large_one_without_a_daemon_too() -> None:
    for size, later in ((SMALL, Unchecked()), (SMALL + 1, None)):
        scene = Scene()
        assert await scene.report(size=size, later=later) == CheckReport("quick")
        assert later is None or later.snapshot is None


async def test_published_snapshot_that_is_no_true_copy_has_the_next_one_checked_before() -> None:
    scene, later = Scene(), Unchecked()
    await scene.report(size=SMALL + 1, later=later)
    scene.checker.unreadable = BROKEN
    assert "is not a true copy" in str(await scene.check.check_later(scene.snapshot()))
    again = Unchecked()
    with pytest.raises(SidecarError, match="is not a true copy"):
        await scene.report(size=SMALL + 1, later=again)
    assert again.snapshot is None
    assert not scene.status.databases["app.db"].findings


async def test_nothing_else_is_checked_while_the_first_one_is() -> None:
    scene = Scene()
    scene.checker.hangs = True
    async with anyio.create_task_group() as group:
        group.start_soon(scene.check.check_later, scene.snapshot())
        await anyio.wait_all_tasks_blocked()
        for later in (Unchecked(), None):
            assert await scene.report(size=SMALL + 1, later=later) is None
            assert later is None or later.snapshot is None
        assert scene.checker.checks == 1
        group.cancel_scope.cancel()
