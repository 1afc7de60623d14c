"""What is written into a database past its log while its app goes on writing: the next restore point shows it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, Feed, StreamCut
from sidecar.database.wal.worker import Worker
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.status.problems import Kind
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio

PAST = "of the file changed although no commit wrote there: was another file copied over it?"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqlProcess]:
    """A database of some MiB, that is written to all the time."""
    with SqlProcess(tmp_path / NAME) as app:
        app.script("CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(2500000)), (zeroblob(2500000))")
        app.script("PRAGMA wal_checkpoint(TRUNCATE)", "CREATE TABLE u (a)")
        yield app


@pytest.fixture
async def machine(app: SqlProcess, tmp_path: Path) -> AsyncIterator[StreamingMachine]:
    """It streams, and has a restore point."""
    async with streaming(MemoryStore(), tmp_path / NAME, "a") as machine:
        await machine.start()
        assert await cycle(machine, app) == "published"
        yield machine


async def cycle(machine: StreamingMachine, app: SqlProcess) -> str:
    """What was committed is streamed, and then in a restore point."""
    app.run("INSERT INTO u VALUES (randomblob(100))")
    await machine.publish_segments()
    return await machine.backup.cycle.run()


def overwrite(path: Path, at: int) -> None:
    """As `dd conv=notrunc` does: some bytes inside a value, which SQLite does not notice."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"past the log")


async def overwrite_beside_a_checkpoint(machine: StreamingMachine, app: SqlProcess, at: int) -> None:
    """Between two looks of the follower, with a checkpoint of the app: that changes the file as well."""
    feed = machine.feeds[machine.database.path]
    assert isinstance(feed, Feed)
    track = feed._track
    assert track

    def between_two_looks(_worker: Worker) -> None:
        app.run("INSERT INTO u VALUES (randomblob(100))")
        track.follower.hop()
        overwrite(machine.database.path, at)
        app.run("PRAGMA wal_checkpoint(PASSIVE)")

    await feed._capture.call(between_two_looks)


def suspicions(machine: StreamingMachine) -> list[str]:
    return [each.message for each in machine.status.problems if each.kind is Kind.SUSPICION]


def is_cut(machine: StreamingMachine) -> bool:
    distrusted = machine.stream._distrusted
    return distrusted is not None and distrusted.cause is CutCause.REPLACED


async def test_the_stream_is_cut_at_once(machine: StreamingMachine, app: SqlProcess) -> None:
    """The next restore point has what was written."""
    overwrite(machine.database.path, (3 << 20) + 100)
    app.run("INSERT INTO u VALUES (randomblob(100))")
    with pytest.raises(StreamCut, match="written past its log"):
        await machine.publish_segments()
    assert await machine.backup.cycle.run() == "published"
    await machine.reader.download(await machine.newest(), machine.database.path.with_name("copy.db"))
    assert b"past the log" in machine.database.path.with_name("copy.db").read_bytes()


async def test_a_file_that_was_written_under_its_log_is_suspected_once(
    machine: StreamingMachine, app: SqlProcess
) -> None:
    """Until the next stream begins, more restore points may follow; but what is written meanwhile is suspected, too."""
    told = []
    for at in [3 << 20, None, None]:
        app.run("INSERT INTO u VALUES (randomblob(100))")
        if at:
            with SqlProcess(machine.database.path) as reader:
                reader.script("BEGIN", "SELECT count(*) FROM u")  # so that the log has something that the file lacks
                app.run("INSERT INTO u VALUES (randomblob(100))")
                overwrite(machine.database.path, at + 100)
                with pytest.raises(StreamCut, match="written past its log"):
                    await machine.publish_segments()
        assert await machine.backup.cycle.run() == "published"
        told.append(len(suspicions(machine)))
    assert told == [1, 1, 1]


async def test_what_the_follower_cannot_see_is_found_by_the_next_restore_point(
    machine: StreamingMachine, app: SqlProcess
) -> None:
    """The restore point before is held; the new one has what was written, and is no suspicion for the next."""
    before = await machine.newest()
    await overwrite_beside_a_checkpoint(machine, app, (3 << 20) + 100)
    assert await cycle(machine, app) == "published"
    (told,) = suspicions(machine)
    assert f"MiB 3 {PAST}" in told
    assert (await machine.store.tags(before.key))[TIER_TAG] == Tier.HELD
    assert is_cut(machine)
    assert not machine.streams.protects
    await machine.reader.download(await machine.newest(), machine.database.path.with_name("copy.db"))
    assert b"past the log" in machine.database.path.with_name("copy.db").read_bytes()
    await machine.cut()
    assert await cycle(machine, app) == "published"
    assert await cycle(machine, app) == "published"
    assert len(suspicions(machine)) == 1
    assert not is_cut(machine)


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE t SET a = randomblob(2500000) WHERE rowid = 2"],
        ["DELETE FROM t", "VACUUM", "INSERT INTO t VALUES (randomblob(5000000))"],
        [
            "PRAGMA auto_vacuum = 1",
            "VACUUM",
            "DELETE FROM t WHERE rowid = 1",
            "INSERT INTO t VALUES (randomblob(999999))",
        ],
    ],
)
async def test_what_the_app_does_is_no_suspicion(
    machine: StreamingMachine, app: SqlProcess, statements: list[str]
) -> None:
    for _ in range(2):
        app.script(*statements)
        assert await cycle(machine, app) == "published"
    assert suspicions(machine) == []
    assert not is_cut(machine)
