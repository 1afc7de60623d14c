"""What our connections leave behind for the app: its WAL, its locks, its files."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sidecar.database.driver import Driver, default_driver
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.harness.writers import check_ledger, open_database
from tests.integration.wiring import write

pytestmark = pytest.mark.anyio

# An app in a process of its own: executes each line it is given, and answers with the rows or the error.
APP = """
import sys
from pathlib import Path
from tests.harness.writers import open_database
connection = open_database(Path(sys.argv[1]))
connection.execute("PRAGMA busy_timeout=200")
for line in sys.stdin:
    try:
        print(connection.execute(line).fetchall(), flush=True)
    except Exception as error:
        print(error, flush=True)
"""


class App:
    """The other end of it."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def __call__(self, statement: str) -> str:
        """Have a statement executed; its rows, or SQLite's words."""
        stdin, stdout = self._child.popen.stdin, self._child.popen.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{statement}\n".encode())
        stdin.flush()
        return stdout.readline().decode().strip()


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """For the app."""
    return clean_environment(tmp_path, PYTHONPATH=ROOT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger."""
    write(tmp_path / "app.db", 10)
    return tmp_path / "app.db"


@pytest.fixture
def app(path: Path, environment: Mapping[str, str]) -> Iterator[App]:
    """An app that has the ledger open."""
    argv = [sys.executable, "-c", APP, str(path)]
    child = Child(argv, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield App(child)
    finally:
        child.kill()


@pytest.fixture
def snapshotter(tmp_path: Path) -> SqliteSnapshotter:
    """As `run` has it."""
    return SqliteSnapshotter(Staging(tmp_path))


async def take(snapshotter: SqliteSnapshotter, path: Path) -> int:
    """The last number of a snapshot."""
    async with snapshotter.snapshot(path) as snapshot:
        return check_ledger(snapshot.path)


async def test_wal_of_a_connected_app_stays(snapshotter: SqliteSnapshotter, path: Path, app: App) -> None:
    """Deleted under the app, its next commits would go to a file that nobody else sees."""
    wal = Path(f"{path}-wal")
    for number in range(5):
        assert app(f"INSERT INTO sequence VALUES ({11 + number}, 0, 0, NULL)") == "[]"
        inode = wal.stat().st_ino
        await snapshotter.prepare(path)
        assert await take(snapshotter, path) == 11 + number
        assert wal.stat().st_ino == inode
        with closing(open_database(path)) as other:
            assert other.execute("SELECT max(number) FROM sequence").fetchone()[0] == 11 + number
    assert app("PRAGMA integrity_check") == "[('ok',)]"


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_no_lock_is_held_between_snapshots(tmp_path: Path, path: Path, app: App, journal_mode: str) -> None:
    """The app may take any lock, and change the journal mode, which needs to be alone."""
    snapshotter = SqliteSnapshotter(Staging(tmp_path), switch_to_wal=False)
    app(f"PRAGMA journal_mode={journal_mode}")
    assert await take(snapshotter, path) == 10
    assert app("BEGIN EXCLUSIVE") == "[]"
    assert app("INSERT INTO sequence VALUES (11, 0, 0, NULL)") == "[]"
    assert app("COMMIT") == "[]"
    assert app("PRAGMA wal_checkpoint(TRUNCATE)").startswith("[(0,")
    assert app("PRAGMA journal_mode=delete") == "[('delete',)]"
    assert app("PRAGMA locking_mode=exclusive") == "[('exclusive',)]"
    assert app("INSERT INTO sequence VALUES (12, 0, 0, NULL)") == "[]"


async def test_locks_of_the_app_are_not_lost_to_ours(snapshotter: SqliteSnapshotter, path: Path, app: App) -> None:
    """A write transaction that is open during a snapshot is still alone afterwards, and not in the snapshot."""
    assert app("BEGIN IMMEDIATE") == "[]"
    assert app("INSERT INTO sequence VALUES (11, 0, 0, NULL)") == "[]"
    assert await take(snapshotter, path) == 10
    with closing(open_database(path)) as other:
        other.execute("PRAGMA busy_timeout=50")
        with pytest.raises(Exception, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    assert app("COMMIT") == "[]"
    assert await take(snapshotter, path) == 11


async def test_snapshot_holds_back_no_checkpoint_for_long(snapshotter: SqliteSnapshotter, path: Path, app: App) -> None:
    """The read transaction ends with the copy, not with the upload: the WAL can be reset while we publish."""
    async with snapshotter.snapshot(path):
        assert app("INSERT INTO sequence VALUES (11, 0, 0, NULL)") == "[]"
        assert app("PRAGMA wal_checkpoint(TRUNCATE)").startswith("[(0,")
        assert Path(f"{path}-wal").stat().st_size == 0


async def test_snapshot_of_an_idle_database_leaves_it_as_it_was(snapshotter: SqliteSnapshotter, path: Path) -> None:
    """Nobody has it open: our connections are the first and the last, and still change nothing that stat shows."""
    await take(snapshotter, path)
    before = snapshotter.signature(path)
    assert before is not None
    await anyio.sleep(1.1)
    for _ in range(2):
        await take(snapshotter, path)
        after = snapshotter.signature(path)
        assert after is not None
        assert (after.database, after.wal, after.racy) == (before.database, before.wal, False)


async def test_snapshot_taken_by_the_other_sqlite_library_reads_the_same(
    snapshotter: SqliteSnapshotter, path: Path
) -> None:
    """Standard tools suffice: the file is any SQLite's, not only ours."""
    async with snapshotter.snapshot(path) as snapshot:
        with contextlib.closing(sqlite3.connect(f"file:{snapshot.path}?immutable=1", uri=True)) as connection:
            assert connection.execute("SELECT max(number) FROM sequence").fetchone()[0] == 10


def locks_of_this_process(path: Path) -> list[str]:
    """Kinds of the POSIX locks that this process has on a database and its -shm, as the kernel lists them (proc(5))."""
    files = {f"{os.stat(name).st_ino}" for name in (path, f"{path}-shm") if os.path.exists(name)}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    lines = [line for line in lines if line[1] == "POSIX" and line[4] == str(os.getpid())]
    return sorted(f"{line[3]} {line[6]}" for line in lines if line[5].rpartition(":")[2] in files)


async def test_a_program_that_embeds_us_keeps_the_locks_of_its_transactions(tmp_path: Path, path: Path) -> None:
    """With the module that it uses itself. With another library, closing our connections drops them: what this prevents."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held = locks_of_this_process(path)
        assert held
        snapshotter = SqliteSnapshotter(Staging(tmp_path), driver=Driver(sqlite3), switch_to_wal=False)
        assert await take(snapshotter, path) == 10
        assert locks_of_this_process(path) == held
        connection.execute("COMMIT")
        if default_driver().version != sqlite3.sqlite_version:
            connection.execute("BEGIN IMMEDIATE")
            await take(SqliteSnapshotter(Staging(tmp_path), switch_to_wal=False), path)
            assert locks_of_this_process(path) != held
