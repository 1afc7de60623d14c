"""Another file in the place of a database that the app has closed: the app finds that file, and the stream is cut.

A log that is kept alive after the app's close would be read over the new file, and copied into it.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.database.wal import CutCause, Follower, StreamCut
from sidecar.database.wal.connections import Connections
from sidecar.database.wal.worker import Track
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, cut_of, following
from tests.stress import replacer, replacing

OWN = "INSERT INTO t VALUES ('own', 1, zeroblob(3000))"
ROWS = "SELECT origin, n FROM t ORDER BY rowid"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return made(tmp_path / "other.db")


def made(path: Path, page_size: int = 4096, mode: str = "WAL", rows: int = 300) -> Path:
    """The file that takes the place, larger than the database by default."""
    path.touch()
    with closing(DRIVER.connect(path, "rw")) as connection:
        for statement in (
            "PRAGMA synchronous=OFF",
            f"PRAGMA page_size={page_size}",
            f"PRAGMA journal_mode={mode}",
            "BEGIN",
            "CREATE TABLE t(origin, n, pad)",
        ):
            connection.execute(statement)
        replacer.insert(connection, "new", 0, rows)
        connection.execute("COMMIT")
    return path


def replaced(
    path: Path, other: Path, way: Callable[[str, str], None], look: Callable[[str], object], library: str = NEW
) -> Any:
    """An app that commits, closes its database, replaces it, and opens it again; the rows that it finds."""
    shutil.copyfile(other, reference := path.with_name("reference.db"))
    with SqlProcess(path, library) as app:
        app.script("PRAGMA synchronous=OFF", "CREATE TABLE t(origin, n, pad)", *[OWN] * 60)
        look("open")
        app.script(*[OWN] * 30)
        app.close()
        look("closed")
        way(str(path), str(other))
        look("replaced")
        app.open()
        app.run(OWN)
        rows = app.run(ROWS)
        look("opened")
        assert app.run("PRAGMA integrity_check") == [["ok"]]
        app.close()
    look("end")
    with SqlProcess(reference, library, rollback=True) as alone:
        alone.run(OWN)
        alone.close()
    return rows, path.read_bytes() == reference.read_bytes()


class Looks:
    """A follower that begins while the app has the database open, and looks only at these moments."""

    def __init__(self, path: Path, *moments: str, end: bool = True) -> None:
        """With `end`, the last of them must be a cut."""
        self._path, self._moments, self._end = path, moments, end
        self.follower: Follower | None = None
        self.cut: StreamCut | None = None

    def __call__(self, moment: str) -> None:
        if moment == "open":
            self.follower = following(self._path)
        assert self.follower
        if moment == "end" and self._end and not self.cut:
            self.cut = cut_of(self.follower)
        elif moment in self._moments and not self.cut:
            try:
                self.follower.look(thorough=True)
            except StreamCut as cut:
                self.cut = cut
        if self.cut:
            self.follower.close()


@pytest.mark.parametrize("moments", [(), ("closed",), ("closed", "replaced"), ("opened",)], ids=str)
@pytest.mark.parametrize("way", replacer.WAYS.values(), ids=lambda way: way.__name__)
def test_the_app_finds_the_new_file_alone(
    path: Path, other: Path, way: Callable[[str, str], None], moments: tuple[str, ...]
) -> None:
    """Whenever we look, and if we do not look at all. In the end the file is what it would have become without us."""
    looks = Looks(path, *moments)
    rows, same = replaced(path, other, way, looks)
    assert {row[0] for row in rows[:-1]} == {"new"}
    assert rows[-1] == ["own", 1]
    assert same
    assert looks.cut
    in_rollback_mode = path.read_bytes()[18:20] == b"\1\1"
    assert looks.cut.cause is CutCause.REPLACED or (looks.cut.cause is CutCause.MODE and in_rollback_mode)


@pytest.mark.parametrize("moments", [(), ("closed",), ("closed", "replaced")], ids=str)
@pytest.mark.parametrize(("page_size", "mode", "rows"), [(8192, "WAL", 5), (4096, "DELETE", 300), (1024, "DELETE", 1)])
def test_whatever_file_it_is(
    path: Path, tmp_path: Path, page_size: int, mode: str, rows: int, moments: tuple[str, ...]
) -> None:
    other = made(tmp_path / "other.db", page_size, mode, rows)
    test_the_app_finds_the_new_file_alone(path, other, replacer.copied, moments)


@pytest.mark.parametrize("library", [OLD, NEW])
def test_what_was_committed_before_the_close_is_captured(path: Path, tmp_path: Path, library: str) -> None:
    """From the log that the app has removed, once it is known that the database is still the same."""
    other = made(tmp_path / "other.db")
    looks = Looks(path, "closed")
    rows, _ = replaced(path, other, replacer.copied, looks, library)
    assert looks.follower
    assert looks.follower.backlog.take().commits[-1].number == 30
    assert len(rows) == 301


def test_a_connection_of_ours_would_mix_the_two(path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacing.always_connected(monkeypatch.setattr)
    found: set[str] = set()
    with suppress(RuntimeError):  # "database disk image is malformed"
        rows, _ = replaced(path, other, replacer.copied, Looks(path))
        found = {row[0] for row in rows[:-1]}
    assert found != {"new"}


def test_without_a_watch_the_stream_would_go_on(path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacing.unwatched(monkeypatch.setattr)
    looks = Looks(path, "closed", "replaced", "opened", end=False)
    rows, _ = replaced(path, other, replacer.copied, looks)
    assert {row[0] for row in rows[:-1]} == {"new"}
    assert looks.cut is None
    assert looks.follower
    assert looks.follower.commits == 31
    looks.follower.close()


def test_a_log_of_an_app_that_was_killed_is_not_copied_into_another_file(path: Path, tmp_path: Path) -> None:
    """Its log is as good as that of an app that has crashed without us, but it is not we who damage the file."""
    other = made(tmp_path / "other.db")
    with SqlProcess(path) as app:
        app.script("PRAGMA synchronous=OFF", "CREATE TABLE t(origin, n, pad)", *[OWN] * 60)
        follower = following(path)
        app.run(OWN)
        follower.look(thorough=True)
        app.run(OWN)
    shutil.copyfile(other, path)
    assert cut_of(follower).cause is CutCause.REPLACED
    follower.close()
    assert path.read_bytes() == other.read_bytes()
    assert os.path.exists(f"{path}-wal")


def test_a_session_that_nobody_saw_is_not_taken_for_one_of_the_same_database(path: Path, tmp_path: Path) -> None:
    """A file is copied over the closed database, opened, written and closed, before we look: what its log has belongs to it."""
    other = made(tmp_path / "other.db")
    with SqlProcess(path) as app:
        app.script("PRAGMA synchronous=OFF", "CREATE TABLE t(origin, n, pad)", *[OWN] * 10)
        follower = following(path)
        app.close()
        follower.look(thorough=True)
        follower.look(thorough=True)
        shutil.copyfile(other, path)
        app.open()
        app.run(OWN)
        app.close()
        with pytest.raises(StreamCut) as cut:
            follower.look(thorough=True)
        assert cut.value.cause is CutCause.REPLACED
        assert not follower.backlog.take().commits
        follower.close()


@pytest.mark.parametrize("library", [OLD, NEW])
@pytest.mark.parametrize("moved", [False, True], ids=["closed", "replaced"])
def test_an_app_that_closes_while_we_checkpoint_leaves_nothing_behind(
    path: Path, other: Path, library: str, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its close is not the last one, but ours is: nobody reads the log over a file that took the database's place meanwhile."""
    checkpoint, closed = Connections.checkpoint, list[str]()
    with SqlProcess(path, library) as app:
        app.script("CREATE TABLE t(origin, n, pad)", OWN)
        follower = following(path, soft_frames=1)
        app.run(OWN)

        def meanwhile(self: Connections, mode: str, *, synced: bool) -> bool:
            if not closed:
                closed.append(mode)
                app.close()
                if moved:
                    os.rename(other, path)
            return checkpoint(self, mode, synced=synced)

        monkeypatch.setattr(Connections, "checkpoint", meanwhile)
        if moved:
            assert cut_of(follower).cause is CutCause.REPLACED
            assert os.path.getsize(f"{path}-wal") == 0
        else:
            assert len(follower.poll()) == 1
            assert follower.counters.departures == 1, "SQLite has deleted the log as with the close of an app"
            assert os.path.getsize(f"{path}-wal") == 0
        assert closed == ["PASSIVE"]
        app.open()
        assert [row[0] for row in app.run(ROWS)] == (["new"] * 300 if moved else ["own"] * 2)
        assert app.run("PRAGMA integrity_check") == [["ok"]]
        follower.close()


def test_an_app_that_is_killed_and_started_again_at_once_is_followed(path: Path) -> None:
    """Nothing of the log that we have emptied meanwhile is taken for one that SQLite had to recover."""
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(origin, n, pad)", OWN)
        follower = following(path)
        app.run(OWN)
    commits = list(follower.poll())
    assert follower.away is None
    with SqlProcess(path) as app:
        app.run(OWN)
        commits += follower.poll()
        assert len(commits) == 2
        follower.close()


def _commits(app: SqlProcess) -> None:
    app.run(OWN)


def _commits_and_is_killed(app: SqlProcess) -> None:
    app.run(OWN)
    app.kill()


def _closes(app: SqlProcess) -> None:
    app.close()


def _has_it_open(app: SqlProcess) -> None:
    app.run("SELECT count(*) FROM t")


@pytest.mark.parametrize(
    ("does", "removes", "leaves"),
    [
        (_commits, False, True),
        (_commits_and_is_killed, False, True),
        (_has_it_open, False, True),
        (_closes, False, False),
        (_commits, True, False),
    ],
    ids=["commits", "commits-and-is-killed", "may-commit", "nobody", "the-log-was-removed"],
)
def test_a_log_that_is_read_over_the_file_in_its_place_is_told(
    path: Path, other: Path, does: Callable[[SqlProcess], None], removes: bool, leaves: bool
) -> None:
    """What the follower knew of the log at its last look is not enough: it was empty."""
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(origin, n, pad)", "PRAGMA wal_checkpoint(TRUNCATE)")
        follower = following(path)
        track = Track(path, follower, lambda: None)
        assert follower.position.frame == 0
        does(app)
        if removes:
            for suffix in ("-wal", "-shm"):
                path.with_name(f"{path.name}{suffix}").unlink()
        other.replace(path)
        track.look(time.monotonic(), thorough=True)
        assert track.cut
        assert (track.cut.cause, track.leaves_log) == (CutCause.REPLACED, leaves)
