"""The check that the newest restore point still exists, in a directory whose files can be deleted."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from sidecar.errors import SidecarError, StoreUnavailable
from sidecar.repository.existence import CHECK_EVERY
from sidecar.storage.base import ObjectStore
from sidecar.storage.decorator import Decorated
from sidecar.storage.file.store import FileStore
from tests.harness.writers import fill
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def machine(tmp_path: Path) -> Machine:
    """A machine that has published once."""
    fill(tmp_path / "app.db", 0.1)
    machine = Machine(FileStore(tmp_path / "store"), tmp_path / "app.db", staging=tmp_path, patience=0.2)
    assert await machine.backup.cycle.run() == "published"
    return machine


def requests(machine: Machine) -> int:
    """How many requests were made."""
    return sum(machine.status.requests.values())


async def test_an_idle_cycle_sends_no_request_until_a_check_is_due(machine: Machine) -> None:
    """Then it asks once, by one HEAD."""
    before = requests(machine)
    assert await machine.backup.cycle.run() == "unchanged"
    assert requests(machine) == before
    machine.backup.cycle.coverage.doubt()
    assert await machine.backup.cycle.run() == "unchanged"
    assert requests(machine) == before + 1
    assert await machine.backup.cycle.run() == "unchanged"
    assert requests(machine) == before + 1
    assert CHECK_EVERY <= 3600


async def test_loss_is_reported_once_and_a_new_one_published(machine: Machine, tmp_path: Path) -> None:
    """It counts as damage that a drill found, for alerts; meanwhile the database is unprotected."""
    (gone,) = (tmp_path / "store" / "app.db").iterdir()
    gone.unlink()
    machine.backup.cycle.coverage.doubt()
    assert await machine.backup.cycle.run() == "published"
    status = machine.status.databases["app.db"]
    assert (status.drills["damaged"], status.drill_outcome, status.unprotected_since) == (1, "damaged", None)
    assert [each.message for each in machine.status.problems] == [
        f"restore point app.db/{gone.name} is gone from the store, along with all others"
    ]
    assert await machine.backup.cycle.run() == "unchanged"
    write(machine.database.path, 1)
    assert await machine.backup.cycle.run() == "published"
    assert len(machine.status.problems) == 1
    assert len(await machine.points()) == 2


async def test_database_is_unprotected_while_no_new_one_can_be_published(machine: Machine, tmp_path: Path) -> None:
    """Since the time of the lost restore point, or before."""
    (gone,) = (tmp_path / "store" / "app.db").iterdir()
    gone.unlink()
    published = machine.status.databases["app.db"].history[-1].at
    (tmp_path / "store" / "app.db").rmdir()
    (tmp_path / "store" / "app.db").write_text("a file where the folder should be")
    machine.backup.cycle.coverage.doubt()
    with pytest.raises(SidecarError):
        await machine.backup.cycle.run()
    since = machine.status.databases["app.db"].unprotected_since
    assert since is not None
    assert since <= published


async def test_one_that_expired_below_another_machines_is_not_lost(machine: Machine, tmp_path: Path) -> None:
    """Two machines and no lease: the idle one must not put its old state above the other's."""
    other = tmp_path / "other"
    other.mkdir()
    second = Machine(FileStore(tmp_path / "store"), other / "app.db", staging=tmp_path)
    await second.boot()
    write(second.database.path, 1)
    assert await second.backup.cycle.run() == "published"
    min((tmp_path / "store" / "app.db").iterdir()).unlink()
    machine.backup.cycle.coverage.doubt()
    assert await machine.backup.cycle.run() == "unchanged"
    assert len(await machine.points()) == 1


async def test_files_that_are_only_touched_do_not_prevent_the_check(machine: Machine, tmp_path: Path) -> None:
    """An app that checkpoints every second has an unchanged database, and files that always change."""
    (gone,) = (tmp_path / "store" / "app.db").iterdir()
    os.utime(machine.database.path)
    assert await machine.backup.cycle.run() == "unchanged"
    gone.unlink()
    machine.backup.cycle.coverage.doubt()
    os.utime(machine.database.path)
    assert await machine.backup.cycle.run() == "published"
    assert machine.status.databases["app.db"].unprotected_since is None


class Away(Decorated):
    """A store whose requests of these kinds fail as `error` says; the others pass."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.kinds: set[str] = set()

    async def around(self, operation: str, attempt):  # type: ignore[no-untyped-def]
        if operation in self.kinds:
            raise StoreUnavailable("away")
        return await attempt()


@pytest.fixture
async def away(tmp_path: Path) -> tuple[Away, Machine]:
    """A machine that has published once, and its store, to be taken away."""
    store = Away(FileStore(tmp_path / "store"))
    fill(tmp_path / "app.db", 0.1)
    machine = Machine(store, tmp_path / "app.db", staging=tmp_path, patience=0.2)
    assert await machine.backup.cycle.run() == "published"
    return store, machine


async def test_the_last_cycle_does_not_fail_for_a_store_that_does_not_answer(away: tuple[Away, Machine]) -> None:
    """As far as is known everything was published, so 74 would be a false alarm. But success is not reported either."""
    store, machine = away
    store.kinds = {"head"}
    succeeded = machine.status.databases["app.db"].backups["unchanged"]
    assert await machine.backup.final()
    assert machine.status.databases["app.db"].backups["unchanged"] == succeeded
    machine.backup.cycle.coverage.doubt()
    with pytest.raises(StoreUnavailable):
        await machine.backup.cycle.run()


async def test_the_last_cycle_is_no_recovery(machine: Machine, tmp_path: Path) -> None:
    """The missing store was reported: the last cycle must not report that backups work again."""
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    machine.backup.cycle.coverage.doubt()
    assert await machine.backup.attempt() is not None
    assert not await machine.backup.final()
    assert machine.status.databases["app.db"].failing_since is not None


@pytest.mark.parametrize("last", [False, True])
async def test_loss_is_reported_although_the_next_request_fails(
    last: bool, away: tuple[Away, Machine], tmp_path: Path
) -> None:
    """HEAD answered 404, so it does not exist, whatever else is unknown."""
    store, machine = away
    (gone,) = (tmp_path / "store" / "app.db").iterdir()
    gone.unlink()
    store.kinds = {"list"}
    machine.backup.cycle.coverage.doubt()
    failure = await machine.backup.attempt(last=last)
    assert failure is None or machine.status.databases["app.db"].failing_since
    store.kinds = set()
    assert await machine.backup.attempt(last=last) is None
    assert len(await machine.points()) == 1


async def test_an_alarm_of_a_check_ends_soon_after_its_cause(away: tuple[Away, Machine]) -> None:
    """The check wakes the loop, which sleeps for an hour, and the loop tries until all is well."""
    store, machine = away
    status = machine.status.databases["app.db"]
    async with anyio.create_task_group() as group:
        group.start_soon(partial(machine.backup.run, timedelta(hours=1), at_once=False))
        await anyio.sleep(0.05)
        store.kinds = {"head"}
        await machine.backup.look()
        assert status.failing_since
        store.kinds = set()
        with anyio.fail_after(20):
            while status.failing_since:
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()


async def test_an_overwritten_restore_point_is_lost(machine: Machine, tmp_path: Path) -> None:
    """A sync from another place put an empty file under its key."""
    (point,) = (tmp_path / "store" / "app.db").iterdir()
    size = point.stat().st_size
    point.write_bytes(b"")
    machine.backup.cycle.coverage.doubt()
    assert await machine.backup.cycle.run() == "published"
    assert machine.status.problems[0].message.endswith(f"was overwritten: it has 0 bytes instead of {size}")
    assert len(await machine.points()) == 2
