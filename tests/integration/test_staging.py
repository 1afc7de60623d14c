"""Where snapshots lie: memory when it is cheap, the disk otherwise, nowhere when there is no room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from sidecar.database import staging
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError, NoRoom
from tests.harness.writers import fill

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of 4 MiB in a folder of its own."""
    (tmp_path / "data").mkdir()
    fill(tmp_path / "data" / "app.db", 4)
    return tmp_path / "data" / "app.db"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Takes the place of /dev/shm."""
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", directory], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root's CAP_SYS_ADMIN")
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_small_database_is_staged_in_memory(database: Path, memory: Path) -> None:
    async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database) as snapshot:
        assert (snapshot.path.parent, snapshot.on_tmpfs) == (memory, True)
    assert list(memory.iterdir()) == []


async def test_database_of_more_than_a_quarter_of_memory_is_staged_on_disk(
    database: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = database.stat().st_size
    for available, expected in ((4 * size, memory), (4 * size - 1, database.parent), (0, database.parent)):
        monkeypatch.setattr(staging, "available_memory", lambda available=available: available)
        async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database) as snapshot:
            assert (snapshot.path.parent, snapshot.on_tmpfs) == (expected, expected == memory)
    assert [path.name for path in database.parent.glob("*.snapshot")] == []


async def test_chosen_directory_is_used_and_must_exist(database: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="staging_dir"):
        async with SqliteSnapshotter(Staging(tmp_path / "chosen")).snapshot(database):
            pass
    (tmp_path / "chosen").mkdir()
    async with SqliteSnapshotter(Staging(tmp_path / "chosen")).snapshot(database) as snapshot:
        assert (snapshot.path.parent, snapshot.on_tmpfs) == (tmp_path / "chosen", False)


async def test_full_memory_falls_back_to_disk(database: Path, tiny: Path) -> None:
    async with SqliteSnapshotter(Staging(tmpfs=tiny)).snapshot(database) as snapshot:
        assert snapshot.path.parent == database.parent


async def test_no_room_is_seen_before_anything_is_written(database: Path, tiny: Path) -> None:
    with pytest.raises(NoRoom, match="no room to stage"):
        async with SqliteSnapshotter(Staging(tiny)).snapshot(database):
            pass
    assert list(tiny.iterdir()) == []


async def test_room_that_runs_out_during_the_copy_is_given_back(
    database: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else filled it meanwhile."""
    monkeypatch.setattr(staging, "_fits", lambda *_: True)
    with pytest.raises(NoRoom):
        async with SqliteSnapshotter(Staging(tiny)).snapshot(database):
            pass
    assert list(tiny.iterdir()) == []


async def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(database: Path, memory: Path) -> None:
    """Told by a lock: two containers that share /dev/shm may have the same process ids and paths. Other databases' stay."""
    staging_there = Staging(tmpfs=memory)
    with staging_there.reserve(database, 1) as (living, _):
        prefix = living.name.rpartition("-")[0]
        for folder in (memory, database.parent):
            for name in ("dead.snapshot", "dead.snapshot-journal", "orphan.snapshot-journal"):
                (folder / f"{prefix}-{name}").touch()
            (folder / f"sidecar-{'0' * 16}-dead.snapshot").touch()
        Path(f"{living}-journal").touch()
        async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database) as snapshot:
            assert snapshot.path != living
        foreign = f"sidecar-{'0' * 16}-dead.snapshot"
        assert {path.name for path in memory.glob("sidecar-*")} == {living.name, f"{living.name}-journal", foreign}
        assert {path.name for path in database.parent.glob("sidecar-*")} == {foreign}
    assert {path.name for path in memory.glob("sidecar-*")} == {foreign}


async def test_what_others_put_into_shared_memory_holds_nothing_up(
    database: Path, memory: Path, tmp_path: Path
) -> None:
    """Pipes, links and folders of our names: removed by name, never opened, and nothing beyond them is touched."""
    async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database) as snapshot:
        prefix = snapshot.path.name.rpartition("-")[0]
    os.mkfifo(memory / f"{prefix}-1.snapshot")
    (memory / f"{prefix}-2.snapshot").symlink_to(database)
    os.link(database, memory / f"{prefix}-3.snapshot")
    (memory / f"{prefix}-4.snapshot").mkdir()
    (memory / f"{prefix}-5.snapshot").touch()
    before = database.read_bytes()
    async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database):
        pass
    assert [path.name for path in memory.iterdir()] == [f"{prefix}-4.snapshot"]
    assert database.read_bytes() == before


async def test_a_snapshot_in_use_is_not_a_leftover_of_another_container_with_the_same_path(
    memory: Path, database: Path
) -> None:
    """Both share /dev/shm, and cannot see each other's processes: the lock is on the very file that has the name."""
    async with SqliteSnapshotter(Staging(tmpfs=memory)).snapshot(database) as snapshot:
        with Staging(tmpfs=memory).reserve(database, 1):
            assert snapshot.path.exists()


async def test_snapshots_made_at_once_do_not_take_each_others_files(memory: Path, database: Path) -> None:
    """Sweeping and making files at the same time, from many threads: whoever has one keeps it."""

    def reserve() -> None:
        for _ in range(200):
            with Staging(tmpfs=memory).reserve(database, 1) as (path, _):
                assert path.exists()

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(to_thread.run_sync, reserve)
    assert list(memory.iterdir()) == []


def test_available_memory_is_a_part_of_the_machines() -> None:
    assert 1 << 20 < staging.available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
