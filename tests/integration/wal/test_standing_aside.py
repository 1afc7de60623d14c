"""Standing aside: the log is pinned instead of read, so that the app's own checkpoints complete, and nothing is missed."""

from pathlib import Path

import pytest

from sidecar.database.wal import Follower, Limits
from sidecar.database.wal.room import backfill
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import applied, comparable, copy_of, following
from tests.integration.wal.test_interleaving import CHECKPOINTS, INSERT, Following, before

COUNT = "SELECT count(*) FROM t"
PATIENT = {"soft_frames": 10**9, "idle_seconds": 1e9}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def aside(path: Path, app: SqlProcess, **limits: object) -> Following:
    """A follower that has captured a commit, and stands aside."""
    app.script("CREATE TABLE t(a)", INSERT)
    current = Following(path, following(path, **(PATIENT | limits)))
    app.run(INSERT)
    current.poll()
    assert current.follower.hold.step_aside()
    return current


@pytest.mark.parametrize("library", [OLD, NEW])
def test_a_checkpoint_gets_past_us_and_the_log_is_not_reset(path: Path, library: str) -> None:
    with SqlProcess(path, library, wait=0) as app:
        current = aside(path, app)
        salts = current.follower.position.salts
        app.run(INSERT)
        busy, frames, copied = app.run("PRAGMA wal_checkpoint(PASSIVE)")[0]
        assert (busy, copied) == (0, frames)
        app.run(INSERT)
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
        assert app.run("PRAGMA wal_checkpoint(RESTART)")[0][0] == 1
        app.run(INSERT)
        assert current.follower.index().salts == salts
        current.follower.hold.catch_up()
        assert not current.follower.hold.park(), "not all of it is in the database"
        assert current.is_right
        assert current.follower.commits == 4
        current.follower.close()


def test_after_a_checkpoint_of_the_apps_the_next_commit_resets_the_log(path: Path) -> None:
    """Both are commits of the app; it waits for nothing."""
    with SqlProcess(path, wait=0) as app:
        app.run("PRAGMA wal_autocheckpoint=1")
        current = aside(path, app)
        salts = current.follower.position.salts
        app.run(INSERT)
        current.poll()
        assert current.follower.parked
        assert not current.follower.hold.aside
        assert current.follower.hold.exact
        app.run(INSERT)
        assert current.follower.index().salts != salts
        assert current.is_right
        assert current.follower.commits == 3
        current.follower.close()


@pytest.mark.parametrize("mode", CHECKPOINTS)
@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("last", [INSERT, ""], ids=["commit", "checkpoint"])
@pytest.mark.parametrize("step", ["take", "end", "read", "begin", "change", "release"])
def test_commits_and_resets_between_the_steps(path: Path, step: str, last: str, parked: bool, mode: str) -> None:
    with SqlProcess(path, wait=0) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        current = Following(path, following(path, **PATIENT))
        app.run(INSERT)
        current.poll()
        hold = current.follower.hold
        pin = hold.hands.files.pin
        if parked:
            backfill(hold, Limits())
            assert hold.parked

        def act() -> None:
            for _ in range(2):
                app.script(INSERT, f"PRAGMA wal_checkpoint({mode})")
            if last:
                app.run(last)

        owner = {"take": pin, "release": pin, "read": hold}.get(step, hold.hands)
        before(owner, "_read" if step == "read" else step, act)
        assert hold.step_aside()
        for _ in range(2):
            app.run(INSERT)
            hold.catch_up()
            app.run("PRAGMA wal_checkpoint(PASSIVE)")
            hold.park()
        app.run(INSERT)
        assert current.is_right
        assert [each.number for each in current.commits] == list(range(1, len(current.commits) + 1))
        assert len(current.commits) == (7 if last else 6)
        current.follower.close()


def test_commits_that_always_beat_us_are_followed_by_the_apps_own_checkpoint(path: Path) -> None:
    with SqlProcess(path, NEW) as app:
        app.run("PRAGMA wal_autocheckpoint=20")
        app.script("CREATE TABLE t(a, b)", "INSERT INTO t VALUES (1, 1)")
        follower = following(path, soft_frames=15, forced_bytes=1)
        base, commits, bursts = copy_of(follower, path.with_name("base.db")), [], 0
        copy = follower.hold.hands.backfill

        def beaten() -> bool:
            copied = copy()
            app.run("UPDATE t SET b=randomblob(900)")
            return copied

        follower.hold.hands.backfill = beaten  # type: ignore[method-assign]
        while follower.counters.parkings < 3:
            bursts += 1
            assert bursts < 300, follower.counters
            app.run("UPDATE t SET b=randomblob(900)")
            commits += follower.poll()
        app.run("UPDATE t SET b=1")
        commits += follower.poll()
        assert follower.counters.forced == 0
        assert comparable(applied(base, commits)) == comparable(copy_of(follower, path.with_name("now.db")))
        follower.close()


def test_a_reader_of_the_apps_is_not_waited_for(path: Path) -> None:
    with SqlProcess(path) as app, SqlProcess(path) as reader:
        app.script("CREATE TABLE t(a)", INSERT)
        current = Following(path, following(path, soft_frames=1))
        reader.script("BEGIN", COUNT)
        app.run(INSERT)
        current.poll()
        assert current.follower.counters.asides == 0
        assert not current.follower.hold.aside
        assert reader.run(COUNT) == [[1]]
        reader.run("COMMIT")
        assert current.is_right
        current.follower.close()


def test_an_app_that_never_checkpoints_is_not_waited_for_long(path: Path) -> None:
    with SqlProcess(path) as app:
        app.run("PRAGMA wal_autocheckpoint=0")
        current = aside(path, app, soft_frames=1, aside_seconds=0.0)
        copy = current.follower.hold.hands.backfill

        def beaten() -> bool:
            copied = copy()
            app.run(INSERT)
            return copied

        current.follower.hold.hands.backfill = beaten  # type: ignore[method-assign]
        app.run(INSERT)
        current.poll()
        assert not current.follower.hold.aside
        current.follower.hold.hands.backfill = copy  # type: ignore[method-assign]
        assert current.is_right
        current.follower.close()


def test_a_follower_that_ends_leaves_nothing_pinned(path: Path) -> None:
    with SqlProcess(path, wait=0) as app:
        current = aside(path, app)
        current.follower.close()
        assert not current.follower.hold.aside
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_where_every_slot_is_in_use_nothing_is_pinned(path: Path) -> None:
    """Four readers with snapshots of their own; one that comes later shares a slot."""
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        follower = following(path, **PATIENT)
        readers = [SqlProcess(path) for _ in range(3)]
        for reader in readers:
            app.run(INSERT)
            reader.script("BEGIN", COUNT)
        app.run(INSERT)
        follower.hop()
        assert not follower.hold.step_aside()
        assert follower.hold.hands.held.place is not None
        for reader in readers:
            reader.kill()
        follower.close()


def test_what_is_open_elsewhere_in_this_process_does_not_drop_the_pin(path: Path) -> None:
    """Closing any descriptor of the shared memory drops SQLite's locks, and those of its connections."""
    with SqlProcess(path, wait=0) as app:
        current = aside(path, app)
        other = Follower(path, current.follower.driver)
        other.open()
        other.start()
        other.close()
        with open(f"{path}-shm", "rb"):
            pass
        app.run(INSERT)
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 1
        assert current.is_right
        current.follower.close()
