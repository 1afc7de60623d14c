"""A database that was lost is published, and never pushes the real one out: real SQLite, a directory and S3."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.errors import StoreUnavailable
from sidecar.policies import OnConflict
from sidecar.status.serialize import as_json
from sidecar.storage.base import ObjectStore
from tests.harness.writers import fill
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio

TIER = "sidecar-tier"


@pytest.fixture
def machine(store: ObjectStore, tmp_path: Path) -> Machine:
    """A machine with half a megabyte of rows."""
    fill(tmp_path / "app.db", 0.5)
    return Machine(store, tmp_path / "app.db", staging=tmp_path)


async def tiers(machine: Machine) -> list[str]:
    """The tier of every restore point, oldest first."""
    return [(await machine.store.tags(point.key)).get(TIER, "-") for point in await machine.points()]


def empty(path: Path, user_version: int = 1) -> None:
    """An app that starts with a new database where the old one was."""
    for each in path.parent.glob(f"{path.name}*"):
        if not each.name.endswith(".sidecar.json"):
            each.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {user_version}")


async def test_emptied_database_leaves_the_real_one_held(machine: Machine) -> None:
    """Counted and shown; nothing else is held while the new database grows."""
    await machine.backup.cycle.run()
    real = (await machine.newest()).key
    empty(machine.database.path)
    assert await machine.backup.cycle.run() == "published"
    for number in range(3):
        write(machine.database.path, 1 + number)
        assert await machine.backup.cycle.run() == "published"
    held, *others = await tiers(machine)
    assert (held, others[-1]) == ("held", "-")
    assert set(others[:-1]) <= {"recent", "hourly", "daily"}
    shown = json.dumps(as_json(machine.status))
    assert '"suspicious": 1' in shown
    assert f"sidecar restore --key {real}" in shown


async def test_dropped_tables_count_as_much_as_lost_pages(machine: Machine) -> None:
    """The file keeps its size until VACUUM."""
    await machine.backup.cycle.run()
    with closing(sqlite3.connect(machine.database.path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for name in names:
            connection.execute(f"DROP TABLE {name}")
        connection.commit()
    await machine.backup.cycle.run()
    assert await tiers(machine) == ["held", "-"]
    with closing(sqlite3.connect(machine.database.path)) as connection:
        connection.execute("VACUUM")
    await machine.backup.cycle.run()
    empty(machine.database.path, 2)
    await machine.backup.cycle.run()
    assert (await tiers(machine)).count("held") == 1, "nothing was lost after that"


async def test_small_local_file_that_wins_a_conflict_has_the_big_one_held(
    machine: Machine, store: ObjectStore, tmp_path: Path
) -> None:
    """Another machine's restore point, seen by a daemon that has just started."""
    await machine.backup.cycle.run()
    path = tmp_path / "other" / "app.db"
    path.parent.mkdir()
    write(path, 1)
    other = Machine(store, path, staging=tmp_path)
    await other.boot(OnConflict.LOCAL)
    assert await other.backup.cycle.run() == "published"
    assert await tiers(other) == ["held", "-"]


async def test_restored_machine_that_loses_its_database_holds_what_it_restored(
    machine: Machine, store: ObjectStore, tmp_path: Path
) -> None:
    await machine.backup.cycle.run()
    path = tmp_path / "fresh" / "app.db"
    path.parent.mkdir()
    fresh = Machine(store, path, staging=tmp_path)
    await fresh.boot()
    empty(path)
    assert await fresh.backup.final()
    assert await tiers(fresh) == ["held", "-"], "held at once, also by a final backup"


async def test_no_hold_no_publish(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt does both. Nothing of the failed one is in the store."""
    await machine.backup.cycle.run()
    empty(machine.database.path)

    async def down(*_: object) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(machine.store, "tag", down)
        assert isinstance(await machine.backup.attempt(), StoreUnavailable)
    assert len(await machine.points()) == 1
    assert machine.status.databases["app.db"].backups["failed"] == 1
    assert await machine.backup.attempt() is None
    assert await tiers(machine) == ["held", "-"]


async def test_failed_tags_fail_no_cycle_and_are_made_up_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(machine.store, "tag", down)
        for _ in range(3):
            write(machine.database.path, 1)
            assert await machine.backup.attempt() is None
    assert await tiers(machine) == ["-", "-", "-"]
    assert machine.status.databases["app.db"].untagged == 2
    write(machine.database.path, 1)
    assert await machine.backup.attempt() is None
    assert (await tiers(machine)).index("-") == 3


async def test_what_a_final_backup_supersedes_is_tagged_by_the_next_run(
    machine: Machine, store: ObjectStore, tmp_path: Path
) -> None:
    """A shutdown does not wait for tags, and an app that never lives for an interval still gets them."""
    await machine.backup.cycle.run()
    write(machine.database.path, 1)
    assert await machine.backup.final()
    assert await tiers(machine) == ["-", "-"]
    again = Machine(store, machine.database.path, staging=tmp_path)
    await again.boot()
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await again.backup.run(timedelta(hours=1), at_once=False)

        group.start_soon(run)
        with anyio.fail_after(20):
            while (await tiers(again))[0] == "-":
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert (await tiers(again))[1] == "-"
