"""Programs that do not lock with POSIX locks, and names that are not ours: nothing is rolled back, switched or copied."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.database import Driver, locking
from sidecar.database.lineage import Lineage
from sidecar.database.locking import LockGuard, require_posix_locks
from sidecar.database.naming import describe_links
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError, DatabaseBusy, OtherLocks
from sidecar.host import Identity
from sidecar.host import openers as openers_module
from sidecar.host.openers import identity_of, openers, shows_locks, shows_locks_in
from tests.harness.environment import ROOT, clean_environment
from tests.harness.eventually import eventually
from tests.harness.processes import Child
from tests.integration.test_locks import locks_of_this_process

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not shows_locks(), reason="this kernel does not show the locks of other processes"),
]

# Executes each line that it is given, and answers with the rows or the error. `fork` leaves a child with its descriptors,
# `ofd` takes the shared lock as builds of SQLite do that use locks of open file descriptions.
PROGRAM = """
import fcntl, os, sqlite3, struct, sys, time
connection = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None)
connection.execute("PRAGMA synchronous=OFF")
connection.execute("PRAGMA cache_size=1")  # so that half a transaction is in the file, and the journal is hot
for line in sys.stdin:
    try:
        if line.strip() == "fork":
            child = os.fork()
            if not child:
                time.sleep(60)
            print(child, flush=True)
        elif line.strip() == "close":
            print(connection.close(), flush=True)
        elif line.strip() == "ofd":
            file = os.open(sys.argv[1], os.O_RDWR)
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0x40000002, 510, 0))  # F_OFD_SETLK
            print("locked", flush=True)
        elif line.strip() == "whole":
            file = os.open(sys.argv[1], os.O_RDWR)
            fcntl.lockf(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_SH)
            print("locked", flush=True)
        else:
            print(connection.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""

Execute = Callable[[str], str]
Open = Callable[[str], AbstractContextManager[Execute]]
SUM = "SELECT sum(v) FROM t"
TRANSACTION = (
    "BEGIN IMMEDIATE",
    "UPDATE t SET v = v + 1 WHERE k < 100",
    "UPDATE t SET v = v - 1 WHERE k >= 100",
    "COMMIT",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two hundred rows on fifty pages, in rollback mode, whose sum is 0."""
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v, pad)")
        connection.executemany("INSERT INTO t VALUES (?, 0, zeroblob(1000))", [(key,) for key in range(200)])
    return tmp_path / "app.db"


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens a name of SQLite's in a process of its own, which ends with the block as after a crash."""

    @contextmanager
    def program(name: str) -> Iterator[Execute]:
        argv = [sys.executable, "-c", PROGRAM, name]
        environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            stdin, stdout = process.stdin, process.stdout
            assert stdin
            assert stdout

            def execute(line: str) -> str:
                stdin.write(f"{line}\n")
                stdin.flush()
                return stdout.readline().strip()

            yield execute
            process.kill()

    return program


@pytest.fixture(params=["wal", "keep"])
def snapshotter(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSnapshotter:
    """In both journal modes."""
    return SqliteSnapshotter(Staging(tmp_path), switch_to_wal=request.param == "wal")


async def take(snapshotter: SqliteSnapshotter, path: Path) -> int:
    """The sum in a snapshot."""
    async with snapshotter.snapshot(path) as snapshot:
        with closing(sqlite3.connect(snapshot.path)) as connection:
            return int(connection.execute(SUM).fetchone()[0])


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize("name", ["file:{}?vfs=unix-dotfile", "file:{}?nolock=1", "file:{}?vfs=unix-none"])
async def test_journal_of_a_live_transaction_is_left_alone(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open, name: str
) -> None:
    """Rolled back by us, the second half of the transaction would remain without the first."""
    await snapshotter.prepare(path)
    with opened(name.format(path)) as execute:
        assert [execute(each) for each in TRANSACTION[:2]] == ["[]", "[]"]
        journal = Path(f"{path}-journal").read_bytes()
        for attempt in (lambda: take(snapshotter, path), lambda: snapshotter.prepare(path)):
            with pytest.raises(OtherLocks):
                await attempt()
        assert Path(f"{path}-journal").read_bytes() == journal
        assert [execute(each) for each in TRANSACTION[2:]] == ["[]", "[]"]
        with pytest.raises(OtherLocks):  # between two transactions there is nothing to be seen
            await take(snapshotter, path)
        assert execute(SUM) == "[(0,)]"
        assert execute("PRAGMA journal_mode") == "[('delete',)]"


async def test_lock_file_is_noticed_however_briefly_it_was_there(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """Reading is enough: the program is between two transactions whenever we look."""
    await snapshotter.prepare(path)
    with opened(f"file:{path}?vfs=unix-dotfile") as execute:
        assert execute(SUM) == "[(0,)]"
        with pytest.raises(OtherLocks, match="was created since sidecar started"):
            await take(snapshotter, path)
    assert journal_mode(path) == "delete"


@pytest.mark.parametrize(("make", "remove"), [(Path.mkdir, "rmdir"), (Path.touch, "rm")])
async def test_left_lock_is_named_with_the_way_to_remove_it(
    snapshotter: SqliteSnapshotter, path: Path, make: Callable[[Path], None], remove: str
) -> None:
    lock = Path(f"{path}.lock")
    make(lock)
    with pytest.raises(OtherLocks) as caught:
        await snapshotter.prepare(path)
    assert f"`{remove} {lock}`" in caught.value.hint
    assert caught.value.exit_code == 78


async def test_lock_file_is_harmless_once_a_program_was_seen_to_use_posix_locks(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """
    1. A lock library makes `app.db.lock`: nothing is copied. A program has a lock as SQLite takes it: it is copied.
    2. That is in the marker: the next sidecar starts beside the file. One without the marker does not.
    Result: one warning; a directory is a lock all the same.
    """
    lock, lineage = Path(f"{path}.lock"), Lineage(path, "file:///store", durable=False)
    await snapshotter.prepare(path)
    lock.touch()
    with capture_logs() as logs, opened(str(path)) as execute:
        with pytest.raises(OtherLocks, match="no program was seen"):
            await take(snapshotter, path)
        assert execute("BEGIN IMMEDIATE") == "[]"
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.posix_locks
            lineage.pending("key", posix_locks=snapshot.posix_locks)
        execute("COMMIT")
        await take(snapshotter, path)
    assert [each["event"] for each in logs].count("lock file beside the database ignored") == 1
    lineage.descends("key", "root")
    require_posix_locks(path)
    await SqliteSnapshotter(Staging(path.parent)).prepare(path)
    lineage.path.unlink()
    with pytest.raises(OtherLocks):
        require_posix_locks(path)
    lock.unlink()
    await take(snapshotter, path)
    lock.mkdir()
    with pytest.raises(OtherLocks):
        await take(snapshotter, path)
    lock.rmdir()
    with pytest.raises(OtherLocks):
        await take(snapshotter, path)


async def test_lock_that_is_not_as_sqlite_takes_it_proves_nothing(path: Path, opened: Open) -> None:
    """A backup tool that locks the whole file says nothing about the app."""
    guard, lock = LockGuard(), Path(f"{path}.lock")
    guard.require(path)
    lock.touch()
    with opened(str(path)) as execute:
        assert execute("close") == "None"
        assert execute("whole") == "locked"
        with pytest.raises(OtherLocks):
            guard.require(path)
        assert not guard.uses_posix_locks(path)
        assert execute("ofd") == "locked"
        guard.require(path)
        assert guard.uses_posix_locks(path)


async def test_lost_events_are_no_proof_that_there_was_no_lock(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """The kernel keeps so many events and drops the rest: not copied, unless a program is seen to use POSIX locks."""
    await snapshotter.prepare(path)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [path.with_name(name) for name in ("one", "two")]  # the kernel joins equal events

    def create() -> None:
        for number in range(most + 10):
            files[number % 2].touch()
            files[number % 2].unlink()

    create()
    with pytest.raises(DatabaseBusy, match="than the kernel reports"):
        await take(snapshotter, path)
    assert await take(snapshotter, path) == 0
    create()
    with opened(str(path)) as execute:
        assert execute("BEGIN IMMEDIATE") == "[]"
        assert await take(snapshotter, path) == 0


async def test_file_system_that_does_not_show_locks_makes_nobody_suspect(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may keep them, as some FUSE file systems do: an app in the middle of a transaction seems to have none."""
    assert shows_locks_in(path.parent)
    assert not shows_locks_in(path.parent, lambda _info: b"pos:\t0\nino:\t1\n")
    assert shows_locks_in(path.with_name("missing"))  # nothing speaks against it
    with opened(str(path)) as execute, capture_logs() as logs:
        for statement in TRANSACTION[:2]:
            assert execute(statement) == "[]"
        monkeypatch.setattr(openers_module, "_locks", lambda _info: iter(()))
        guard = LockGuard()
        for _ in range(2):
            guard.require(path)
        assert guard.may_switch(path)
        monkeypatch.setattr(locking, "shows_locks_in", lambda _directory: True)
        with pytest.raises(OtherLocks):
            LockGuard().require(path)
    assert [each["event"] for each in logs] == ["locks are not visible on this file system"]


async def test_file_system_whose_locks_keep_nobody_out_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose server takes all locks itself, for every program: copies were torn, and SQLite's check passed them."""
    assert openers_module.locks_exclude(path.parent)
    monkeypatch.setattr(locking, "shows_locks_in", lambda _directory: False)
    require_posix_locks(path)
    monkeypatch.setattr(fcntl, "fcntl", lambda *_arguments: 0)
    with pytest.raises(OtherLocks, match="two programs at once"):
        require_posix_locks(path)


async def test_looking_asks_no_other_file_system(
    path: Path, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer would hold up every stat. One that does all the same is given up, and nothing copied."""
    asked: list[str] = []

    def recorded(name: str | Path) -> Identity | None:
        asked.append(str(name))
        return identity_of(name)

    other = tmp_path / "other"
    other.touch()
    with opened(str(path)) as execute:
        execute(SUM)
        reader = Child(["sh", "-c", f"exec 3< {other} 4< {path}; exec sleep 60"], {})
        try:
            eventually(lambda: os.path.exists(f"/proc/{reader.popen.pid}/fd/4"), 10, "open files")
            monkeypatch.setattr(openers_module, "identity_of", recorded)
            wanted = identity_of(path)
            assert wanted
            assert [each.pid for each in openers({wanted}, [reader.popen.pid])] == [reader.popen.pid]
            assert asked == [f"/proc/{reader.popen.pid}/fd/4", f"/proc/{reader.popen.pid}/root{path.parent}"]
            answered = threading.Event()
            monkeypatch.setattr(openers_module, "identity_of", lambda _name: answered.wait() and None)
            monkeypatch.setattr(openers_module, "LOOK_SECONDS", 0.2)
            with pytest.raises(DatabaseBusy, match="does not answer"):
                require_posix_locks(path)
            answered.set()
        finally:
            reader.kill()


async def test_journal_that_a_crash_left_is_rolled_back(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """By a boot, and by a cycle, as SQLite itself does it: nobody has it open any more."""
    for recover in (lambda: snapshotter.prepare(path), lambda: take(snapshotter, path)):
        with opened(str(path)) as execute:
            for statement in TRANSACTION[:2]:
                execute(statement)
        assert Path(f"{path}-journal").stat().st_size
        await recover()
        assert not Path(f"{path}-journal").exists()
        assert await take(snapshotter, path) == 0


async def test_journal_left_while_a_copy_begins_is_rolled_back_by_the_next_attempt(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """The writer dies after the look at the journal. No setting is wrong then, and a last backup must not give up."""

    class Unlucky(Driver):
        def journal_mode(self, path: Path, mode: str) -> str:
            found = super().journal_mode(path, mode)
            with opened(str(path)) as execute:
                for statement in TRANSACTION[:2]:
                    execute(statement)
            return found

    unlucky = Unlucky(sqlite3)
    with pytest.raises(DatabaseBusy, match="died while it was writing"):
        await take(SqliteSnapshotter(Staging(path.parent), driver=unlucky, switch_to_wal=False), path)
    assert await take(snapshotter, path) == 0


async def test_journal_that_somebody_has_open_is_not_rolled_back(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open
) -> None:
    """Its owner may be alive. Here another process holds the file, and the writer is gone."""
    with opened(str(path)) as execute:
        execute(TRANSACTION[0])
        execute(TRANSACTION[1])
    reader = Child(["sh", "-c", f"exec 3< {path}-journal; exec sleep 60"], {})
    try:
        eventually(lambda: os.path.exists(f"/proc/{reader.popen.pid}/fd/3"), 10, "an open journal")
        with pytest.raises((OtherLocks, DatabaseBusy)):
            await take(snapshotter, path)
    finally:
        reader.kill()
    assert Path(f"{path}-journal").stat().st_size


async def test_ordinary_programs_are_not_suspected(snapshotter: SqliteSnapshotter, path: Path, opened: Open) -> None:
    """In rollback mode and in WAL, in a transaction and between two, with a child that has inherited the descriptors."""
    await snapshotter.prepare(path)
    for mode in ("delete", "persist", "truncate", "wal"):
        with opened(str(path)) as execute:
            assert execute(f"PRAGMA journal_mode={mode}") == f"[('{mode}',)]"
            for statement in TRANSACTION[:2]:
                assert execute(statement) == "[]"
            child = int(execute("fork"))
            try:
                require_posix_locks(path)
                for statement in TRANSACTION[2:]:
                    assert execute(statement) == "[]"
                assert await take(snapshotter, path) == 0
            finally:
                os.kill(child, signal.SIGKILL)
            assert execute("PRAGMA journal_mode=delete") == "[('delete',)]"


@pytest.mark.parametrize("remains", [True, False])
async def test_child_that_inherited_a_closed_connection_is_not_suspected(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open, *, remains: bool
) -> None:
    """A server that forks with a connection open leaves its workers descriptors, of a WAL that may be deleted by now."""
    await snapshotter.prepare(path)
    with opened(str(path)) as execute, closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        assert execute("PRAGMA journal_mode=wal") == "[('wal',)]"
        assert execute(TRANSACTION[1]) == "[]"
        child = int(execute("fork"))
        try:
            if remains:  # a reader is the last to close, and leaves the WAL
                reader.execute(SUM).fetchone()
            assert execute("close") == "None"
            reader.close()
            assert Path(f"{path}-wal").exists() == remains
            require_posix_locks(path)
            assert await take(snapshotter, path) == 100
        finally:
            os.kill(child, signal.SIGKILL)


async def test_locks_of_open_file_descriptions_are_locks(path: Path, opened: Open) -> None:
    """Some builds of SQLite use them; they and POSIX locks keep each other out."""
    with opened(str(path)) as execute:
        assert execute("close") == "None"
        assert execute("ofd") == "locked"
        database = identity_of(path)
        assert database
        assert [each.holds({database}, "READ") for each in openers({database})] == [True]


async def test_database_is_switched_once_its_program_was_seen_to_lock(tmp_path: Path, path: Path, opened: Open) -> None:
    """Not before: WAL shuts out a program that does not use POSIX locks."""
    snapshotter = SqliteSnapshotter(Staging(tmp_path))
    await snapshotter.prepare(path)
    with opened(str(path)) as execute:
        assert execute("PRAGMA user_version").startswith("[(0")
        await take(snapshotter, path)
        execute(SUM)  # the pragma tells what the last transaction has found
        assert execute("PRAGMA journal_mode") == "[('delete',)]"
        execute("BEGIN IMMEDIATE")
        await take(snapshotter, path)
        execute("COMMIT")
        await take(snapshotter, path)
    assert journal_mode(path) == "wal"


async def test_write_beside_our_lock_spoils_the_copy(path: Path, tmp_path: Path) -> None:
    """A program whose transactions are never seen is betrayed by the file: while we read, nobody may write it."""

    class WrittenWhileStaging(Staging):
        @contextmanager
        def reserve(self, database: Path, size: int) -> Iterator[tuple[Path, bool]]:
            script = (
                f"import sqlite3; sqlite3.connect('file:{path}?nolock=1', uri=True).execute('PRAGMA user_version=2')"
            )
            subprocess.run([sys.executable, "-c", script], check=True)
            with super().reserve(database, size) as reserved:
                yield reserved

    snapshotter = SqliteSnapshotter(WrittenWhileStaging(tmp_path), switch_to_wal=False)
    with pytest.raises(OtherLocks, match="while sidecar had it locked"):
        await take(snapshotter, path)


@pytest.mark.parametrize("name", ["link.db", "app.db"])
async def test_wal_that_is_not_ours_is_no_copy(
    snapshotter: SqliteSnapshotter, path: Path, opened: Open, name: str
) -> None:
    """The WAL of another hard link, and one that was deleted under its program: commits are in neither the file nor our WAL."""
    if name != path.name:
        os.link(path, path.with_name(name))
    with opened(str(path.with_name(name))) as execute:
        assert execute("PRAGMA journal_mode=wal") == "[('wal',)]"
        assert execute(TRANSACTION[1]) == "[]"
        if name == path.name:
            Path(f"{path}-wal").unlink()
        with pytest.raises(OtherLocks, match=f"{name}-wal"):
            await take(snapshotter, path)
        if name == path.name:
            return
        found = describe_links(path)
        assert found
        assert "1 other name" in found[0]
    path.with_name(name).unlink()
    assert describe_links(path) is None


async def test_looking_drops_no_lock_of_this_process(path: Path, opened: Open) -> None:
    """close(2) of any descriptor of the database would: a writer would no longer be alone."""
    with opened(str(path)) as execute, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert execute("PRAGMA journal_mode=wal") == "[('wal',)]"
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(TRANSACTION[1])
        held = locks_of_this_process(path)
        assert len(held) >= 2
        guard = LockGuard()
        for _ in range(2):
            guard.require(path)
            guard.may_switch(path)
        assert locks_of_this_process(path) == held
        assert "locked" in execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def test_other_locks_are_a_matter_of_configuration() -> None:
    assert issubclass(OtherLocks, ConfigurationError)
