"""Why did a backup not happen? One debug line of each cycle says how it ended, and which check decided that."""

from collections.abc import MutableMapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from sidecar.backup.history import Start
from sidecar.database.findings import CheckReport
from sidecar.errors import DatabaseMissing, SidecarError, StoreUnavailable
from tests.fakes import MemoryStore
from tests.integration.wiring import NAME, Machine, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def machine(store: MemoryStore, tmp_path: Path) -> Machine:
    return Machine(store, tmp_path / NAME, staging=tmp_path, patience=0.1)


async def line_of_a_cycle(machine: Machine) -> MutableMapping[str, Any]:
    """The one debug line of a cycle, whether it fails or not."""
    with capture_logs() as lines, suppress(SidecarError):
        await machine.backup.cycle.run()
    (line,) = [each for each in lines if each["log_level"] == "debug"]
    assert (line["event"], line["database"]) == ("backup cycle ended", NAME)
    assert line["seconds"] >= 0
    return line


async def outcome_and_reason(machine: Machine) -> tuple[str, str]:
    line = await line_of_a_cycle(machine)
    return line["outcome"], line["reason"]


async def test_each_outcome_is_logged_with_its_reason(machine: Machine, store: MemoryStore) -> None:
    """No database yet; changes; nothing new for stat; nothing new in the content; a publish that was asked for."""
    assert await outcome_and_reason(machine) == ("waiting", "the app has not created the database yet")
    write(machine.database.path, 1)
    assert await outcome_and_reason(machine) == ("published", "files changed since the last restore point")
    assert await outcome_and_reason(machine) == ("unchanged", "content unchanged since the last restore point")
    await anyio.sleep(1.1)  # stat of a file that was written a moment ago proves nothing
    await machine.backup.cycle.run()
    assert await outcome_and_reason(machine) == ("unchanged", "files unchanged since the last restore point")
    machine.backup.cycle.start_from(Start(publish="a test asked for it"))
    assert await outcome_and_reason(machine) == ("published", "a test asked for it")


async def test_a_restore_point_that_is_gone_is_the_reason(machine: Machine, store: MemoryStore) -> None:
    """Also where stat proves nothing, and the content is as before."""
    write(machine.database.path, 1)
    await machine.backup.cycle.run()
    key = machine.backup.cycle.newest_key
    assert key
    del store.objects[key]
    machine.backup.cycle.coverage.doubt()
    assert await outcome_and_reason(machine) == ("published", f"restore point {key} is damaged or gone")


async def test_failures_name_the_check_that_failed(machine: Machine, store: MemoryStore) -> None:
    """The store is down; the lease was never acquired; the database was deleted."""
    write(machine.database.path, 1)
    store.hook = _down
    line = await line_of_a_cycle(machine)
    assert (line["outcome"], line["reason"]) == ("failed", "StoreUnavailable: down")
    store.hook = None
    await machine.backup.cycle.run()
    machine.database.path.unlink()
    outcome, reason = await outcome_and_reason(machine)
    assert outcome == "failed"
    assert reason.startswith(f"{DatabaseMissing.__name__}: {machine.database.path} is gone")
    fenced = Machine(store, machine.database.path, holder="m1", ttl=timedelta(minutes=1))
    assert (await outcome_and_reason(fenced))[1].startswith("LeaseLost: ")


def _down(_operation: str, _key: str) -> None:
    raise StoreUnavailable("down")


async def test_the_estimate_of_a_final_backup_is_without_the_check(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first copy of a process is checked for up to a minute; the last one only where that is quick."""

    async def slow(path: Path, mode: str, yield_to_app: object = None) -> CheckReport:
        await anyio.sleep(1.0)
        return CheckReport(mode)

    took = anyio.current_time()

    monkeypatch.setattr(machine.checker, "check", slow)
    write(machine.database.path, 1)
    await machine.backup.cycle.run()
    took = anyio.current_time() - took
    estimate = machine.status.final_estimate()
    assert estimate is not None
    assert 0.0 < estimate <= took - 1.0
