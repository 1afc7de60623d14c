"""A follower beside a real app: every commit, in order, to the byte."""

from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, Follower, StreamCut
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, applied, comparable, copy_of, following


@pytest.mark.parametrize("library", [OLD, NEW])
def test_base_and_commits_are_the_database(tmp_path: Path, library: str) -> None:
    """Savepoints, rollbacks, spills, VACUUM, closing and opening again: at each exact hop both are the same bytes."""
    path = tmp_path / "app.db"
    with SqlProcess(path, library) as app:
        app.script("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "PRAGMA cache_size=5")
        follower = following(path)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 60) INSERT INTO t(b) SELECT randomblob(2000) FROM n"
        rounds = [
            ["INSERT INTO t(b) VALUES (randomblob(100))"],
            [
                "BEGIN",
                rows,
                "SAVEPOINT s",
                rows,
                "UPDATE t SET b=randomblob(1999)",
                "ROLLBACK TO s",
                "DELETE FROM t WHERE a%7=0",
                "COMMIT",
            ],
            ["BEGIN", rows, "ROLLBACK"],
            ["DELETE FROM t WHERE a%2", "VACUUM"],
            ["CREATE TABLE u(x)", "INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)"],
            ["PRAGMA wal_checkpoint(PASSIVE)", rows, "DROP TABLE u"],
        ]
        for statements in rounds:
            app.script(*statements)
            commits += follower.poll()
            assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        app.close()
        app.open()
        app.run(rows)
        commits += follower.poll()
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        assert [each.number for each in commits] == list(range(1, follower.commits + 1))
        assert follower.counters.unsummed == 0 or library == OLD
        follower.close()


def test_a_successor_goes_on_where_the_log_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
        first = following(path)
        base = copy_of(first, tmp_path / "base.db")
        app.run("INSERT INTO t VALUES (2)")
        commits = first.poll()
        log = first.position
        first.close()
        app.script("INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (4)")
        second = Follower(path, DRIVER)
        second.open(commits=1)
        second.resume(log)
        commits += second.backlog.take().commits
        app.run("INSERT INTO t VALUES (5)")
        commits += second.poll()
        assert [each.number for each in commits] == [1, 2, 3, 4]
        assert comparable(applied(base, commits)) == comparable(copy_of(second, tmp_path / "now.db"))
        second.close()


def test_a_log_that_was_reset_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
        first = following(path)
        log = first.position
        first.close()
        app.script("INSERT INTO t VALUES (2)", "PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES (3)")
        second = Follower(path, DRIVER)
        second.open()
        with pytest.raises(StreamCut) as cut:
            second.resume(log)
        assert cut.value.cause is CutCause.RESET
        second.close()


def test_nothing_that_was_not_committed_is_captured(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", "PRAGMA cache_size=1", "BEGIN")
        follower = following(path)
        for _ in range(20):
            app.run("INSERT INTO t VALUES (randomblob(4000))")
        assert (Path(f"{path}-wal").stat().st_size - 32) // 4120 > follower.position.frame + 5  # spilled
        follower.hop()
        assert follower.poll() == []
        app.run("COMMIT")
        assert [each.number for each in follower.poll()] == [1]
        follower.close()
