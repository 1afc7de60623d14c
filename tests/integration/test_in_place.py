"""Restore points of a streamed database of which only what has changed is read."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.backup import FinalBackup, in_place
from sidecar.backup.need import Spacing
from sidecar.database.wal import CutCause, Stamps
from sidecar.errors import ConfigurationError, StoreUnavailable
from sidecar.model import Snapshot
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.status.problems import Kind
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio

MIB = 24
ROWS = MIB * 4  # of a quarter of a MiB


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqlProcess]:
    with SqlProcess(tmp_path / NAME) as app:
        app.script("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        for _ in range(ROWS):
            app.run("INSERT INTO t (a) VALUES (randomblob(260000))")
        app.script("PRAGMA wal_checkpoint(TRUNCATE)", "CREATE TABLE u (a)")
        yield app


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def machine(app: SqlProcess, store: MemoryStore, tmp_path: Path) -> AsyncIterator[StreamingMachine]:
    """It streams, and has a restore point."""
    async with streaming(store, tmp_path / NAME, "a") as machine:
        await machine.start()
        assert await cycle(machine, app) == "published"
        yield machine


@pytest.fixture
def read(machine: StreamingMachine) -> list[Snapshot]:
    """The snapshots that are published."""
    found: list[Snapshot] = []
    publish = machine.backup.cycle._main_line.publish

    async def recorded(snapshot: Snapshot, *more: Any) -> Any:
        found.append(snapshot)
        return await publish(snapshot, *more)

    machine.backup.cycle._main_line.publish = recorded  # type: ignore[method-assign, assignment]
    return found


async def cycle(machine: StreamingMachine, app: SqlProcess, *, last: bool = False) -> str:
    app.run("INSERT INTO u VALUES (randomblob(100))")
    await machine.publish_segments()
    return await machine.backup.cycle.run(last=last)


async def require_true_copy(machine: StreamingMachine) -> None:
    """The newest restore point is what SQLite's backup copies."""
    target = machine.database.path.with_name("restored.db")
    await machine.reader.download(await machine.newest(), target)
    async with machine.snapshotter.snapshot(machine.database.path) as full:
        assert target.read_bytes() == full.content.read_bytes()
    target.unlink()


def suspicions(machine: StreamingMachine) -> list[str]:
    return [each.message for each in machine.status.problems if each.kind is Kind.SUSPICION]


async def test_only_what_changed_is_read(machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]) -> None:
    app.run(f"UPDATE t SET a = randomblob(260000) WHERE id = {ROWS // 2}")
    assert await cycle(machine, app) == "published"
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [False, False]
    assert [len(each.read or ()) for each in read] < [7, 5]
    assert suspicions(machine) == []
    await require_true_copy(machine)


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM t WHERE id % 3 = 0", "VACUUM"],
        [
            "DELETE FROM t WHERE id > 20",
            "VACUUM",
            "INSERT INTO t (a) VALUES (randomblob(9000000)), (randomblob(9000000))",
        ],
        [
            "PRAGMA auto_vacuum = 1",
            "VACUUM",
            "DELETE FROM t WHERE id < 20",
            "INSERT INTO t (a) VALUES (randomblob(99))",
        ],
        ["PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE t SET a = zeroblob(260000) WHERE id % 10 = 3"],
        ["BEGIN", "DELETE FROM t", "ROLLBACK", "INSERT INTO u VALUES (randomblob(3000000))"],
    ],
)
async def test_whatever_the_app_does_is_in_it(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], statements: list[str]
) -> None:
    for _ in range(2):
        app.script(*statements)
        assert await cycle(machine, app) == "published"
        await require_true_copy(machine)
    assert await cycle(machine, app) == "published"
    await require_true_copy(machine)
    assert read[-1].read is not None
    assert suspicions(machine) == []


async def test_what_is_only_in_the_log_is_in_it(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """A reader of the app's keeps checkpoints from copying it into the file."""
    with SqlProcess(machine.database.path) as reader:
        reader.script("BEGIN", "SELECT count(*) FROM u")
        app.run(f"UPDATE t SET a = randomblob(260000) WHERE id = {ROWS // 2}")
        assert await cycle(machine, app) == "published"
        await require_true_copy(machine)
        app.run(f"UPDATE t SET a = randomblob(260000) WHERE id = {ROWS // 2}")
        assert await cycle(machine, app) == "published"
        await require_true_copy(machine)
    assert [each.read is None for each in read] == [False, False]


async def test_a_refused_restore_point_is_no_parent(
    machine: StreamingMachine, store: MemoryStore, app: SqlProcess, read: list[Snapshot]
) -> None:
    """What changed before it counts for the next one, too; the same if it is there, but nobody knows."""
    for row, broken in enumerate([store.fail, store.lose_reply]):
        app.run(f"UPDATE t SET a = randomblob(260000) WHERE id = {10 + 30 * row}")
        app.run("INSERT INTO u VALUES (1)")
        await machine.publish_segments()
        broken("complete_upload", ConfigurationError("by the test"))
        with pytest.raises(ConfigurationError):
            await machine.backup.cycle.run()
        store._failures.clear()
        assert await cycle(machine, app) == "published"
        assert read[-1].read is not None
        await require_true_copy(machine)


async def test_without_its_parent_everything_is_copied(
    machine: StreamingMachine, store: MemoryStore, app: SqlProcess, read: list[Snapshot]
) -> None:
    """In the same cycle."""
    del store.objects[(await machine.newest()).key]
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [False, True]
    await require_true_copy(machine)


async def test_after_a_cut_everything_is_copied(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    await machine.cut()
    assert await cycle(machine, app) == "published"
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [True, False]
    await require_true_copy(machine)


@pytest.fixture
def unseen(machine: StreamingMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower does not see by the times of the file that somebody has written it."""
    monkeypatch.setattr(Stamps, "essence", property(lambda stamps: (stamps.inode, stamps.size)))


def write_past(path: Path, *mib: int) -> None:
    """As `dd conv=notrunc` does."""
    with path.open("r+b") as file:
        for each in mib:
            file.seek(each * CHUNK_SIZE + CHUNK_SIZE // 2 + 100)  # inside of a page of a long value
            file.write(b"past the log")


def is_cut(machine: StreamingMachine) -> bool:
    distrusted = machine.stream._distrusted
    return distrusted is not None and distrusted.cause is CutCause.REPLACED


@pytest.mark.usefixtures("unseen")
async def test_a_write_past_the_log_is_found_by_the_rolling_comparison(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, the stream is cut, and it is in the restore point, of which everything was copied."""
    monkeypatch.setattr(in_place, "TURNS", MIB)
    write_past(machine.database.path, 9)
    for _ in range(MIB):
        assert await cycle(machine, app) == "published"
        if is_cut(machine):
            break
    assert any("MiB 9 of the file changed although no commit wrote there" in each for each in suspicions(machine))
    assert read[-1].read is None
    await require_true_copy(machine)
    assert b"past the log" in machine.database.path.read_bytes()


@pytest.mark.usefixtures("unseen")
async def test_the_last_restore_point_compares_everything(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    write_past(machine.database.path, 17)
    assert await cycle(machine, app, last=True) == "published"
    assert any("MiB 17 of the file changed" in each for each in suspicions(machine))
    await require_true_copy(machine)


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("last", [True, False])
async def test_what_an_earlier_restore_point_took_over_is_compared_although_nothing_changed_since(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], last: bool
) -> None:
    """The earlier one has what was there before the write, and no other would follow."""
    write_past(machine.database.path, 9)
    assert await cycle(machine, app) == "published"
    settled(machine)
    assert await machine.backup.cycle.run(last=last) == "published"
    assert [each.read is None for each in read] == [False, True]
    assert is_cut(machine)
    assert any("MiB 9 of the file changed" in each for each in suspicions(machine))
    await require_true_copy(machine)


async def test_what_agrees_is_compared_once(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cycles without changes go on with it, and then there is nothing to compare until the next restore point."""
    monkeypatch.setattr(in_place, "AT_ONCE", MIB // 2)
    chunks = machine.status.databases[NAME].chunks
    assert await cycle(machine, app) == "published"
    settled(machine)
    counts = []
    for last in [False, False, False, True]:
        assert await machine.backup.cycle.run(last=last) == "unchanged"
        counts.append(chunks["compared"])
    taken_over = chunks["taken_over"]
    assert counts[0] < taken_over
    assert counts[1:] == [taken_over] * 3


def settled(machine: StreamingMachine) -> None:
    """The files are so old that a look at their times tells that they are unchanged."""
    tracker = machine.backup.cycle.source._changes
    assert tracker._held is not None
    tracker._held = replace(tracker._held, racy=False)


async def test_a_write_that_keeps_the_time_of_the_last_write_is_found(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """As `cp --preserve=timestamps` and `touch -r` do, after the last commit of all, and when all was compared before."""
    assert await cycle(machine, app) == "published"
    settled(machine)
    assert await machine.backup.cycle.run() == "unchanged"
    assert machine.backup.cycle._main_line.in_place.left == []
    path = machine.database.path
    times = path.stat()
    write_past(path, 9)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert await machine.backup.cycle.run(last=True) == "published"
    assert any("MiB 9 of the file changed" in each for each in suspicions(machine))
    await require_true_copy(machine)


@pytest.mark.usefixtures("unseen")
async def test_files_that_changed_without_a_commit_do_not_wait_for_a_worthwhile_restore_point(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """With `restore_points=auto`: no stream has what was written past the log."""
    run, status = machine.backup.cycle, machine.status.databases[NAME]
    run.coverage._spacing = Spacing(status, machine.clock, 300.0, 60.0)
    assert await cycle(machine, app) == "published"
    write_past(machine.database.path, 9)
    await machine.publish_segments()
    assert await run.run(patient=True) == "published"
    assert any("MiB 9 of the file changed" in each for each in suspicions(machine))


async def test_what_cannot_be_compared_in_time_is_left_for_the_next_restore_point(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large the database and slow the disk, one MiB is compared each time, and the last one has it all."""
    monkeypatch.setattr("sidecar.database.partial.COMPARING", -1.0)
    monkeypatch.setattr(in_place, "TURNS", 2)
    for _ in range(2):
        assert await cycle(machine, app) == "published"
    assert [(each.read is None, len(each.compared)) for each in read] == [(False, 1), (False, 1)]
    assert read[0].compared != read[1].compared
    assert await cycle(machine, app, last=True) == "published"
    assert read[-1].read is not None
    assert machine.backup.cycle._main_line.in_place.left == []


async def test_what_commits_have_written_is_published_even_if_there_is_no_time_to_compare_the_rest(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    machine.status.final_backup_timeout = timedelta(microseconds=1)
    assert await cycle(machine, app, last=True) == "published"
    assert [each.read is None for each in read] == [False]
    assert machine.backup.cycle._main_line.in_place.left
    await require_true_copy(machine)


async def test_the_last_restore_point_is_read_in_place(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """Even if everything would be copied now: it compares all of the rest instead."""
    machine.backup.cycle._main_line.in_place._whole_at -= in_place.DAY.total_seconds()
    assert await cycle(machine, app, last=True) == "published"
    assert [each.read is None for each in read] == [False]
    chunks = machine.status.databases[NAME].chunks
    assert chunks["compared"] == chunks["taken_over"] > 0
    await require_true_copy(machine)


async def test_the_estimate_of_a_final_backup_knows_how_it_would_be_made(
    machine: StreamingMachine, app: SqlProcess
) -> None:
    status = machine.status.databases[NAME]
    known = [(status.final_in_place, status.final_estimate)]
    assert await cycle(machine, app) == "published"
    known.append((status.final_in_place, status.final_estimate))
    machine.stream.distrust("by the test")
    known.append((status.final_in_place, status.final_estimate))
    whole, in_place = status.final.whole, status.final.in_place
    assert whole is not None
    assert in_place is not None
    assert known == [(True, whole), (True, in_place), (False, whole)]


async def test_everything_is_copied_now_and_then(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.backup.cycle._main_line.in_place._whole_at -= in_place.DAY.total_seconds()
    assert await cycle(machine, app) == "published"
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [True, False]


async def test_what_takes_too_long_is_copied_by_sqlite(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.database.partial.SECONDS", -1.0)
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [True]
    await require_true_copy(machine)


@pytest.mark.usefixtures("unseen")
async def test_what_was_written_past_the_log_is_never_mixed_with_what_was_there_before(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """Where it is seen in what is read, what is not read may have been written, too: everything is copied at once."""
    write_past(machine.database.path, 0, 9)
    assert await cycle(machine, app) == "published"
    assert is_cut(machine)
    assert [each.read is None for each in read] == [True]
    assert machine.status.databases[NAME].written_past == 2
    await require_true_copy(machine)


@pytest.mark.usefixtures("unseen")
async def test_files_that_changed_without_a_commit_are_compared(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """Nobody may commit again, and then no other restore point would compare the rest."""
    write_past(machine.database.path, 9)
    with SqlProcess(machine.database.path) as reader:  # so that there is something to copy into the file later
        reader.script("BEGIN", "SELECT count(*) FROM u")
        assert await cycle(machine, app) == "published"
    app.run("PRAGMA wal_checkpoint")
    assert await machine.backup.cycle.run() == "published"
    assert [each.read is None for each in read] == [False, True]
    assert is_cut(machine)
    await require_true_copy(machine)


async def test_a_stream_that_is_doubted_decides_nothing(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot]
) -> None:
    """What it has missed would be taken over."""
    machine.stream.distrust("by the test")
    assert await cycle(machine, app) == "published"
    assert [each.read is None for each in read] == [True]
    await require_true_copy(machine)


async def test_nothing_is_copied_from_what_turned_out_to_be_damaged_meanwhile(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, newest = machine.backup.cycle, await machine.newest()

    async def look_and_hash(*some: Any) -> Any:
        if run._history.base is not None:
            run.coverage.distrust(newest)
        return await hashed(*some)

    hashed = run._main_line.index
    monkeypatch.setattr(run._main_line, "index", look_and_hash)
    reused = machine.status.databases[NAME].reused
    assert await cycle(machine, app) == "published"
    assert read[-1].read is None
    assert machine.status.databases[NAME].reused == reused
    await require_true_copy(machine)


async def test_all_attempts_of_a_final_backup_share_the_time_for_comparing(
    machine: StreamingMachine, app: SqlProcess, read: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk and a store that fails once: what commits have written would not be published in the time that is left."""
    compared = 0

    async def compare(*_: Any) -> None:
        nonlocal compared
        compared += 1
        await anyio.sleep_forever()

    published = machine.backup.cycle._main_line.publish

    async def fail_once(*some: Any) -> Any:
        machine.backup.cycle._main_line.publish = published  # type: ignore[method-assign]
        raise StoreUnavailable("by the test")

    monkeypatch.setattr(machine.snapshotter, "compare", compare)
    monkeypatch.setattr(machine.backup.cycle._main_line, "publish", fail_once)
    app.run("INSERT INTO u VALUES (randomblob(100))")
    machine.status.final_backup_timeout = timedelta(seconds=1)
    final = FinalBackup([machine.backup], machine.diverged_line, machine.fence, machine.status)
    assert await final.run(60.0)
    assert [each.read is None for each in read] == [False]
    assert compared <= 1  # none if the copy alone took that long
