"""A database that nobody else has open: its log is emptied at once, and it is closed; what comes then is proved or a cut."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.database.wal import CutCause, Follower, Limits, NotNow, Stamps, absence
from sidecar.database.wal.absence import Absence
from sidecar.database.wal.habit import Habit
from sidecar.database.wal.hold import Hold
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, applied, comparable, copy_of, cut_of, following, settled

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' files are younger than the rule asks for, and written in another tick all the same."""
    monkeypatch.setattr(absence, "_RACY", 0.0)


def left(path: Path, app: SqlProcess) -> Follower:
    """A follower that has closed the database after the app had."""
    follower = following(path, lone_seconds=0.05)
    app.run(INSERT)
    follower.poll()
    app.close()
    settled(follower, lambda: follower.away is not None)
    return follower


def test_the_log_is_emptied_as_soon_as_nobody_else_has_the_database_open(tmp_path: Path) -> None:
    """By the first look: an app may replace its file now, and would read our log over it."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path)
        app.run(INSERT)
        assert not follower.is_alone()
        app.close()
        assert follower.is_alone()
        assert len(follower.poll()) == 1
        assert Path(f"{path}-wal").stat().st_size == 0
        assert not follower.away  # not before it was so for a while
        follower.close()


@pytest.mark.parametrize("library", [OLD, NEW])
def test_the_stream_goes_on_when_the_app_comes_back(tmp_path: Path, library: str) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path, library) as app:
        app.run("CREATE TABLE t(a)")
        follower = following(path, lone_seconds=0.05)
        base, commits = copy_of(follower, tmp_path / "base.db"), []
        for _ in range(3):
            app.run(INSERT)
            app.close()
            commits += settled(follower, lambda: follower.away is not None)
            assert sorted(os.listdir(tmp_path)) == ["app.db", "base.db"]  # as the app's own close would have left it
            app.open()
            app.run(INSERT)
            commits += follower.poll()
            assert not follower.away
            assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
            os.remove(tmp_path / "now.db")
            app.run(INSERT)
        commits += follower.poll()
        assert [each.number for each in commits] == list(range(1, 10))
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()


def test_what_is_opened_in_vain_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place among the readers that nobody gives up would keep the log from being reset."""
    path, begin, failed = tmp_path / "app.db", Hold.start_at_first_frame, list[bool]()
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = left(path, app)

        def late(self: Hold, is_first: Callable[[], bool], *, counted: bool = False) -> None:
            begin(self, is_first, counted=counted)
            if len(failed) < 3:
                failed.append(True)
                raise NotNow

        monkeypatch.setattr(Hold, "start_at_first_frame", late)
        app.open()
        app.run(INSERT)
        assert len(settled(follower, lambda: not follower.away)) >= 1
        descriptors = [
            os.readlink(f"/dev/fd/{each}") for each in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{each}")
        ]
        assert descriptors.count(f"{path}-shm") == 3
        follower.close()


def test_a_killed_app_is_as_good_as_a_closed_one(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = following(path, lone_seconds=0.05)
        app.run(INSERT)
    commits = settled(follower, lambda: follower.away is not None)
    with SqlProcess(path) as app:
        app.run(INSERT)
    commits += follower.poll()
    assert len(commits) == 2
    follower.close()


def test_a_closed_database_is_looked_at_by_one_system_call_and_thoroughly_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = left(path, app)
        now = time.monotonic()
        assert follower.look()
        assert follower.is_quiet(now)
        assert not follower.is_quiet(now + 1.5), "another file may be in its place"
        app.open()
        app.run(INSERT)
        assert not follower.is_quiet(now)
        assert len(follower.poll()) == 1
        follower.close()


def test_looks_at_a_closed_database_do_not_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wake the follower as an app's does, and so be the cause of the next one."""

    def opened(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(absence, "_LATER", 0.0)
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = left(path, app)
        assert follower.look()
        monkeypatch.setattr(absence, "borrowed", opened)
        assert follower.look(thorough=True)
        assert follower.away
        monkeypatch.undo()
        app.open()
        app.run(INSERT)
        assert len(follower.poll()) == 1
        follower.close()


def test_pages_are_compared_until_no_write_can_leave_the_same_stamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"1" * 4096)
    same, other = (Absence(Stamps.of(path), {1: byte * 4096}) for byte in (b"1", b"2"))
    assert same.settled(path) == same, "a write within the same tick of the clock"
    assert same.is_same(path)
    assert not other.is_same(path)
    monkeypatch.setattr(absence, "_LATER", 0.0)
    assert same.settled(path) == Absence(same.stamps, {}, since=same.since)
    assert other.settled(path) == other
    assert not other.is_same(path)


def _rename(path: Path, other: Path) -> None:
    os.rename(other, path)


def _copy(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _copy_with_times(path: Path, other: Path) -> None:
    times = path.stat()
    shutil.copyfile(other, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _truncate(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def _remove(path: Path, other: Path) -> None:
    os.remove(path)


def _write(path: Path, other: Path) -> None:
    with closing(DRIVER.connect(path, "rw")) as connection:  # and its close resets the log
        connection.execute(INSERT)


def _page_size(path: Path, other: Path) -> None:
    with closing(DRIVER.connect(path, "rw")) as connection:
        for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=8192", "VACUUM", "PRAGMA journal_mode=WAL"):
            connection.execute(statement)


@pytest.mark.parametrize("come_back", [False, True])
@pytest.mark.parametrize("change", [_rename, _copy, _copy_with_times, _truncate, _remove, _write, _page_size])
def test_whatever_happens_meanwhile_is_a_cut(
    tmp_path: Path, change: Callable[[Path, Path], None], come_back: bool
) -> None:
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqlProcess(other) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        app.close()
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = left(path, app)
        change(path, other)
        if come_back:
            app.open()
            if change in {_truncate, _remove}:
                app.script("PRAGMA journal_mode=WAL", "CREATE TABLE t(a)")
            app.run(INSERT)
        cut = cut_of(follower)
        assert cut.cause is CutCause.REPLACED, cut
        assert str(path) in str(cut)
        follower.close()
        if come_back:
            assert len(app.run("PRAGMA integrity_check")) == 1
            app.run(INSERT)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("mode", ["DELETE", "PERSIST"])
def test_an_app_that_turns_to_another_journal_mode_is_a_cut(tmp_path: Path, mode: str, closed: bool) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        follower = left(path, app)
        app.open()
        app.script(f"PRAGMA journal_mode={mode}", INSERT)
        if closed:
            app.close()
        assert cut_of(follower).cause is CutCause.MODE
        follower.close()


def test_an_app_in_this_very_process_is_not_taken_for_nobody(tmp_path: Path) -> None:
    """And its close is one as any other."""
    path = tmp_path / "app.db"
    with closing(DRIVER.connect(make(path), "rw")) as app:
        app.execute(INSERT)
        follower = following(path, lone_seconds=0.0, idle_seconds=0.05)
        commits = settled(follower, lambda: follower.parked)
        assert not follower.is_alone()
        assert not follower.away
        app.execute(INSERT)
    commits += settled(follower, lambda: follower.away is not None)
    assert len(commits) == 1
    follower.close()


def make(path: Path) -> Path:
    """A database in WAL mode."""
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        app.close()
    return path


def test_an_app_that_opens_and_closes_all_the_time_is_followed_after_three_cuts(tmp_path: Path) -> None:
    """Then we keep the database open, so that its close is not the last one; its log is emptied after each all the same."""
    path, habit = make(tmp_path / "app.db"), Habit()
    with SqlProcess(path) as app:
        app.close()
        for _ in range(3):
            follower = Follower(path, DRIVER, Limits(), habit)
            follower.open()
            follower.start()
            for _ in range(2):
                app.open()
                app.run(INSERT)
                app.close()
            assert cut_of(follower).cause is CutCause.REPLACED
            follower.close()
        follower = Follower(path, DRIVER, Limits(lone_seconds=60.0), habit)
        follower.open()
        follower.start()
        for number in range(5):
            app.open()
            app.run(INSERT)
            app.close()
            assert len(follower.poll()) == 1
            assert follower.commits == number + 1
            assert os.path.getsize(f"{path}-wal") == 0
            assert follower.index().pages == 0, "what another program would take for the size of the file"
        other = make(tmp_path / "other.db")
        with SqlProcess(other) as alone:
            alone.script(*[INSERT] * 100)
            alone.close()
        shutil.copyfile(other, path)
        app.open()
        app.run(INSERT)
        assert app.run("SELECT count(*) FROM t") == [[101]]
        assert cut_of(follower).cause is CutCause.REPLACED
        follower.close()
        assert app.run("PRAGMA integrity_check") == [["ok"]]


@pytest.mark.parametrize("library", [OLD, NEW])
@pytest.mark.parametrize("first", [False, True], ids=["behind a commit", "alone in the log"])
def test_what_was_rolled_back_before_the_last_close_is_no_commit(tmp_path: Path, library: str, first: bool) -> None:
    """Its pages did not fit into the cache, so they are in the log."""
    path, some = make(tmp_path / "app.db"), "INSERT INTO t VALUES (randomblob(50000))"
    with SqlProcess(path, library) as app:
        app.run("SELECT * FROM t")
        follower = following(path)
        base = copy_of(follower, tmp_path / "base.db")
        if not first:
            app.run(INSERT)
        size = os.path.getsize(f"{path}-wal")
        app.script("PRAGMA cache_size=5", "BEGIN", some, some, "ROLLBACK")
        assert os.path.getsize(f"{path}-wal") > size
        app.close()
        commits = settled(follower, lambda: follower.away is not None)
        assert len(commits) == (0 if first else 1)
        app.open()
        app.run(INSERT)
        commits += follower.poll()
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, tmp_path / "now.db"))
        follower.close()
