"""A live database that is compared is read in place, under a read transaction that nothing of ours ends early."""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.compare.files import FileState, at_rest
from sidecar.compare.options import Options
from sidecar.database import LiveParts, NotInPlace, default_driver, live_now
from sidecar.progress import no_progress
from sidecar.states import difference_of_files, opened_file_to_export
from tests.harness.environment import ROOT, clean_environment
from tests.harness.sql_process import SqlProcess
from tests.harness.writer_process import WriterProcess
from tests.harness.writers import check_ledger

DRIVER = default_driver()
MIB = 1 << 20
INSERT = "INSERT INTO t (a) VALUES (randomblob(3000))"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqlProcess]:
    with SqlProcess(tmp_path / "app.db", wait=0.0) as app:
        app.script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", INSERT, INSERT)
        yield app


def content(parts: LiveParts) -> bytes:
    return b"".join(bytes(parts.read(number)) for number in range(-(-parts.size // MIB)))


def test_a_busy_database_is_one_commit_for_as_long_as_it_is_read(tmp_path: Path) -> None:
    """Commits and checkpoints go on all the time, in another process."""
    path, copy = tmp_path / "app.db", tmp_path / "copy.db"
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    with WriterProcess(path, "--padding", "2000", env=environment, directory=tmp_path) as writer:
        writer.wait_acked(5)
        with SqlProcess(path) as other:
            other.run("PRAGMA busy_timeout = 0")
            for _ in range(8):
                acked = writer.acked()
                with live_now(path, DRIVER) as parts:
                    whole = content(parts)
                    other.run("PRAGMA wal_checkpoint(PASSIVE)")
                    writer.wait_acked(writer.acked() + 60)
                    other.run("PRAGMA wal_checkpoint(RESTART)")
                    assert hashlib.sha256(content(parts)).digest() == hashlib.sha256(whole).digest()
                    pages = range(parts.size // parts.page_size)
                    assert whole == b"".join(parts.read_pages(page, 1) for page in pages)
                copy.write_bytes(whole)
                assert acked <= check_ledger(copy)


def test_reading_ends_no_transaction_of_this_process(app: SqlProcess, tmp_path: Path) -> None:
    """A descriptor that is closed too early drops the locks: then the app empties the log under the transaction."""
    path = tmp_path / "app.db"
    with closing(DRIVER.connect(path, "ro")) as beside:
        beside.execute("BEGIN")
        assert beside.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
        app.run(INSERT)
        with live_now(path, DRIVER) as parts:
            before = content(parts)
            assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
            app.run("UPDATE t SET a = 0")
            assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
            assert content(parts) == before
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
        assert beside.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
    with live_now(path, DRIVER) as parts:
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
    assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
    names = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    assert [each for each in names if each.startswith(str(path))] == []


def test_an_app_that_ends_meanwhile_leaves_no_log(app: SqlProcess, tmp_path: Path) -> None:
    """Its close is not the last one as long as our connection has its lock on the file; afterwards ours empties the log."""
    log = tmp_path / "app.db-wal"
    with live_now(tmp_path / "app.db", DRIVER) as parts:
        before = content(parts)
        app.close()
        assert log.stat().st_size
        assert content(parts) == before
    assert not log.exists() or not log.stat().st_size


def test_an_app_that_ends_meanwhile_leaves_no_log_even_if_it_has_just_checkpointed(
    app: SqlProcess, tmp_path: Path
) -> None:
    """Then the file is not as it was when our transaction began; so it is if another one was copied into it."""
    path, log = tmp_path / "app.db", tmp_path / "app.db-wal"
    with live_now(path, DRIVER) as parts:
        parts.read(0)
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        app.close()
    assert not log.exists() or not log.stat().st_size
    app.open()
    app.script(INSERT, INSERT)
    with live_now(path, DRIVER) as parts:
        parts.read(0)
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        app.close()
        size = log.stat().st_size
        path.write_bytes(bytes(path.stat().st_size))
    assert (log.stat().st_size, path.read_bytes().strip(b"\0")) == (size, b"")


def test_reading_ends_as_soon_as_the_app_has_closed_the_database(
    app: SqlProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its log would be there for as long as a comparison takes, and be read over a file that is put in its place."""
    monkeypatch.setattr("sidecar.database.live.LOOK_EVERY", 0.0)
    log = tmp_path / "app.db-wal"
    with live_now(tmp_path / "app.db", DRIVER) as parts:
        parts.look()
        with pytest.raises(NotInPlace, match="closed"):
            app.close()
            parts.look()
    assert not log.exists() or not log.stat().st_size


@pytest.mark.anyio
async def test_a_comparison_ends_reading_and_begins_anew_when_the_app_closes_the_database(
    app: SqlProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.database.live.LOOK_EVERY", 0.0)
    old, path, log = tmp_path / "old.db", tmp_path / "app.db", tmp_path / "app.db-wal"
    app.run(f"VACUUM INTO '{old}'")
    app.run(INSERT)
    read, once = LiveParts.read_pages, [app.close]

    def closing(parts: LiveParts, first: int, count: int) -> bytes:
        if once:
            once.pop()()
        return read(parts, first, count)

    monkeypatch.setattr(LiveParts, "read_pages", closing)
    async with difference_of_files(DRIVER, old, path, Options(), no_progress) as result:
        found = [each.added for each in await result.tables()]
    assert (found, once) == ([1], [])
    assert not log.exists() or not log.stat().st_size


def test_what_cannot_be_read_in_place(app: SqlProcess, tmp_path: Path) -> None:
    """Another journal mode, and a file that is replaced meanwhile."""
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqlProcess(other, rollback=True) as rollback:
        rollback.run("CREATE TABLE t(a)")
        with pytest.raises(NotInPlace, match="not in WAL mode"), live_now(other, DRIVER):
            pass
    with pytest.raises(NotInPlace, match="replaced"), live_now(path, DRIVER) as parts:
        parts.read(0)
        other.replace(path)


def test_a_database_that_this_process_opens_while_it_is_read_as_a_file_keeps_its_locks(tmp_path: Path) -> None:
    """As a web server does that opens it for each request: a descriptor that is closed drops the locks of all connections."""
    path = tmp_path / "app.db"
    with SqlProcess(path, wait=0.0, rollback=True) as other:
        other.run("CREATE TABLE t(a)")
        with closing(DRIVER.connect(path, "rw")) as request:
            with at_rest(path, "app.db", hashed=False):
                request.execute("BEGIN IMMEDIATE")
            with pytest.raises(RuntimeError, match="locked"):
                other.run("BEGIN IMMEDIATE")


@pytest.mark.anyio
@pytest.mark.parametrize("crashed", [True, False])
async def test_a_link_to_a_database_has_the_rows_that_are_in_its_log(
    app: SqlProcess, tmp_path: Path, crashed: bool
) -> None:
    """The log is beside the file, not beside the link."""
    old, path, link = tmp_path / "old.db", tmp_path / "app.db", tmp_path / "links" / "link.db"
    app.run(f"VACUUM INTO '{old}'")
    app.run(INSERT)
    link.parent.mkdir()
    link.symlink_to(path)
    if crashed:
        app.kill()
    async with difference_of_files(DRIVER, old, link, Options(), no_progress) as result:
        assert [each.added for each in await result.tables()] == [1]


@pytest.mark.anyio
async def test_a_file_is_hashed_in_a_thread_and_only_to_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop is that of the program that embeds us; and there a signal would be noticed only when all is read."""
    path, threads, learn = tmp_path / "app.db", list[threading.Thread](), FileState.learn_digests

    def learning(state: FileState, tick: Callable[[], None]) -> str:
        threads.append(threading.current_thread())
        return learn(state, tick)

    monkeypatch.setattr(FileState, "learn_digests", learning)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(a)")
    async with opened_file_to_export(DRIVER, path, no_progress) as opened:
        assert list(opened.schema.tables) == ["t"]
    assert threads == []
    async with difference_of_files(DRIVER, path, path, Options(), no_progress):
        assert len(threads) == 2
    assert threading.current_thread() not in threads


@pytest.mark.anyio
async def test_what_cannot_be_read_in_place_any_longer_is_copied(
    app: SqlProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.compare.live.LONGEST", -1.0)
    old = tmp_path / "old.db"
    app.run(f"VACUUM INTO '{old}'")
    app.run(INSERT)
    async with difference_of_files(DRIVER, old, tmp_path / "app.db", Options(), no_progress) as result:
        (table,) = await result.tables()
        assert (table.added, table.removed, table.changed) == (1, 0, 0)
