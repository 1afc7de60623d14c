"""Restore points by prefix on a real S3 server: published, reused, restored, and brought back after all rules have acted."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.repository.places import SLOTS
from sidecar.storage.base import ObjectStore
from tests.harness.seaweed import Seaweed
from tests.harness.writers import fill
from tests.integration.wiring import Machine, store_of

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

MEGABYTES = 24


@pytest.fixture
async def store(seaweed: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    async with store_of(bucket, seaweed.endpoint) as opened:
        yield opened


def change(path: Path, name: str) -> None:
    """One committed change."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {name} (x)")
        connection.commit()


def expire_all(seaweed: Seaweed, bucket: str) -> list[str]:
    """Delete all that rules by prefix may reach. Returns the names of the objects that are left."""
    keys = seaweed.s3.keys(bucket)
    for key in keys:
        if "expiring/" in key:
            seaweed.s3.delete(bucket, key)
    return [key.rpartition("/")[2] for key in keys if "expiring/" not in key]


async def test_the_newest_comes_back_after_everything_has_expired(
    store: ObjectStore, seaweed: Seaweed, bucket: str, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    fill(path, MEGABYTES)
    machine = Machine(store, path, staging=tmp_path, placing=True)
    for number in range(3):
        change(path, f"change_{number}")
        assert await machine.backup.cycle.run() == "published"
    status, newest = machine.status.databases["app.db"], await machine.newest()
    assert status.reused > status.uploaded / 3
    assert len(await machine.points()) == 3
    assert set(SLOTS) <= set(expire_all(seaweed, bucket))
    assert (await machine.newest()).key == newest.key
    change(path, "after")
    before = status.uploaded
    assert await machine.backup.cycle.run() == "published"
    assert status.uploaded - before < MEGABYTES << 19  # the parent was copied from in its slot
    expire_all(seaweed, bucket)
    (tmp_path / "other").mkdir()
    other = Machine(store, tmp_path / "other" / "app.db", staging=tmp_path, placing=True)
    await other.boot()
    with closing(sqlite3.connect(other.database.path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert {"change_2", "after"} <= names
