"""On a file system whose clock has coarse ticks, as all have before Linux 6.13, a program may come and go without a new time.

Here a tick lasts for ever: all that happens to a file happens within one.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.database.wal import CutCause, Follower, StreamCut, births, descriptors
from sidecar.database.wal.absence import Absence, depart
from sidecar.database.wal.hold import Hold
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import applied, comparable, copy_of, cut_of, following, settled


class _Status:
    """What stat(2) says, but for the times."""

    def __init__(self, status: os.stat_result) -> None:
        self._status = status

    def __getattr__(self, name: str) -> Any:
        return 10**18 if name in {"st_mtime_ns", "st_ctime_ns"} else getattr(self._status, name)


class _Coarse:
    """The module `os` on such a system."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def stat(self, file: Any) -> Any:
        return _Status(os.stat(file))

    def fstat(self, file: int) -> Any:
        return _Status(os.fstat(file))


@pytest.fixture(autouse=True)
def _one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "os", _Coarse())


def followed(path: Path, app: SqlProcess) -> Follower:
    """The app has its database open; the log has none of the pages that later sessions write."""
    app.script("CREATE TABLE a(n)", "CREATE TABLE b(n)", "INSERT INTO a VALUES (0)", "INSERT INTO b VALUES (0)")
    app.close()
    app.open()
    app.run("SELECT * FROM a")
    return following(path)


def test_a_program_that_comes_and_goes_before_the_end_was_seen_is_a_cut(tmp_path: Path) -> None:
    """What it committed is in the file, and in no log that we could read."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        follower = followed(path, app)
        app.run("UPDATE a SET n = 1")
        app.close()
        app.open()
        app.run("UPDATE b SET n = 1")
        app.close()
        assert cut_of(follower).cause is CutCause.REPLACED
        follower.close()


def test_one_that_kept_us_from_opening_it_and_has_gone_is_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has opened the database after the end was seen, and locks it, as its close does, when we want to open it, too."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        follower = followed(path, app)
        app.run("UPDATE a SET n = 1")
        app.close()

        def departing(hold: Hold) -> Absence:
            left = depart(hold)
            app.open()
            app.script("PRAGMA locking_mode=EXCLUSIVE", "UPDATE b SET n = 1")
            return left

        monkeypatch.setattr("sidecar.database.wal.follower.depart", departing)
        assert not follower.look(thorough=True), "it is locked"
        app.close()
        assert follower.commits == 1
        with pytest.raises(StreamCut) as cut:
            follower.look(thorough=True)
        assert cut.value.cause is CutCause.REPLACED
        follower.close()


@pytest.mark.parametrize("library", [OLD, NEW])
@pytest.mark.parametrize("at_once", [False, True])
def test_one_that_stays_is_followed(tmp_path: Path, library: str, at_once: bool) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path, library) as app:
        follower = followed(path, app)
        base = copy_of(follower, tmp_path / "base.db")
        app.run("UPDATE a SET n = 1")
        app.close()
        commits = [] if at_once else follower.poll()
        app.open()
        app.run("UPDATE b SET n = 1")
        commits += settled(follower, lambda: follower.commits == 2)
        app.run("UPDATE a SET n = 2")
        commits += follower.poll()
        assert len(commits) == 3
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_one_that_has_reset_its_log_is_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        follower = followed(path, app)
        app.run("UPDATE a SET n = 1")
        app.close()
        app.open()
        app.script("UPDATE b SET n = 1", "PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE a SET n = 2")
        assert cut_of(follower).cause is CutCause.RESET
        follower.close()


def test_where_nobody_tells_who_comes_and_goes_it_is_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops events beyond a number, and has no queue to spare for everybody."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        follower = followed(path, app)
        app.run("UPDATE a SET n = 1")
        monkeypatch.setattr(births.Births, "count", lambda self: None)
        app.close()
        assert cut_of(follower).cause is CutCause.REPLACED
        follower.close()


def test_births_are_counted(tmp_path: Path) -> None:
    """Also those that follow each other at once; not those of other names, and not those from before."""
    (tmp_path / "app.db-wal").touch()
    counted, other = births.Births(tmp_path / "app.db-wal"), births.Births(tmp_path / "other.db-wal")
    counted.begin()
    assert counted.count() == 0
    for _ in range(3):
        (tmp_path / "app.db-wal").unlink()
        (tmp_path / "app.db-wal").touch()
    (tmp_path / "other.db-wal").touch()
    assert (counted.count(), other.count()) == (3, 1)
    assert births.Births(tmp_path / "missing" / "app.db-wal").count() is None


def test_more_births_than_the_kernel_tells_are_no_number(tmp_path: Path) -> None:
    counted = births.Births(tmp_path / "app.db-wal")
    counted.begin()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    for _ in range(limit):
        one.rename(two)
        two.rename(one)
    assert counted.count() is None
