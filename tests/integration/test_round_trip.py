"""Backup and restore with a real SQLite, over a directory and over S3."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sidecar.backup.history import Start
from sidecar.errors import DamagedRestorePoint, NoRoom, SidecarError
from sidecar.host.files import temporary
from sidecar.model import Database, IfMatch
from sidecar.repository import reader as restore
from sidecar.storage.base import ObjectStore
from tests.harness.writers import check_ledger, fill, open_database
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine(store: ObjectStore, tmp_path: Path) -> Machine:
    """The machine that publishes."""
    return Machine(store, tmp_path / "app.db", staging=tmp_path)


@pytest.fixture
def fresh(store: ObjectStore, tmp_path: Path) -> Machine:
    """Another one, with nothing on its disk."""
    (tmp_path / "fresh").mkdir()
    return Machine(store, tmp_path / "fresh" / "app.db", staging=tmp_path)


async def image(machine: Machine) -> bytes:
    """The bytes of a snapshot of its database."""
    async with machine.snapshotter.snapshot(machine.database.path) as snapshot:
        return snapshot.path.read_bytes()


async def not_racy(machine: Machine) -> None:
    """Wait until stat can prove that nothing was written since."""
    while (signature := machine.snapshotter.signature(machine.database.path)) and signature.racy:
        await anyio.sleep(0.05)


async def test_cycles_publish_what_changed_and_restore_gives_it_back(machine: Machine, fresh: Machine) -> None:
    write(machine.database.path, 30)
    assert await machine.backup.cycle.run() == "published"
    assert await machine.backup.cycle.run() == "unchanged"
    write(machine.database.path, 1)
    assert await machine.backup.cycle.run() == "published"
    assert len(await machine.points()) == 2
    assert (await fresh.boot()).outcome == "restored"
    assert check_ledger(fresh.database.path) == 31
    assert await fresh.backup.cycle.run() == "unchanged"
    write(fresh.database.path, 1)
    assert await fresh.backup.cycle.run() == "published"
    newest = await fresh.newest()
    assert (await fresh.reader.contents(newest))[1].index.parent == (await machine.points())[1].key


async def test_idle_database_is_unchanged_by_stat_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own snapshot leaves no trace on a database that no app has open: the second look needs no copy."""
    write(machine.database.path, 10)
    assert await machine.backup.cycle.run() == "published"
    await not_racy(machine)
    before = machine.snapshotter.signature(machine.database.path)
    assert await machine.backup.cycle.run() == "unchanged"
    assert machine.snapshotter.signature(machine.database.path) == before
    monkeypatch.setattr(machine.snapshotter, "snapshot", None)
    assert await machine.backup.cycle.run() == "unchanged"


async def test_connected_idle_app_is_unchanged_by_stat_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    write(machine.database.path, 10)
    with closing(open_database(machine.database.path)) as connection:
        connection.execute("SELECT * FROM sequence").fetchall()
        assert await machine.backup.cycle.run() == "published"
        await not_racy(machine)
        assert await machine.backup.cycle.run() == "unchanged"
        monkeypatch.setattr(machine.snapshotter, "snapshot", None)
        assert await machine.backup.cycle.run() == "unchanged"


async def test_database_of_many_parts_comes_back_byte_for_byte(machine: Machine, fresh: Machine) -> None:
    fill(machine.database.path, 60)
    expected = await image(machine)
    assert await machine.backup.cycle.run() == "published"
    assert machine.status.requests["put_part", "ok"] > 4
    assert (await fresh.boot()).outcome == "restored"
    assert fresh.database.path.read_bytes() == expected
    assert sorted(path.name for path in fresh.database.path.parent.iterdir() if "-" not in path.name) == [
        "app.db",
        "app.db.sidecar.json",
    ]


async def overwrite(machine: Machine, data: bytes) -> None:
    """Damage the newest restore point in the store."""
    point = await machine.newest()
    await machine.store.put(point.key, data, condition=IfMatch(point.etag))


async def require_refused(fresh: Machine, error: type[SidecarError] = DamagedRestorePoint) -> None:
    """A boot ends in this error, and leaves no file: neither a database nor a half one."""
    with pytest.raises(error):
        with anyio.fail_after(20):
            await fresh.boot()
    assert list(fresh.database.path.parent.iterdir()) == []


@pytest.mark.parametrize("megabytes", [0.1, 12])
async def test_truncated_restore_point_is_refused(machine: Machine, fresh: Machine, megabytes: float) -> None:
    fill(machine.database.path, megabytes)
    await machine.backup.cycle.run()
    whole = bytes((await machine.store.get((await machine.newest()).key)).data)
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        await overwrite(machine, whole[:size])
        await require_refused(fresh)
    await overwrite(machine, whole + b"\0")
    await require_refused(fresh)
    await overwrite(machine, whole[len(whole) // 2 :])
    await require_refused(fresh)


@pytest.mark.parametrize("megabytes", [0.1, 12])
async def test_flipped_bit_anywhere_is_noticed(machine: Machine, fresh: Machine, megabytes: float) -> None:
    """In a frame, in the index, in the seek table: but for the two bytes of a frame's header that only size a window."""
    fill(machine.database.path, megabytes)
    await machine.backup.cycle.run()
    whole = bytes((await machine.store.get((await machine.newest()).key)).data)
    places = [0, 7, 30, len(whole) // 3, *(len(whole) - back for back in (1, 4, 6, 9, 17, 30, 100, 200, 400))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        await overwrite(machine, bytes(damaged))
        await require_refused(fresh)
    await overwrite(machine, whole)
    assert (await fresh.boot()).outcome == "restored"


async def test_foreign_object_is_refused(machine: Machine, fresh: Machine) -> None:
    write(machine.database.path, 5)
    await machine.backup.cycle.run()
    for data in (b"not mine", machine.database.path.read_bytes(), os.urandom(6 << 20)):
        await overwrite(machine, data)
        await require_refused(fresh)


async def test_another_databases_or_times_object_is_noticed(machine: Machine, fresh: Machine, tmp_path: Path) -> None:
    """Whole and valid, and still not what its key says."""
    other = Machine(machine.store, tmp_path / "other.db", name="other.db", staging=tmp_path)
    for each in (machine, other):
        write(each.database.path, 5)
        await each.backup.cycle.run()
    older = bytes((await machine.store.get((await machine.newest()).key)).data)
    theirs = bytes((await machine.store.get((await other.newest()).key)).data)
    await overwrite(machine, theirs)
    await require_refused(fresh)
    write(machine.database.path, 1)
    await machine.backup.cycle.run()
    await overwrite(machine, older)
    await require_refused(fresh)


async def test_next_older_good_point_is_restored_instead(machine: Machine, fresh: Machine) -> None:
    for _ in range(3):
        write(machine.database.path, 5)
        await machine.backup.cycle.run()
    await overwrite(machine, b"damaged")
    booted = await fresh.boot()
    assert (booted.outcome, bool(booted.publish)) == ("fell_back", True)
    assert check_ledger(fresh.database.path) == 10
    assert fresh.status.restores["damaged"] == 1
    fresh.backup.cycle.start_from(Start(publish="test"))
    assert await fresh.backup.cycle.run() == "published"
    assert (await fresh.points())[-1].timestamp > (await machine.points())[-2].timestamp


async def test_object_that_changes_during_the_download_is_noticed(
    machine: Machine, fresh: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it would fit: what is put together is one version or nothing."""
    fill(machine.database.path, 20)
    fresh.reader.concurrency = 1
    await machine.backup.cycle.run()
    point = await machine.newest()
    whole = bytes((await machine.store.get(point.key)).data)
    write_run = restore._write_run

    def swapping(*arguments: object) -> None:
        write_run(*arguments)  # type: ignore[arg-type]
        if not swapped:
            swapped.append(True)
            anyio.from_thread.run(machine.store.put, point.key, whole)

    swapped: list[bool] = []
    monkeypatch.setattr(restore, "_write_run", swapping)
    await require_refused(fresh)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", directory], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root's CAP_SYS_ADMIN")
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_restore_without_room_leaves_nothing(
    machine: Machine, store: ObjectStore, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is seen before the download or only when the disk is full."""
    fill(machine.database.path, 12)
    await machine.backup.cycle.run()
    small = Machine(store, tiny / "app.db", staging=tiny)
    await require_refused(small, NoRoom)
    monkeypatch.setattr(restore, "require_room", lambda *_: None)
    await require_refused(small, NoRoom)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_disk_that_fills_up_is_no_room(
    machine: Machine, fresh: Machine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fill(machine.database.path, 3)
    await machine.backup.cycle.run()

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", full)
    await require_refused(fresh, NoRoom)


async def test_cancelled_restore_leaves_nothing(machine: Machine, fresh: Machine) -> None:
    fill(machine.database.path, 20)
    await machine.backup.cycle.run()
    point, target = await machine.newest(), Database("app.db", fresh.database.path)
    for number in range(10):
        with anyio.move_on_after(0.012 * number) as scope:
            await fresh.reader.stage(point, target)
        if scope.cancelled_caught:
            assert list(fresh.database.path.parent.iterdir()) == []
        temporary(target.path).unlink(missing_ok=True)
