"""SQLite's check of the first snapshot, beside the app: nothing waits for it, and a false copy is replaced."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.backup import snapshot_check
from sidecar.database import CheckReport, SqliteIntegrity, YieldToApp
from sidecar.storage import ObjectStore
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio

BROKEN = "table t cannot be read: database disk image is malformed"


class Checks:
    """Checks that end when they are told to. `checked` are the files that were there to be checked."""

    def __init__(self) -> None:
        self.end = anyio.Event()
        self.unreadable = ""
        self.checked: list[Path] = []

    async def check(self, path: Path, mode: str, _yield_to_app: YieldToApp | None = None) -> CheckReport:
        assert path.stat().st_size
        self.checked.append(path)
        await self.end.wait()
        return CheckReport.of(mode, (), self.unreadable)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    checks = Checks()

    async def check(
        _self: SqliteIntegrity, path: Path, mode: str, yield_to_app: YieldToApp | None = None
    ) -> CheckReport:
        return await checks.check(path, mode, yield_to_app)

    monkeypatch.setattr(snapshot_check, "SMALL", 0)
    monkeypatch.setattr(SqliteIntegrity, "check", check)
    return checks


@asynccontextmanager
async def running(machine: Machine) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: machine.backup.run(timedelta(hours=1), at_once=True))
        yield
        group.cancel_scope.cancel()


async def until(machine: Machine, published: int) -> None:
    with anyio.fail_after(30):
        while len([point async for point in machine.catalog.points(machine.database.name)]) < published:
            await anyio.sleep(0.02)


async def test_first_restore_point_and_all_others_go_on_while_it_is_checked(
    store: ObjectStore, tmp_path: Path, checks: Checks
) -> None:
    """
    1. The first restore point is published, as one that nobody has checked, while its check has not ended.
    2. A second one is published, and nobody waits for a turn.
    3. When the check has ended, the snapshot is gone.
    """
    machine = Machine(store, tmp_path / "app.db", staging=tmp_path)
    write(machine.database.path, 1)
    async with running(machine):
        await until(machine, 1)
        with anyio.fail_after(30):
            while not checks.checked:
                await anyio.sleep(0.02)
        newest = await machine.newest()
        assert (await machine.reader.contents(newest))[1].index.check is None
        write(machine.database.path, 2)
        assert await machine.backup.attempt() is None
        await until(machine, 2)
        assert machine.turn.under_way == 0
        assert [path.exists() for path in checks.checked] == [True]
        checks.end.set()
        with anyio.fail_after(30):
            while checks.checked[0].exists():
                await anyio.sleep(0.02)


async def test_stop_gives_up_the_check_and_leaves_nothing(store: ObjectStore, tmp_path: Path, checks: Checks) -> None:
    machine = Machine(store, tmp_path / "app.db", staging=tmp_path)
    write(machine.database.path, 1)
    async with running(machine):
        with anyio.fail_after(30):
            while not checks.checked:
                await anyio.sleep(0.02)
    assert [path.exists() for path in checks.checked] == [False]


async def test_published_snapshot_that_is_no_true_copy_is_replaced_at_once(
    store: ObjectStore, tmp_path: Path, checks: Checks
) -> None:
    """By one that copies nothing from it, and that is published only when its own check is good."""
    machine = Machine(store, tmp_path / "app.db", staging=tmp_path)
    write(machine.database.path, 1)
    async with running(machine):
        await until(machine, 1)
        bad = await machine.newest()
        checks.unreadable = BROKEN
        checks.end.set()
        with anyio.fail_after(30):
            while len(checks.checked) < 2:
                await anyio.sleep(0.02)
        checks.unreadable = ""
        while await machine.backup.attempt():
            await anyio.sleep(0.02)
        await until(machine, 2)
    newest = await machine.newest()
    assert newest.key > bad.key
    assert (await machine.reader.contents(newest))[1].index.check == CheckReport("quick")
