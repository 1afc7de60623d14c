"""What happens to a database between a kill and the next boot, on a kernel that was not restarted.

Whatever it is, the app is never started with less than what was reported as protected, nor with a mixture.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.host.files import kept_aside
from sidecar.status.problems import Kind
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio

ROWS = 12


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / NAME


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def insert(path: Path, *rows: int) -> None:
    with closing(open_database(path)) as connection:
        for row in rows:
            connection.execute("INSERT INTO t VALUES (?, randomblob(900))", (row,))


def rows_of(path: Path) -> list[int]:
    with closing(open_database(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row for (row,) in connection.execute("SELECT x FROM t ORDER BY x")]


async def streamed(store: MemoryStore, path: Path) -> None:
    """A life that ends with a kill: a restore point of two rows, and all others in the stream.

    An app has it open in another process, or the log would be emptied after some seconds.
    """
    path.parent.mkdir()
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(x INTEGER PRIMARY KEY, y)")
        async with streaming(store, path, "web") as machine:
            await machine.start()
            insert(path, 1, 2)
            await machine.publish_segments()
            await machine.backup.cycle.run()
            for row in range(3, ROWS + 1):
                insert(path, row)
                await machine.publish_segments()
            assert machine.streams.protects
            left = read(path)
    put_back(left)


def read(path: Path) -> dict[Path, bytes]:
    """What a kill would leave: who closes the database in order changes it."""
    return {each: each.read_bytes() for each in (path, log_of(path))}


def put_back(left: dict[Path, bytes]) -> None:
    """Let the files be as they were, under the same inodes."""
    for file, content in left.items():
        with file.open("r+b" if file.exists() else "wb") as opened:
            opened.write(content)
            opened.truncate()


def conflicts(machine: StreamingMachine) -> int:
    """How many are reported."""
    return sum(each.kind is Kind.DIVERGENCE and each.message.startswith("conflict") for each in machine.status.problems)


def nothing(path: Path) -> None:
    """The kill is all."""


def lose_the_last_frames(path: Path) -> None:
    log = log_of(path)
    log.write_bytes(log.read_bytes()[: -3 * (4096 + 24)])


def lose_a_frame_in_between(path: Path) -> None:
    """SQLite reads the log up to there."""
    log = log_of(path)
    content = bytearray(log.read_bytes())
    at = len(content) - 4 * (4096 + 24) - 500
    content[at : at + 8] = bytes(byte ^ 1 for byte in content[at : at + 8])
    log.write_bytes(content)


def empty_the_log(path: Path) -> None:
    log_of(path).write_bytes(b"")


def remove_the_log(path: Path) -> None:
    log_of(path).unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)


def lose_the_last_frames_in_a_checkpoint(path: Path) -> None:
    """The database's file has one page by then, which says that it has more: it makes no sense without the log."""
    lose_the_last_frames(path)
    path.write_bytes(path.read_bytes()[:4096])


def lose_the_log_in_a_checkpoint(path: Path) -> None:
    """And now it is all that there is."""
    remove_the_log(path)
    with path.open("r+b") as file:
        file.truncate(4096)


def remove_the_log_and_go_on(path: Path) -> None:
    """An app that is started without us writes to what is left: now there are two histories."""
    remove_the_log(path)
    insert(path, 100)


def close_cleanly(path: Path) -> None:
    """The last connection copies the log into the database, and deletes it."""
    open_database(path).close()
    with closing(open_database(path)) as connection:
        connection.execute("SELECT * FROM t").fetchall()
    assert not log_of(path).exists()


def cut_the_file(path: Path) -> None:
    """Its first page is the last one that was streamed."""
    close_cleanly(path)
    with path.open("r+b") as file:
        file.truncate(4096)


def go_on(path: Path) -> None:
    """The app outlived us, in the same log."""
    with closing(open_database(path)) as app:
        app.execute("INSERT INTO t VALUES (100, 1)")
        left = read(path)
    put_back(left)


def go_on_and_close(path: Path) -> None:
    """It has closed the database, more than once: each time its log was deleted."""
    for row in range(100, 103):
        insert(path, row)
    assert not log_of(path).exists()


ALL = list(range(1, ROWS + 1))


@pytest.mark.parametrize(
    "event",
    [
        lose_the_last_frames,
        lose_the_last_frames_in_a_checkpoint,
        lose_the_log_in_a_checkpoint,
        lose_a_frame_in_between,
        empty_the_log,
        remove_the_log,
    ],
)
async def test_a_database_that_has_lost_commits_gives_way(
    store: MemoryStore, path: Path, event: Callable[[Path], None]
) -> None:
    await streamed(store, path)
    event(path)
    async with streaming(store, path, "web") as machine:
        await machine.start()
        assert rows_of(path) == ALL
        assert conflicts(machine) == 1
    assert len(kept_aside(path, "diverged")) == 1


async def test_what_was_written_to_a_database_that_had_lost_commits_is_not_mixed_with_them(
    store: MemoryStore, path: Path
) -> None:
    """It is kept aside, and the app goes on with what was protected."""
    await streamed(store, path)
    remove_the_log_and_go_on(path)
    async with streaming(store, path, "web") as machine:
        await machine.start()
        assert rows_of(path) == ALL
    ((kept, _at),) = kept_aside(path, "diverged")
    assert 100 in rows_of(kept)


@pytest.mark.parametrize(("event", "more"), [(nothing, []), (close_cleanly, []), (go_on, [100])])
async def test_a_database_that_has_all_commits_is_kept(
    store: MemoryStore, path: Path, event: Callable[[Path], None], more: list[int]
) -> None:
    """By its log, or because it is the same as what was streamed."""
    await streamed(store, path)
    event(path)
    async with streaming(store, path, "web") as machine:
        await machine.start()
        assert rows_of(path) == [*ALL, *more]
        assert conflicts(machine) == 0
    assert kept_aside(path, "diverged") == []


async def test_a_database_of_which_that_is_not_known_gives_way(store: MemoryStore, path: Path) -> None:
    """Nothing tells it from one that was written to after its log had been removed."""
    await streamed(store, path)
    go_on_and_close(path)
    async with streaming(store, path, "web") as machine:
        await machine.start()
        assert rows_of(path) == ALL
        assert conflicts(machine) == 1
    ((kept, _at),) = kept_aside(path, "diverged")
    assert rows_of(kept) == [*ALL, 100, 101, 102]


async def test_it_is_kept_and_reported_where_another_container_runs_the_app(store: MemoryStore, path: Path) -> None:
    """The app goes on with it anyway; it may have it open right now."""
    await streamed(store, path)
    go_on_and_close(path)
    with closing(open_database(path)) as app:
        app.execute("INSERT INTO t VALUES (200, 1)")
        async with streaming(store, path, "web") as machine:
            machine.alone = False
            await machine.start()
            (message,) = [each.message for each in machine.status.problems if "nothing proves" in each.message]
            assert f"{ROWS}" in message
        assert conflicts(machine) == 0
    assert rows_of(path) == [*ALL, 100, 101, 102, 200]


@pytest.mark.parametrize("event", [remove_the_log, lose_the_last_frames, cut_the_file])
async def test_one_that_has_certainly_lost_commits_is_not_kept_there_either(
    store: MemoryStore, path: Path, event: Callable[[Path], None]
) -> None:
    await streamed(store, path)
    event(path)
    async with streaming(store, path, "web") as machine:
        machine.alone = False
        with pytest.raises(ConfigurationError, match="another container may have it open"):
            await machine.start()
