"""The end of a daemon: what the final backup could not publish keeps the lease for this machine, whose disk has it."""

from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.backup.final import FinalBackup
from sidecar.backup.on_demand import OnDemand
from sidecar.daemon.shutdown import Shutdown
from sidecar.errors import FinalBackupFailed, StoreUnavailable
from sidecar.lease.document import read_lease
from sidecar.lease.lease import Lease
from sidecar.monitoring.incidents import Incidents
from sidecar.policies import OnLeaseLost
from tests.fakes import MemoryStore
from tests.integration.wiring import NAME, Machine, write

pytestmark = pytest.mark.anyio


async def started(store: MemoryStore, directory: Path) -> tuple[Machine, Lease]:
    """A machine that holds the lease, has published once, and whose app has written since."""
    machine = Machine(store, directory / NAME, staging=directory, holder="m1", patience=0.1)
    assert machine.lease
    write(machine.database.path, 1)
    await machine.lease.acquire(timedelta(0))
    await machine.backup.cycle.run()
    write(machine.database.path, 1)
    machine.lease.retain = True
    return machine, machine.lease


def shutdown_of(machine: Machine, lease: Lease) -> Shutdown:
    backups = [machine.backup]
    return Shutdown(
        FinalBackup(backups, machine.diverged_line, lease, machine.status),
        OnDemand(backups, machine.status),
        Incidents(machine.catalog, machine.status, lease),
        lease,
        machine.status,
        machine.clock,
        timedelta(seconds=1),
        OnLeaseLost.STOP,
    )


async def is_released(machine: Machine) -> bool:
    seen = await read_lease(machine.store)
    assert seen
    return seen.record.released


@pytest.mark.parametrize("status", [0, 3])
async def test_published_state_gives_the_lease_back(status: int, tmp_path: Path) -> None:
    """Whatever the app's status is: there is a final backup, and the next machine need not wait."""
    machine, lease = await started(MemoryStore(), tmp_path)
    before = await machine.newest()
    assert await shutdown_of(machine, lease).run(status, 1.0) == status
    assert (await machine.newest()).key > before.key
    await lease.release()
    assert await is_released(machine)


async def test_unpublished_state_retains_the_lease(tmp_path: Path) -> None:
    """The store is down at the end, and back before the process ends: this machine is still the one to come back."""
    store = MemoryStore()
    machine, lease = await started(store, tmp_path)

    def down(_operation: str, _key: str) -> None:
        raise StoreUnavailable("down")

    store.hook = down
    with pytest.raises(FinalBackupFailed):
        await shutdown_of(machine, lease).run(0, 1.0)
    store.hook = None
    await lease.release()
    assert not await is_released(machine)
