"""`restore_points=auto`: a restore point waits while it adds little to the stream, and never longer than that."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup import need
from sidecar.backup.need import Spacing
from sidecar.database.wal import CutCause
from sidecar.errors import StoreUnavailable
from sidecar.host.clock import SystemClock
from sidecar.status import Level, of_database
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME, Machine

pytestmark = pytest.mark.anyio

MINUTES = 60.0
INTERVAL = 5 * MINUTES


class Later(SystemClock):
    """A clock that a test advances."""

    ahead = 0.0

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() + self.ahead


class Scene:
    """A machine that streams, whose restore points are by need, with its app, and a newest restore point of this process."""

    def __init__(self, machine: StreamingMachine, store: MemoryStore, app: Any) -> None:
        self.machine, self.store, self.app, self.clock = machine, store, app, Later()
        status = machine.status.databases[NAME]
        machine.status.by_need, machine.status.interval = True, timedelta(seconds=INTERVAL)
        machine.backup.cycle.coverage._spacing = Spacing(status, self.clock, INTERVAL, 60.0)

    async def commit(self, size: int = 10) -> None:
        """The app commits, and the stream has it."""
        self.app.execute("INSERT INTO notes VALUES (hex(randomblob(?)))", (size,))
        await self.machine.publish_segments()

    async def cycle(self) -> str | None:
        """The outcome of the next cycle that the schedule begins."""
        await self.machine.backup.attempt(patient=True)
        return self.machine.status.databases[NAME].last_outcome


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(need, "SMALL", 0)
    store = MemoryStore()
    async with streaming(store, tmp_path / NAME, "a") as machine:
        with closing(open_database(tmp_path / NAME)) as app:
            app.execute("PRAGMA journal_mode=wal")
            app.execute("CREATE TABLE notes (text TEXT)")
            app.execute("INSERT INTO notes VALUES (hex(randomblob(100000)))")
        await machine.start()
        with closing(open_database(tmp_path / NAME)) as app:
            made = Scene(machine, store, app)
            await made.commit()
            assert await made.cycle() == "published"
            await made.commit()
            yield made


async def test_what_the_stream_has_waits_and_is_protected(scene: Scene, tmp_path: Path) -> None:
    """It counts as a success, so that no alert about overdue backups fires, and a restore has every commit."""
    before = await scene.machine.points()
    assert [await scene.cycle() for _ in range(3)] == ["streamed"] * 3
    await scene.machine.publish_segments()
    database = scene.machine.status.databases[NAME]
    assert await scene.machine.points() == before
    assert (database.backups["streamed"], database.unprotected_since) == (3, None)
    assert database.last_success is not None
    (tmp_path / "copy").mkdir()
    copy = Machine(scene.store, tmp_path / "copy" / NAME, staging=tmp_path / "copy")
    await copy.boot()
    with closing(open_database(copy.database.path)) as restored:
        assert restored.execute("SELECT count(*) FROM notes").fetchone() == (3,)


async def _an_hour_passes(scene: Scene) -> None:
    scene.clock.ahead += 60 * MINUTES - INTERVAL + 1


async def _much_is_streamed(scene: Scene) -> None:
    await scene.commit(60_000)


async def _the_stream_is_cut(scene: Scene) -> None:
    await scene.machine.cut()


async def _the_stream_is_doubted(scene: Scene) -> None:
    scene.machine.stream.distrust("by the test", CutCause.REPLACED)


async def _the_stream_lags(scene: Scene) -> None:
    scene.machine.streams.pending_since = scene.clock.now() - timedelta(seconds=61)


async def _the_newest_is_gone(scene: Scene) -> None:
    del scene.store.objects[(await scene.machine.points())[-1].key]
    scene.machine.backup.cycle.coverage.doubt()


async def _somebody_asks(scene: Scene) -> None:
    scene.machine.backup.demand("by the test")


async def _a_backup_failed(scene: Scene) -> None:
    scene.machine.status.failed(NAME, "by the test", "")


@pytest.mark.parametrize(
    "event",
    [
        _an_hour_passes,
        _much_is_streamed,
        _the_stream_is_cut,
        _the_stream_is_doubted,
        _the_stream_lags,
        _the_newest_is_gone,
        _somebody_asks,
        _a_backup_failed,
    ],
    ids=lambda event: event.__name__.strip("_").replace("_", " "),
)
async def test_it_does_not_wait(event: Callable[[Scene], Awaitable[None]], scene: Scene) -> None:
    assert await scene.cycle() == "streamed"
    await event(scene)
    assert await scene.cycle() == "published"


async def test_nobody_waits_who_asked_and_nothing_waits_at_the_end(scene: Scene) -> None:
    assert await scene.cycle() == "streamed"
    assert await scene.machine.backup.attempt() is None
    assert scene.machine.status.databases[NAME].last_outcome == "published"
    await scene.commit()
    assert await scene.cycle() == "streamed"
    assert await scene.machine.final.run(20.0)
    assert scene.machine.status.databases[NAME].last_outcome == "published"


async def test_a_store_that_is_down_is_not_hidden(scene: Scene) -> None:
    """Whether the restore point that the stream continues is still there is asked as often as without changes."""
    scene.machine.backup.cycle.coverage.doubt()
    scene.store.hook = _down
    scene.machine.streams.pending_since = scene.clock.now() - timedelta(seconds=61)
    assert await scene.machine.backup.attempt(patient=True) is not None
    assert scene.machine.status.databases[NAME].failing_since


def _down(operation: str, _key: str) -> None:
    raise StoreUnavailable(f"down: {operation}")


async def test_an_hour_of_changes_that_only_the_stream_has_needs_no_attention(scene: Scene) -> None:
    status, database = scene.machine.status, scene.machine.status.databases[NAME]
    status.phase = "running"
    database.changed_since = status.now() - timedelta(hours=1, minutes=10)
    assert of_database(status, database).level is Level.GOOD
    database.changed_since = status.now() - timedelta(hours=1, minutes=16)
    assert of_database(status, database).level is Level.ATTENTION
