"""What the app notices of a follower: its checkpoints complete, and its mistakes are told as before."""

from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, NotNow, watch
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import applied, comparable, copy_of, cut_of, following, settled

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


@pytest.mark.parametrize("library", [OLD, NEW])
@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_the_apps_checkpoints_complete(tmp_path: Path, library: str, mode: str) -> None:
    """With a busy timeout of five seconds, after a write, each of them ends without "busy"."""
    path = tmp_path / "app.db"
    with SqlProcess(path, library) as app:
        app.script("CREATE TABLE t(a)")
        follower = following(path)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for _ in range(2):
            app.run(INSERT)
            app.say("sql", f"PRAGMA wal_checkpoint({mode})", [])
            busy, *_ = app.answer(lambda: commits.extend(follower.poll()), every=0.02)[0]
            assert not busy
        app.run(INSERT)
        commits += follower.poll()
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        assert len(commits) == 3
        follower.close()


@pytest.mark.parametrize("mode", ["RESTART", "TRUNCATE"])
def test_parked_we_are_in_nobodys_way(tmp_path: Path, mode: str) -> None:
    """Even without a busy timeout."""
    path = tmp_path / "app.db"
    with SqlProcess(path, OLD, wait=0) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path, idle_seconds=0.1)
        settled(follower, lambda: follower.parked)
        assert app.run(f"PRAGMA wal_checkpoint({mode})")[0][0] == 0
        app.run(INSERT)
        assert len(follower.poll()) == 1
        follower.close()


@pytest.mark.parametrize(
    ("statements", "cause"),
    [
        (["PRAGMA journal_mode=DELETE"], CutCause.MODE),
        (["PRAGMA locking_mode=EXCLUSIVE", INSERT], CutCause.EXCLUSIVE),
    ],
    ids=["journal-mode", "exclusive"],
)
def test_who_wants_the_database_alone_has_it(
    tmp_path: Path, statements: list[str], cause: CutCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without a busy timeout; that ends the stream."""
    monkeypatch.setattr(watch, "PATIENCE", 0.1)
    path = tmp_path / "app.db"
    with SqlProcess(path, wait=0) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.run(INSERT)
        follower.poll()
        app.script(*statements)
        assert cut_of(follower).cause is cause
        follower.close()
        app.run(INSERT)
        assert len(app.run("SELECT * FROM t")) > 2


@pytest.mark.parametrize("library", [OLD, NEW])
def test_who_has_the_database_alone_for_a_moment_is_followed_or_it_is_a_cut(tmp_path: Path, library: str) -> None:
    """It asks for no lock on the log then, so ours keep no commit there. The counter of commits tells that some are gone."""
    path = tmp_path / "app.db"
    with SqlProcess(path, library, wait=0) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT)
        with pytest.raises(NotNow):
            follower.hop()
        app.script(INSERT, "PRAGMA locking_mode=NORMAL", INSERT)
        assert len(settled(follower, lambda: follower.commits == 3)) == 3
        app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT, "PRAGMA wal_checkpoint(TRUNCATE)", INSERT)
        app.script("PRAGMA locking_mode=NORMAL", INSERT)
        cut = cut_of(follower)
        assert cut.cause is CutCause.MISMATCH
        assert "3 commits happened, but 2 were found: a program that has the database exclusively" in str(cut)
        follower.close()
        assert app.run("SELECT count(*) FROM t") == [[7]]


def test_what_is_committed_by_a_program_that_has_the_database_alone_is_not_missed(tmp_path: Path) -> None:
    """It does not use the shared memory, so nothing of it can be seen there."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.run(INSERT)
        follower.poll()
        app.close()
        app.open()
        app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT)
        with pytest.raises(NotNow):
            follower.hop()
        app.close()
        assert cut_of(follower).cause in {CutCause.REPLACED, CutCause.MISMATCH}
        follower.close()


def test_a_long_reader_keeps_its_snapshot_and_nothing_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app, SqlProcess(path, OLD) as reader:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path, soft_frames=5, soft_tries=0, soft_seconds=0.0, forced_bytes=1, forced_seconds=0.0)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        reader.script("BEGIN", "SELECT count(*) FROM t")
        for _ in range(20):
            app.run(INSERT)
            commits += follower.poll()
        assert follower.counters.forced == 0  # the reader is in the way: no writer waits for nothing
        assert reader.run("SELECT count(*) FROM t") == [[1]]
        reader.run("COMMIT")
        frame = follower.position.frame
        app.run(INSERT)
        commits += settled(follower, lambda: follower.counters.forced > 0)
        app.run(INSERT)
        commits += follower.poll()
        assert follower.position.frame < frame
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_a_steady_load_does_not_grow_the_log(tmp_path: Path) -> None:
    """Resets are forced in moments in which writers wait."""
    path = tmp_path / "app.db"
    with SqlProcess(path, NEW) as app:
        app.script("CREATE TABLE t(a, b)", "INSERT INTO t VALUES (1, 1)", "PRAGMA wal_autocheckpoint=0")
        follower = following(
            path, soft_frames=10**9, soft_tries=0, forced_bytes=200_000, forced_seconds=0.05, forced_hold=0.5
        )
        base, commits, bursts = copy_of(follower, tmp_path / "base.db"), [], 0
        while follower.counters.forced < 2:
            bursts += 1
            assert bursts < 50, follower.counters
            app.say("until", "UPDATE t SET b=randomblob(900)", 0.2, 0.001)
            app.answer(lambda: commits.extend(follower.poll()), every=0.01)
        app.run("UPDATE t SET b=1")
        commits += follower.poll()
        assert follower.position.frame * 4120 < 1 << 20
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_a_long_log_is_reset_without_keeping_writers_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between the copying and the next snapshot is bad luck: the next attempt may have better."""
    path = tmp_path / "app.db"
    with SqlProcess(path, NEW) as app:
        app.script("CREATE TABLE t(a)", "PRAGMA wal_autocheckpoint=0")
        follower = following(path, soft_frames=5, long_bytes=20_000, long_seconds=60.0)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for _ in range(10):
            app.run(INSERT)
        copy, copied = follower.hold.hands.backfill, []

        def copy_and_commit() -> bool:
            copied.append(copy())
            if len(copied) < 3:
                app.run(INSERT)
            return copied[-1]

        monkeypatch.setattr(follower.hold.hands, "backfill", copy_and_commit)
        commits += follower.poll()
        frame = follower.position.frame
        app.run(INSERT)
        commits += follower.poll()
        assert len(copied) == 3
        assert follower.position.frame < frame
        assert follower.counters.forced == 0
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_an_app_that_closes_and_opens_again_is_captured(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = following(path)
        for _ in range(3):
            app.run(INSERT)
            app.close()
            app.open()
            app.run(INSERT)
            assert len(follower.poll()) == 2
        follower.close()


def test_crashes_of_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path, OLD) as first:
        first.run("CREATE TABLE t(a)")
        follower = following(path)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for library in (OLD, NEW, OLD):
            with SqlProcess(path, library) as app:
                app.say("until", INSERT, 30, 0.0)
                begun = follower.commits
                commits += settled(follower, lambda begun=begun: follower.commits > begun + 20)  # type: ignore[misc]
            commits += follower.poll()
        first.run(INSERT)
        commits += follower.poll()
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        assert len(first.run("SELECT * FROM t")) == follower.commits
        follower.close()
