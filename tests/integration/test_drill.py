"""Drills with real SQLite, over a directory and S3: what is good is proven, what is damaged is found and replaced."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.bootstrap import open_services
from sidecar.database.staging import Staging
from sidecar.errors import DamagedRestorePoint
from sidecar.model import RestorePoint
from sidecar.repository.drill_tag import DrillOutcome, drilled_of
from sidecar.repository.reader import Reader
from sidecar.repository.reuse import Parent
from sidecar.restore import proof
from sidecar.restore.proof import Prover
from sidecar.settings.load import load
from sidecar.status.serialize import as_json
from sidecar.storage.base import ObjectStore
from tests.harness.writers import fill
from tests.integration.test_reuse import change
from tests.integration.wiring import Machine

pytestmark = pytest.mark.anyio

MEGABYTES = 24


@pytest.fixture(autouse=True)
def _at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "DISK_RATE", 1 << 30)


@pytest.fixture
async def machine(store: ObjectStore, tmp_path: Path) -> Machine:
    """A machine that has published a database, and a change of one page that reuses most of it."""
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    fill(path, MEGABYTES)
    machine = Machine(store, path, staging=tmp_path)
    await machine.backup.cycle.run()
    change(path, "CREATE TABLE one_page (x)")
    await machine.backup.cycle.run()
    assert machine.status.databases["app.db"].reused
    return machine


async def damage(machine: Machine, point: RestorePoint, place: int) -> None:
    """Change one bit of an object behind the program's back, its metadata kept."""
    blob = await machine.store.get(point.key)
    rotten = bytearray(blob.data)
    rotten[place] ^= 0x10
    await machine.store.put(point.key, bytes(rotten), metadata=blob.info.metadata)


async def verdicts(machine: Machine) -> list[str | None]:
    """What the tags say of each restore point, oldest first."""
    found = [drilled_of(await machine.store.tags(point.key)) for point in await machine.points()]
    return [each.outcome.value if each else None for each in found]


async def test_good_restore_point_is_proven_and_says_so(machine: Machine, tmp_path: Path) -> None:
    """In `/status`, and in the store; its tags otherwise, and those of the one before it, are as they were."""
    await machine.store.tag((await machine.newest()).key, {"mine": "1"})
    before = [await machine.store.tags(point.key) for point in await machine.points()]
    assert await machine.drill().drill() is DrillOutcome.GOOD
    newest = await machine.newest()
    status = machine.status.databases["app.db"]
    assert (status.proven, status.drill_outcome, status.drills["good"]) == (newest.key, "good", 1)
    assert status.last_drill
    assert await verdicts(machine) == [None, "good"]
    after = [await machine.store.tags(point.key) for point in await machine.points()]
    assert after == [before[0], {**before[1], "sidecar-drill": after[1]["sidecar-drill"]}]
    assert await machine.backup.cycle.run() == "unchanged"
    assert list(tmp_path.glob("sidecar-*")) == []
    change(machine.database.path, "CREATE TABLE another (x)")
    assert await machine.backup.cycle.run() == "published"
    tags = await machine.store.tags(newest.key)
    assert sorted(tags) == ["mine", "sidecar-drill", "sidecar-tier"], "superseding keeps what the drill wrote"


@pytest.mark.parametrize("place", [100_000, -3_000_000, -1])
async def test_damage_is_found_reported_and_followed_by_a_whole_new_restore_point(
    machine: Machine, tmp_path: Path, place: int
) -> None:
    """
    1. One bit of the newest object is flipped, in what was copied, in what was uploaded, in its tail.
    2. The drill finds it, says so, and publishes at once, although nothing changed; nothing is copied from it.
    3. The new one is proven by the next drill, and the one after that reuses again.
    """
    rotten = await machine.newest()
    await damage(machine, rotten, place)
    status = machine.status.databases["app.db"]
    reused, uploaded = status.reused, status.uploaded
    assert await machine.drill().drill() is DrillOutcome.DAMAGED
    newest = await machine.newest()
    assert newest.key > rotten.key
    assert (status.reused, status.uploaded) == (reused, uploaded + newest.size)
    assert await verdicts(machine) == [None, "damaged", None]
    assert (status.drills["damaged"], status.drill_outcome, status.last_drill) == (1, "damaged", None)
    assert status.drill_error
    assert "drill: damaged" in json.dumps(as_json(machine.status)["problems"])
    assert await machine.drill().drill() is DrillOutcome.GOOD
    assert status.proven == newest.key
    change(machine.database.path, "CREATE TABLE another (x)")
    assert await machine.backup.cycle.run() == "published"
    assert status.reused > reused


class Asked(Staging):
    """Staging that remembers how much room was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def reserve(self, database: Path, size: int) -> Any:
        """See `base.Staging`."""
        self.sizes.append(size)
        return super().reserve(database, size)


async def test_a_drill_leaves_a_backup_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put together as `run` does: scratch is had only where a snapshot beside it, and the app, have as much once more."""
    monkeypatch.chdir(tmp_path)
    path, asked = tmp_path / "app.db", Asked()
    fill(path, 1)
    environment = {"SIDECAR_DATABASES": str(path), "SIDECAR_STORE": f"file://{tmp_path}/store", "SIDECAR_LEASE": "off"}
    async with open_services(load({}, environment)) as parts:
        watched = replace(parts, staging=asked)
        (backup,) = watched.backups(watched.fence())
        await backup.cycle.run()
        assert await watched.drill(backup, anyio.Lock()).drill() is DrillOutcome.GOOD
    assert asked.sizes == [3 * path.stat().st_size]


async def test_damage_that_was_copied_meanwhile_is_not_copied_on(machine: Machine) -> None:
    """The newest is damaged; before the drill says so, the next one has copied from it: what follows is whole again."""
    await damage(machine, await machine.newest(), 9_000_000)
    drill = machine.drill()
    # The copy's condition (CopySourceIfMatch) would notice an object that was replaced, but not bits that rot in place.
    machine.backup.cycle._history.base = Parent(*(await machine.reader.contents(await machine.newest())))
    change(machine.database.path, "CREATE TABLE another (x)")
    await machine.backup.cycle.run()
    assert await drill.drill() is DrillOutcome.DAMAGED
    assert await drill.drill() is DrillOutcome.GOOD


async def test_while_the_database_cannot_be_published_it_is_unprotected(machine: Machine) -> None:
    """Its only newer copy is damaged: since then, not since now. The next cycle tries the full publish again."""
    point = await machine.newest()
    await damage(machine, point, 100_000)
    path = machine.database.path
    path.rename(path.with_name("gone"))
    assert await machine.drill().drill() is DrillOutcome.DAMAGED
    status = machine.status.databases["app.db"]
    assert status.unprotected_since == point.timestamp.instant
    assert status.last_outcome == "failed"
    path.with_name("gone").rename(path)
    assert await machine.backup.cycle.run() == "published"
    assert machine.status.unprotected("app.db") == 0
    assert await machine.drill().drill() is DrillOutcome.GOOD


async def test_prover_does_without_the_database(machine: Machine, tmp_path: Path) -> None:
    """It proves what is in the store, and finds damage there, whatever is or is not on this machine."""
    prover = Prover(
        Reader(machine.store, machine.checker, integrity="full"), Staging(tmp_path), machine.database, "drill"
    )
    machine.database.path.unlink()
    point = await machine.newest()
    await prover.prove(point)
    assert not machine.database.path.exists()
    await damage(machine, point, 100_000)
    with pytest.raises(DamagedRestorePoint):
        await prover.prove(await machine.newest())
    assert list(tmp_path.glob("sidecar-*")) == []


async def test_nothing_to_prove_is_no_drill(store: ObjectStore, tmp_path: Path) -> None:
    machine = Machine(store, tmp_path / "app.db", staging=tmp_path)
    assert await machine.drill().drill() is None
    assert sum(machine.status.databases["app.db"].drills.values()) == 0


async def test_cancelled_drill_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    """At any of its waits."""
    for seconds in (0.0, 0.01, 0.05, 0.2):
        with anyio.move_on_after(seconds):
            await machine.drill().drill()
        assert list(tmp_path.glob("sidecar-*")) == []
    assert await machine.drill().drill() is DrillOutcome.GOOD


async def test_a_restore_point_that_is_gone_is_damage(machine: Machine, tmp_path: Path) -> None:
    """Deleted by hand or by a wrong rule: an idle app's cycles ask the store nothing, so that only a drill can see it."""
    gone = await machine.newest()
    if not machine.store.url.startswith("file://"):
        pytest.skip("the store has no delete")
    for path in Path(machine.store.url.removeprefix("file://")).glob("*/*.zst"):
        path.unlink()
    assert await machine.drill().drill() is DrillOutcome.DAMAGED
    newest = await machine.newest()
    assert newest.key > gone.key
    assert await machine.drill().drill() is DrillOutcome.GOOD
