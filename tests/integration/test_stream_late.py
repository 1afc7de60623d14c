"""A stream that begins after the app did continues what the boot restored, unless something has come in between."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.model import AtRestorePoint
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME, Machine

pytestmark = pytest.mark.anyio

Scene = tuple[StreamingMachine, Any, MemoryStore, Any]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A machine that has restored the only restore point; its app has a commit in the log, and a reader that keeps it there."""
    store = MemoryStore()
    (tmp_path / "before").mkdir()
    before = Machine(store, tmp_path / "before" / NAME, staging=tmp_path)
    with closing(open_database(before.database.path)) as app:
        app.execute("PRAGMA journal_mode=wal")
        app.execute("CREATE TABLE notes (text TEXT)")
    await before.boot()
    await before.backup.cycle.run()
    (tmp_path / "after").mkdir()
    async with streaming(store, tmp_path / "after" / NAME, "a", late=True) as machine:
        await machine.start()
        path = machine.database.path
        with closing(open_database(path)) as app, closing(open_database(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM notes").fetchall()
            app.execute("INSERT INTO notes VALUES ('one')")
            machine.used = True
            yield machine, app, store, reader


async def restored(store: MemoryStore, directory: Path) -> int:
    """The rows that another machine finds."""
    directory.mkdir()
    machine = Machine(store, directory / NAME, staging=directory)
    await machine.boot()
    with closing(open_database(machine.database.path)) as database:
        return int(database.execute("SELECT count(*) FROM notes").fetchone()[0])


async def test_it_continues_the_restore_point_and_has_every_commit(scene: Scene, tmp_path: Path) -> None:
    machine, app, store, _ = scene
    assert machine.streams.reason.startswith("streaming begins once the app has opened the database")
    await machine.publish_segments()
    app.execute("INSERT INTO notes VALUES ('two')")
    await machine.publish_segments()
    assert (machine.streams.protects, machine.streams.commits) == (True, 2)
    assert machine.stream._writer is not None
    assert isinstance(machine.stream._writer._start.after, AtRestorePoint)
    assert await restored(store, tmp_path / "elsewhere") == 2


async def _checkpoint(scene: Scene) -> None:
    _, app, _, reader = scene
    reader.execute("ROLLBACK")
    app.execute("PRAGMA wal_checkpoint(PASSIVE)")


async def _publish(scene: Scene) -> None:
    assert await scene[0].backup.cycle.run() == "published"


def _protects(scene: Scene) -> bool:
    return scene[0].streams.protects


@pytest.mark.parametrize("between", [_checkpoint, _publish])
async def test_it_claims_nothing_where_something_came_in_between(
    scene: Scene, tmp_path: Path, between: Callable[[Scene], Awaitable[None]]
) -> None:
    """A log that may have been reset, or a restore point that names no stream: the next restore point is the entry."""
    machine, app, store, _ = scene
    await between(scene)
    app.execute("INSERT INTO notes VALUES ('two')")
    await machine.publish_segments()
    assert not _protects(scene)
    machine.backup.demand("a stream has begun")
    await _publish(scene)
    app.execute("INSERT INTO notes VALUES ('three')")
    await machine.publish_segments()
    assert _protects(scene)
    assert await restored(store, tmp_path / "elsewhere") == 3
