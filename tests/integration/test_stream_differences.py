"""What a machine sends of pages: what changed in them, and after each restore point the whole page once."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.model import Snapshot
from sidecar.repository.format.increment import decode
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME, Machine

pytestmark = pytest.mark.anyio

Scene = tuple[StreamingMachine, Any, MemoryStore]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A machine that streams; its database has a row of which each commit changes some bytes, and has a restore point."""
    store = MemoryStore()
    (tmp_path / "live").mkdir()
    path = tmp_path / "live" / NAME
    async with streaming(store, path, "a") as machine:
        with closing(open_database(path)) as app:
            app.execute("PRAGMA journal_mode=wal")
            app.execute("CREATE TABLE notes (number INTEGER, text BLOB)")
            app.execute("INSERT INTO notes VALUES (0, randomblob(3000))")
            await machine.start()
            await machine.backup.cycle.run()
            yield machine, app, store


async def commit(scene: Scene) -> bool:
    """Change the row, and publish that. Whether the segment has only what changed."""
    machine, app, store = scene
    app.execute("UPDATE notes SET number = number + 1")
    before = set(store.objects)
    await machine.publish_segments()
    (key,) = {each for each in store.objects if each.startswith("stream/")} - before
    (record,) = decode(store.objects[key].data, key).records
    return bool(record.differences)


async def test_pages_are_sent_whole_once_after_each_restore_point(scene: Scene, tmp_path: Path) -> None:
    """And every restore point leads on to the last commit."""
    machine, _, store = scene
    assert [await commit(scene) for _ in range(3)] == [False, True, True]
    assert machine.streams.uploaded * 2 < machine.streams.whole_pages
    await machine.backup.cycle.run()
    assert [await commit(scene) for _ in range(3)] == [False, True, True]
    assert await restored(store, tmp_path / "newest") == 6
    del store.objects[max(key for key in store.objects if key.startswith(f"{NAME}/"))]
    assert await restored(store, tmp_path / "older") == 6


async def test_pages_are_whole_while_nobody_knows_where_a_copy_begins(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is known before the copy is published."""
    machine, _, _ = scene
    seen: list[bool] = []
    snapshots, ended = machine.backup.cycle.source.snapshotter.snapshot, machine.stream.copies.place
    assert [await commit(scene) for _ in range(2)] == [False, True]

    def snapshot(path: Path, choose: Any = None) -> Any:
        return _Before(snapshots(path, choose), scene, seen)

    def place(found: Any) -> None:
        ended(found)
        seen.append(found is not None)

    monkeypatch.setattr(machine.backup.cycle.source.snapshotter, "snapshot", snapshot)
    monkeypatch.setattr(machine.stream.copies, "place", place)
    await machine.backup.cycle.run()
    assert seen[:3] == [False, False, True]
    assert [await commit(scene) for _ in range(2)] == [False, True]


class _Before:
    """A snapshot before which commits are made and published."""

    def __init__(self, snapshot: Any, scene: Scene, seen: list[bool]) -> None:
        self._snapshot, self._scene, self._seen = snapshot, scene, seen

    async def __aenter__(self) -> Snapshot:
        self._seen += [await commit(self._scene) for _ in range(2)]
        entered: Snapshot = await self._snapshot.__aenter__()
        return entered

    async def __aexit__(self, *args: object) -> bool | None:
        left: bool | None = await self._snapshot.__aexit__(*args)
        return left


async def test_a_copy_that_fails_leaves_differences_possible(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, _, _ = scene

    def snapshot(_path: Path, _choose: Any = None) -> Any:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(machine.backup.cycle.source.snapshotter, "snapshot", snapshot)
        with pytest.raises(OSError, match="no"):
            async with machine.backup.cycle.source.copy():
                pass
    assert [await commit(scene) for _ in range(2)] == [False, True]


async def restored(store: MemoryStore, directory: Path) -> int:
    """The number in the row that another machine finds."""
    directory.mkdir()
    machine = Machine(store, directory / NAME, staging=directory)
    await machine.boot()
    with closing(open_database(machine.database.path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(database.execute("SELECT number FROM notes").fetchone()[0])
