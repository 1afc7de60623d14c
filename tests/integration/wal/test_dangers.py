"""What ends a stream while the database is open: each is seen, with a cause, and nothing is written into a new file."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, Follower, StreamCut, connections
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, applied, comparable, copy_of, cut_of, following, settled

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


def _rename(path: Path, other: Path) -> None:
    os.rename(other, path)


def _remove(path: Path, other: Path) -> None:
    os.remove(path)


def _truncate(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def _copy(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _remove_log(path: Path, other: Path) -> None:
    os.remove(f"{path}-wal")


def _remove_memory(path: Path, other: Path) -> None:
    os.remove(f"{path}-shm")


@pytest.mark.parametrize("change", [_rename, _remove, _truncate, _copy, _remove_log, _remove_memory])
def test_files_that_are_not_what_they_were_are_a_cut(tmp_path: Path, change: Callable[[Path, Path], None]) -> None:
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqlProcess(other) as app:
        app.script("CREATE TABLE t(a)", INSERT, INSERT, INSERT)
        app.close()
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path, idle_seconds=0.05)
        settled(follower, lambda: follower.parked)
        follower.look(thorough=True)
        change(path, other)
        assert cut_of(follower).cause is CutCause.REPLACED
        follower.close()


def test_closing_after_a_cut_leaves_the_new_file_and_its_log_alone(tmp_path: Path) -> None:
    """The new database is open in the app; we must neither write to it nor delete its log."""
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqlProcess(other) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        app.close()
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.run(INSERT)
    for suffix in ("", "-wal", "-shm"):
        os.remove(f"{path}{suffix}")
    os.rename(other, path)
    with SqlProcess(path) as app:
        app.run(INSERT)
        before = {each: (each.stat().st_ino, each.stat().st_size) for each in tmp_path.glob("app.db*")}
        assert len(before) == 3
        with pytest.raises(StreamCut):
            follower.poll()
        follower.close()
        assert {each: (each.stat().st_ino, each.stat().st_size) for each in tmp_path.glob("app.db*")} == before
        assert app.run("SELECT count(*) FROM t") == [[2]]
        assert app.run("PRAGMA integrity_check") == [["ok"]]


def test_a_log_whose_name_is_gone_is_not_copied_into_a_database_that_took_its_place(tmp_path: Path) -> None:
    """Copied over the same inode: the frames that we still have open belong to another content."""
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqlProcess(other) as app:
        app.script("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
        app.close()
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.run(INSERT)
    os.remove(f"{path}-wal")
    os.remove(f"{path}-shm")
    shutil.copyfile(other, path)
    with pytest.raises(StreamCut):
        follower.poll()
    follower.close()
    assert path.read_bytes() == other.read_bytes()


def test_more_than_memory_may_hold_is_a_cut_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = following(path, fold_bytes=100_000, cut_bytes=200_000)
        for _ in range(20):
            app.run("INSERT INTO t VALUES (randomblob(50000))")
        read = follower.counters.frames
        with pytest.raises(StreamCut, match="changed pages wait to be stored") as cut:
            follower.poll()
        assert cut.value.cause is CutCause.BACKLOG
        assert follower.counters.frames == read
        follower.close()


def test_what_waits_never_takes_the_memory_of_the_app(tmp_path: Path) -> None:
    """A tenth of a large database may be more than the machine has, and the store may be unreachable for long."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        free = [800_000]
        follower = following(path, fold_bytes=100_000, available=lambda: free[0])
        for _ in range(3):
            app.run("INSERT INTO t VALUES (randomblob(50000))")
            follower.look()
            free[0] = 800_000 - follower.backlog.size
        app.run("INSERT INTO t VALUES (randomblob(50000))")
        with pytest.raises(StreamCut, match="than the 200000 that memory may hold") as cut:
            follower.look()
        assert cut.value.cause is CutCause.BACKLOG
        follower.close()


def test_the_same_pages_over_and_over_are_folded(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", "INSERT INTO t VALUES (zeroblob(50000))")
        follower = following(path, fold_bytes=100_000, cut_bytes=200_000)
        base = copy_of(follower, tmp_path / "base.db")
        for _ in range(10):
            for _ in range(3):
                app.run("UPDATE t SET a=randomblob(50000)")
            follower.look()
        (folded,) = follower.backlog.take().commits
        assert (folded.first, folded.number, folded.folded) == (1, 30, True)
        assert comparable(applied(base, [folded])) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def _unsummed(app: SqlProcess) -> None:
    """What leaves committed frames without checksums in SQLite 3.40: pages spilled twice, ROLLBACK TO, COMMIT."""
    app.script("BEGIN", "INSERT INTO u VALUES (1)", "SAVEPOINT s", *["UPDATE t SET a=randomblob(3000)"] * 3)
    app.script("INSERT INTO u VALUES (randomblob(100000))", "ROLLBACK TO s")
    app.script(*["INSERT INTO u VALUES (randomblob(3000))"] * 10, "COMMIT")


def test_frames_without_checksums_are_committed_and_the_log_is_healed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path, OLD) as app:
        app.script("PRAGMA cache_size=5", "CREATE TABLE t(a)", "CREATE TABLE u(a)", *[INSERT] * 50)
        follower = following(path, idle_seconds=0.3)
        base = copy_of(follower, tmp_path / "base.db")
        _unsummed(app)
        follower.look()
        batch = follower.backlog.take()
        if not follower.counters.unsummed:
            pytest.skip("this SQLite does not write such frames")
        assert batch.unsummed
        assert comparable(applied(base, batch.commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        settled(follower, lambda: follower.counters.emptied > 0)
        assert follower.position.frame == 0
        app.run(INSERT)
        assert len(follower.poll()) == 1
        follower.close()


def test_a_header_that_its_writer_died_at_is_recovered(tmp_path: Path) -> None:
    """SQLite recovers it when we begin to read; the counter of commits begins anew, and nothing is missed."""
    path = tmp_path / "app.db"
    with SqlProcess(path, NEW) as app:
        app.run("CREATE TABLE t(a)")
        follower = following(path)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for _ in range(5):
            app.run(INSERT)
        commits += follower.poll()
        app.run(INSERT)
        with open(f"{path}-shm", "r+b") as memory:
            memory.seek(16)
            memory.write(struct.pack("=I", 99))
        commits += settled(follower, lambda: follower.commits == 6)
        assert follower.index().change < 5
        app.run(INSERT)
        commits += follower.poll()
        assert [each.number for each in commits] == list(range(1, 8))
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_frames_that_fill_a_sector_are_no_cut(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(Path(f"file:{path}?psow=0"), NEW, uri=True) as app:
        app.script("PRAGMA synchronous=FULL", "CREATE TABLE t(a)")
        follower = following(path)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for number in range(5):
            app.run("INSERT INTO t VALUES (?)", number)
            commits += follower.poll()
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        assert follower.counters.frames > 5
        follower.close()


def test_rollback_mode_is_told(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path, rollback=True) as app:
        app.run("CREATE TABLE t(a)")
        follower = Follower(path, DRIVER)
        with pytest.raises(StreamCut, match="journal mode delete") as cut:
            follower.open()
        assert cut.value.cause is CutCause.MODE
        follower.close()


def test_a_database_that_is_locked_for_a_moment_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an app that closes it: the last connection locks the database while it copies the log and deletes it."""
    monkeypatch.setattr(connections, "_OPENING_WAIT", 60_000)
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE t(a)")
        app.say(
            "sql", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 300000) SELECT max(i) FROM n", ()
        )
        app.say("close")
        follower = Follower(path, DRIVER)
        follower.open()
        app.answer()
        app.answer()
        follower.close()
