"""A follower that begins after the app did, where the database was left at rest: it has every commit since, or says so."""

import os
import time
from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, Follower, StreamCut
from sidecar.database.wal.rest import at_rest
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, applied, comparable, copy_of

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that was closed."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.script("CREATE TABLE t(a)", INSERT)
        app.close()
    return tmp_path / "app.db"


@pytest.mark.parametrize("library", [OLD, NEW])
def test_every_commit_since_the_rest_is_captured(path: Path, tmp_path: Path, library: str) -> None:
    base = path.read_bytes()
    stamps = at_rest(path)
    with SqlProcess(path, library) as app:
        app.script(INSERT, INSERT)
        follower = Follower(path, DRIVER)
        follower.open()
        follower.start(stamps)
        app.run(INSERT)
        commits = follower.poll()
        assert [each.number for each in commits] == [1, 2, 3]
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


@pytest.mark.parametrize(
    "statements",
    [
        (INSERT, "PRAGMA wal_checkpoint(PASSIVE)", INSERT),
        (INSERT, "PRAGMA wal_checkpoint(TRUNCATE)", INSERT),
        ("PRAGMA journal_mode=DELETE", INSERT, "PRAGMA journal_mode=WAL", INSERT),
        ("PRAGMA journal_mode=DELETE", "PRAGMA journal_mode=WAL", INSERT),
    ],
    ids=["copied", "reset", "rollback", "flipped"],
)
def test_a_database_that_was_written_to_since_is_not_the_same(path: Path, statements: tuple[str, ...]) -> None:
    stamps = at_rest(path)
    with SqlProcess(path) as app:
        app.script(*statements)
        follower = Follower(path, DRIVER)
        follower.open()
        with pytest.raises(StreamCut) as cut:
            follower.start(stamps)
        assert cut.value.cause is CutCause.REPLACED
        follower.close()


def test_a_database_that_was_closed_in_between_is_not_the_same(path: Path) -> None:
    stamps = at_rest(path)
    with SqlProcess(path) as app:
        app.run(INSERT)
        app.close()
        app.open()
        app.run(INSERT)
        follower = Follower(path, DRIVER)
        follower.open()
        with pytest.raises(StreamCut) as cut:
            follower.start(stamps)
        assert cut.value.cause is CutCause.REPLACED
        follower.close()


def test_a_later_write_leaves_other_stamps(path: Path) -> None:
    """Files are stamped with a clock that stands still for milliseconds."""
    os.utime(path)
    stamps = at_rest(path)
    assert stamps
    assert time.time() - max(stamps.written, stamps.changed) / 1e9 >= 0.02


@pytest.mark.parametrize("kind", ["log", "missing", "empty", "seconds", "future"])
def test_what_cannot_be_proved_later_is_not_at_rest(path: Path, kind: str) -> None:
    with SqlProcess(path) as app:
        if kind == "log":
            app.run(INSERT)
        elif kind == "missing":
            path.unlink()
        elif kind == "empty":
            os.truncate(path, 0)
        else:
            at = 1_700_000_000 if kind == "seconds" else 4_000_000_000.5
            os.utime(path, (at, at))
        assert at_rest(path) is None
