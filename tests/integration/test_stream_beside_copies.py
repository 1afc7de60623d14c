"""What a stream has beyond a snapshot stays in the history, whatever happens to the stream while the snapshot is copied."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio import from_thread

from sidecar.database.followed import Place
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.wal import marks
from sidecar.model import Database
from sidecar.restore.boot import Boot, Booted
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME, Machine

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def machine(store: MemoryStore, tmp_path: Path) -> AsyncIterator[StreamingMachine]:
    """It streams, and has a restore point. Its app has the database open."""
    async with streaming(store, tmp_path / NAME, "a") as machine:
        with closing(open_database(tmp_path / NAME)) as app:
            app.execute("PRAGMA journal_mode=wal")
            app.execute("CREATE TABLE notes (text TEXT)")
            await machine.start()
            await machine.backup.cycle.run()
            yield machine


async def write(machine: StreamingMachine, text: str) -> None:
    """Commit, and have it in a confirmed segment."""
    with closing(open_database(machine.database.path)) as app:
        app.execute("INSERT INTO notes VALUES (?)", (text,))
    await machine.publish_segments()


async def restored(store: MemoryStore, directory: Path) -> list[str]:
    """What another machine finds in the store."""
    directory.mkdir()
    machine = Machine(store, directory / NAME, staging=directory)
    await machine.boot()
    with closing(open_database(machine.database.path)) as database:
        return [text for (text,) in database.execute("SELECT text FROM notes ORDER BY rowid")]


def protection(machine: StreamingMachine) -> tuple[bool, bool]:
    """Whether the stream protects anything, and whether everything is protected."""
    return machine.streams.protects, machine.status.databases[NAME].unprotected_since is None


def beside_copy(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do this while the next snapshot is copied."""
    copy = SqliteSnapshotter._backup

    def slowly(self: SqliteSnapshotter, *arguments: Any) -> None:
        monkeypatch.setattr(SqliteSnapshotter, "_backup", copy)
        copy(self, *arguments)
        from_thread.run(work)

    monkeypatch.setattr(SqliteSnapshotter, "_backup", slowly)


async def test_a_stream_that_is_cut_during_the_copy_leads_on_from_it(
    machine: StreamingMachine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had published was reported as protected, and the machine may die before the next restore point."""

    async def meanwhile() -> None:
        await write(machine, "during")
        assert machine.streams.protects
        await machine.cut()

    await write(machine, "before")
    beside_copy(monkeypatch, meanwhile)
    await machine.backup.cycle.run()
    assert not machine.streams.protects, "the next stream is not entered yet"
    assert await restored(store, tmp_path / "other") == ["before", "during"]


async def test_more_commits_during_a_copy_than_the_follower_remembers(
    machine: StreamingMachine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "KEPT", 10)

    async def meanwhile() -> None:
        for number in range(30):
            await write(machine, str(number))

    beside_copy(monkeypatch, meanwhile)
    await machine.backup.cycle.run()
    await write(machine, "after")
    assert await restored(store, tmp_path / "other") == [*map(str, range(30)), "after"]


async def test_a_restore_point_without_a_place_in_the_stream_ends_its_protection(
    machine: StreamingMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream leads on from an older restore point only, so nothing that came after the snapshot is protected."""

    async def meanwhile() -> None:
        await write(machine, "during")

    async def nowhere(_place: Place) -> None:
        pass

    await write(machine, "before")
    monkeypatch.setattr(Place, "locate", nowhere)
    beside_copy(monkeypatch, meanwhile)
    await machine.backup.cycle.run()
    machine.backup.cycle.source.observe()
    assert protection(machine) == (False, False)
    monkeypatch.undo()
    await machine.backup.cycle.run()
    assert machine.streams.protects
    await (
        machine.publish_segments()
    )  # the follower may have touched the files since, which looks like a change at first
    assert protection(machine) == (True, True)


async def test_a_stream_continues_nothing_where_another_container_may_have_written_first(
    machine: StreamingMachine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the restore and the begin of the stream lies the restore of all other databases."""
    boot = Boot.boot
    await write(machine, "first")
    (tmp_path / "second").mkdir()
    async with streaming(store, tmp_path / "second" / NAME, "a") as second:

        async def booted(self: Boot, database: Database, *arguments: Any) -> Booted:
            how = await boot(self, database, *arguments)
            with closing(open_database(database.path)) as app:
                app.execute("CREATE TABLE unseen (text TEXT)")
            return how

        monkeypatch.setattr(Boot, "boot", booted)
        await second.start(alone=False)
        monkeypatch.undo()
        with closing(open_database(second.database.path)) as app:
            app.execute("SELECT text FROM notes").fetchall()
            await write(second, "second")
            assert not second.streams.protects
            assert await restored(store, tmp_path / "third") == ["first"], (
                "what protects nothing is not mixed in either"
            )
            await second.backup.cycle.run()
            await write(second, "third")
        assert await restored(store, tmp_path / "fourth") == ["first", "second", "third"]
