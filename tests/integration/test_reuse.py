"""Reuse on a real S3 server and in a directory: what is published costs what changed, and is complete by itself."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.storage.base import ObjectStore
from tests.harness.s3client import s3_client
from tests.harness.writers import fill
from tests.integration.wiring import Machine

pytestmark = pytest.mark.anyio

MEGABYTES = 24


def change(path: Path, statement: str) -> None:
    """One committed change, checkpointed, so that the file shows it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def restored(machine: Machine, target: Path) -> bytes:
    """The newest restore point's database, byte for byte."""
    await machine.reader.download(await machine.newest(), target)
    return target.read_bytes()


async def snapshot_of(machine: Machine) -> bytes:
    async with machine.snapshotter.snapshot(machine.database.path) as snapshot:
        return snapshot.path.read_bytes()


def remove(store: ObjectStore, key: str) -> None:
    """Delete an object behind the program's back; the program itself has no way to."""
    if store.url.startswith("file://"):
        Path(store.url.removeprefix("file://"), key).unlink()
        return
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    client = s3_client(
        os.environ["AWS_ENDPOINT_URL_S3"], os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    )
    client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    client.close()


@pytest.fixture
async def machine(store: ObjectStore, tmp_path: Path) -> Machine:
    """A machine that has published a database of tens of megabytes."""
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    fill(path, MEGABYTES)
    machine = Machine(store, path, staging=tmp_path)
    await machine.backup.cycle.run()
    return machine


async def test_a_small_change_uploads_little(machine: Machine, tmp_path: Path) -> None:
    before = machine.status.databases["app.db"].uploaded
    change(machine.database.path, "CREATE TABLE one_page (x)")
    expected = await snapshot_of(machine)
    assert await machine.backup.cycle.run() == "published"
    status = machine.status.databases["app.db"]
    assert status.reused > before / 3
    assert status.uploaded - before < before / 2
    assert await restored(machine, tmp_path / "restored.db") == expected


async def test_a_chain_of_changes_stays_restorable(machine: Machine, tmp_path: Path) -> None:
    """Growth, deletion and VACUUM, each over the one before; every restore point in the store is complete.

    Takes longer than ten seconds on S3: the whole database is downloaded after each change, and again at the end.
    """
    statements = ["CREATE TABLE x (a)", *["INSERT INTO x VALUES (zeroblob(3000000))"] * 3, "DROP TABLE x", "VACUUM"]
    for statement in statements:
        change(machine.database.path, statement)
        expected = await snapshot_of(machine)
        assert await machine.backup.cycle.run() == "published"
        assert await restored(machine, tmp_path / "restored.db") == expected
    for point in await machine.points():
        await machine.reader.download(point, tmp_path / "each.db")


async def test_a_restored_machine_knows_what_it_may_reuse(machine: Machine, store: ObjectStore, tmp_path: Path) -> None:
    """And so does one that kept its disk: it reads the index once."""
    for name in ("fresh", "kept"):
        path = tmp_path / "fresh" / "app.db"
        path.parent.mkdir(exist_ok=True)
        again = Machine(store, path, staging=tmp_path)
        assert (await again.boot()).outcome == ("restored" if name == "fresh" else "kept_local")
        change(path, f"CREATE TABLE {name} (x)")
        expected = await snapshot_of(again)
        assert await again.backup.cycle.run() == "published"
        status = again.status.databases["app.db"]
        assert status.reused > status.uploaded
        assert await restored(again, tmp_path / "restored.db") == expected


async def test_a_parent_that_vanished_costs_a_full_upload_and_nothing_else(machine: Machine, tmp_path: Path) -> None:
    """Somebody emptied the bucket, or a lifecycle rule did: the cycle still publishes, complete by itself."""
    parent = (await machine.newest()).key
    change(machine.database.path, "CREATE TABLE one_page (x)")
    expected = await snapshot_of(machine)
    remove(machine.store, parent)
    assert await machine.backup.cycle.run() == "published"
    status = machine.status.databases["app.db"]
    assert status.reused == 0
    assert status.uploaded > MEGABYTES << 20
    assert await restored(machine, tmp_path / "restored.db") == expected


async def test_a_parent_that_was_replaced_is_not_copied_from(machine: Machine, tmp_path: Path) -> None:
    """Its bytes are not those that our index speaks of."""
    parent = (await machine.newest()).key
    change(machine.database.path, "CREATE TABLE one_page (x)")
    expected = await snapshot_of(machine)
    await machine.store.put(parent, bytes(30 << 20))
    assert await machine.backup.cycle.run() == "published"
    assert machine.status.databases["app.db"].reused == 0
    assert await restored(machine, tmp_path / "restored.db") == expected
