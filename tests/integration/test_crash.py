"""Killed at each step of a backup or a boot: the next boot ends with the right database, and nothing is lost."""

import signal
import sys
from pathlib import Path

import pytest

from sidecar.storage.file.store import FileStore
from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.harness.writers import check_ledger, fill
from tests.integration import crashing
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio


def crash(tmp_path: Path, step: str, database: Path) -> None:
    """Let a machine die at this step."""
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    said = tmp_path / "said"
    with said.open("wb") as stream:
        argv = [sys.executable, str(Path(crashing.__file__)), step, str(tmp_path / "store"), str(database)]
        child = Child(argv, environment, stdout=stream, stderr=stream)
    try:
        assert child.popen.wait(60) == -signal.SIGKILL, f"did not reach the step: {said.read_text()}"
    finally:
        child.kill()


def machine_at(tmp_path: Path, folder: str) -> Machine:
    """A machine with its database in this folder, made if need be."""
    (tmp_path / folder).mkdir(exist_ok=True)
    return Machine(FileStore(tmp_path / "store"), tmp_path / folder / "app.db", staging=tmp_path / folder)


@pytest.mark.parametrize(
    ("step", "published"),
    [*((step, True) for step in crashing.BACKUP), ("before a part", False), ("after complete", False)],
)
async def test_crash_in_a_backup_keeps_the_local_database(tmp_path: Path, step: str, published: bool) -> None:
    """It is never taken for a conflict, and its newest state is published next."""
    machine = machine_at(tmp_path, "one")
    fill(machine.database.path, 8)
    write(machine.database.path, 10)
    if published:
        await machine.backup.cycle.run()
        write(machine.database.path, 10)
    numbers = 20 if published else 10
    crash(tmp_path, step, machine.database.path)
    again = machine_at(tmp_path, "one")
    booted = await again.boot()
    assert booted.outcome == "kept_local"
    assert booted.at_once
    assert check_ledger(machine.database.path) == numbers
    await again.backup.cycle.run()
    fresh = machine_at(tmp_path, "fresh")
    assert (await fresh.boot()).outcome == "restored"
    assert check_ledger(fresh.database.path) == numbers
    assert not list((tmp_path / "one").glob("*.snapshot"))
    for point in await fresh.points():
        await fresh.reader.download(point, tmp_path / "checked.db")


@pytest.mark.parametrize("step", crashing.RESTORE)
async def test_crash_in_a_restore_leaves_no_database_or_the_whole_one(tmp_path: Path, step: str) -> None:
    machine = machine_at(tmp_path, "one")
    fill(machine.database.path, 12)
    write(machine.database.path, 10)
    await machine.backup.cycle.run()
    fresh = machine_at(tmp_path, "fresh")
    Path(f"{fresh.database.path}-wal").write_bytes(b"a foreign WAL must never meet the new database" * 100)
    crash(tmp_path, step, fresh.database.path)
    if fresh.database.path.exists():
        assert check_ledger(fresh.database.path) == 10
    again = machine_at(tmp_path, "fresh")
    assert (await again.boot()).outcome in {"restored", "kept_local"}
    assert check_ledger(fresh.database.path) == 10
    assert not list((tmp_path / "fresh").glob(".*restore*"))
    assert list((tmp_path / "fresh").glob("*.orphaned-*-wal")), "the foreign WAL was lost"
    write(fresh.database.path, 1)
    assert await again.backup.cycle.run() == "published"
    assert (await machine_at(tmp_path, "third").boot()).outcome == "restored"
    assert check_ledger(tmp_path / "third" / "app.db") == 11


@pytest.mark.parametrize("step", crashing.CONFLICT)
async def test_crash_in_a_conflict_keeps_both_sides(tmp_path: Path, step: str) -> None:
    machine, local = machine_at(tmp_path, "one"), machine_at(tmp_path, "local")
    write(machine.database.path, 10)
    await machine.backup.cycle.run()
    write(local.database.path, 7)
    crash(tmp_path, step, local.database.path)
    again = machine_at(tmp_path, "local")
    after = (await again.boot()).outcome
    assert after == ("kept_local" if step == "after the winner is renamed" else "restored")
    assert check_ledger(local.database.path) == 10
    kept = [path for path in (tmp_path / "local").glob("app.db.diverged-*Z") if check_ledger(path) == 7]
    assert kept, sorted((tmp_path / "local").iterdir())
