"""A boot looks up the stream, and fetches from it, while it downloads the restore point: the result is the same."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sidecar.errors import AccessDenied
from sidecar.lease.record import KEY, Record
from sidecar.model import Blob, Database, Position, RestorePoint, Span
from sidecar.progress import Progress
from sidecar.repository.history import Path as History
from sidecar.repository.increments import Increments
from sidecar.repository.reader import Reader, Restored
from sidecar.restore.recovery import Recovery
from sidecar.restore.roll_forward import RollForward
from tests.fakes import MemoryStore
from tests.harness.recorded import Recorder, recorded
from tests.integration.streamed import Streamed
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio


class Patient(MemoryStore):
    """Hands out a restore point only once a segment was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: anyio.Event | None = None

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        if self.asked and key.startswith("stream/"):
            self.asked.set()
        elif self.asked and key.startswith(NAME):
            with anyio.fail_after(10):
                await self.asked.wait()
        return await super().get(key, span=span, if_match=if_match, into=into)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Twelve commits."""
    with recorded(tmp_path / "live.db") as recorder:
        for number in range(12):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 900}))")
        yield recorder


@pytest.fixture
def store() -> Patient:
    return Patient()


@pytest.fixture
def scene(store: Patient, recorder: Recorder, tmp_path: Path) -> Streamed:
    return Streamed(store, recorder, tmp_path / "machine")


async def name_newest(store: MemoryStore, point: RestorePoint) -> None:
    """Write a lease that names it, so that a boot reads its metadata first."""
    record = Record(1, "gone", "boot", 60.0, released=True, latest={NAME: point.key})
    await store.put(KEY, record.to_bytes(), metadata=record.to_metadata())


async def test_segments_are_fetched_while_the_restore_point_is_downloaded(scene: Streamed, store: Patient) -> None:
    """Each once, and the stream is looked up once."""
    first, made = await scene.stream(1, 12, None)
    await name_newest(store, await scene.point(4, 4.5, Position(first, 4)))
    store.asked = anyio.Event()
    store.requests.clear()
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert booted.reached
    assert booted.reached.position == Position(first, 12)
    fetched = [key for operation, key in store.requests if operation == "get" and key.startswith("stream/")]
    assert sorted(fetched) == [each.key for each in made[4:]]
    assert sum(operation == "list" and key.startswith("stream/") for operation, key in store.requests) == 1


@pytest.mark.parametrize("claimed", [None, 2, 9])
async def test_metadata_that_names_another_commit_than_the_index_is_not_believed(
    scene: Streamed, store: Patient, claimed: int | None
) -> None:
    """Somebody may have copied the object with a tool that sets its own metadata."""
    first, _ = await scene.stream(1, 12, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    blob = await store.get(newest.key)
    metadata = {name: value for name, value in blob.info.metadata.items() if name not in {"stream", "commit"}}
    if claimed:
        metadata |= {"stream": first, "commit": str(claimed)}
    store.add(newest.key, bytes(blob.data), metadata)
    await name_newest(store, newest)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert booted.reached
    assert booted.reached.commits == 8


async def test_a_damaged_restore_point_falls_back_as_ever(scene: Streamed, store: Patient) -> None:
    first, _ = await scene.stream(1, 12, None)
    await scene.point(2, 2.5, Position(first, 2))
    newest = await scene.point(8, 8.5, Position(first, 8))
    await scene.damage(newest.key)
    await name_newest(store, newest)
    booted = await scene.machine.boot()
    assert booted.outcome == "fell_back"
    assert scene.holds(scene.machine.database.path, 12)


async def test_nothing_is_left_behind_when_the_stream_cannot_be_looked_up(scene: Streamed, store: Patient) -> None:
    """The download has ended by then."""
    first, _ = await scene.stream(1, 12, None)
    await name_newest(store, await scene.point(4, 4.5, Position(first, 4)))

    staged = anyio.Event()

    class Announcing(Reader):
        async def stage(
            self, point: RestorePoint, database: Database, progress: Progress | None = None
        ) -> tuple[Restored, Path]:
            found = await super().stage(point, database, progress)
            assert found[1].exists()
            staged.set()
            return found

    class Refused(Increments):
        async def look(self, *_: object) -> History:
            await staged.wait()
            raise AccessDenied("scripted: no right to list")

    machine = scene.machine
    forward = RollForward(Refused(store), machine.catalog.ends, machine.checker)
    recovery = Recovery(machine.catalog, Announcing(store, machine.checker), forward)
    with pytest.raises(AccessDenied):
        await recovery.stage(await machine.newest(), machine.database)
    assert list(machine.database.path.parent.iterdir()) == []
