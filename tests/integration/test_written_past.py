"""What is written into a database past its log while its app goes on writing: the next restore point shows it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, StreamCut
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
