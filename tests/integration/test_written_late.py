"""One more look after the final backup: what was written since, and what only looks as if something had been."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.backup.final import FinalBackup
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.wiring import NAME, Machine, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(MemoryStore(), tmp_path / NAME, staging=tmp_path, patience=0.1)


def final_backup(machine: Machine, afterwards: Callable[[], object]) -> FinalBackup:
    """A final backup after which something happens before the second look."""
    once = machine.backup.final

    async def final() -> bool:
        try:
            return await once()
        finally:
            afterwards()

    machine.backup.final = final  # type: ignore[method-assign]
    return FinalBackup([machine.backup], machine.diverged_line, machine.fence, machine.status)


async def test_nothing_happens(machine: Machine) -> None:
    """Protected, and nothing is left on this disk alone."""
    write(machine.database.path, 3)
    final = final_backup(machine, lambda: None)
    assert await final.run(10.0)
    assert not final.disk_has_more


async def test_somebody_writes(machine: Machine) -> None:
    """Not protected, and the message names the database and what to do."""
    path = machine.database.path
    write(path, 3)
    final = final_backup(machine, lambda: write(path, 1))
    assert not await final.run(10.0)
    assert final.disk_has_more
    message, hint = final.describe_failure()
    assert message.startswith(f"a process wrote after the final backup to {path} (newest restore point: {NAME}/")
    assert "do not destroy this machine" in hint
    assert [point.key for point in await machine.points()] == [machine.backup.cycle.newest_key]


async def test_the_database_appears(machine: Machine) -> None:
    """There was none to back up; now there is one."""
    final = final_backup(machine, lambda: write(machine.database.path, 1))
    assert not await final.run(10.0)


async def test_a_reader_ends(machine: Machine) -> None:
    """The last connection folds the WAL into the database: other files, the same content, and no alarm."""
    path = machine.database.path
    write(path, 1)
    with closing(open_database(path)) as reader:
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        write(path, 3)
        wal = Path(f"{path}-wal")

        def end() -> None:
            assert wal.stat().st_size > 0
            reader.close()
            assert not wal.exists()

        final = final_backup(machine, end)
        assert await final.run(10.0)
        assert not final.disk_has_more


async def test_no_time_is_left_to_compare(machine: Machine) -> None:
    """The files were touched: without a look inside they count as written."""
    write(machine.database.path, 3)
    final = final_backup(machine, lambda: None)
    assert await final.run(10.0)
    await final._look_again(0.0)
    assert not final.disk_has_more
    write(machine.database.path, 1)
    await final._look_again(0.0)
    assert final.disk_has_more


async def test_the_database_is_unreadable_by_then(machine: Machine) -> None:
    """Nobody knows what is in it: not protected, and nothing is raised."""
    path = machine.database.path
    write(path, 3)
    final = final_backup(machine, lambda: path.write_bytes(b"nonsense" * 1000))
    assert not await final.run(10.0)
    assert final.disk_has_more
