"""What an app does between two steps of the follower, at each place where it hurts most."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.database.wal import Captured, CutCause, Follower, StreamCut
from tests.harness.sql_process import NEW, OLD, SqlProcess
from tests.integration.wal.replica import DRIVER, applied, comparable, copy_of, cut_of, following, settled
from tests.stress import mutants

INSERT = "INSERT INTO t VALUES (randomblob(3000))"
CHECKPOINTS = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
COPY = 48  # bytes of a copy of the header in the wal-index


class Following:
    """A follower, its base, and what it has captured."""

    def __init__(self, path: Path, follower: Follower) -> None:
        self.path, self.follower = path, follower
        self.base = copy_of(follower, path.with_name("base.db"))
        self.commits: list[Captured] = []

    def poll(self) -> None:
        self.commits += self.follower.poll()

    @property
    def is_right(self) -> bool:
        """Whether base and commits are the database."""
        self.poll()
        self.follower.hop()  # at a quiet moment, so that the snapshot is exactly what was captured
        copy = copy_of(self.follower, self.path.with_name("now.db"))
        return comparable(applied(self.base, self.commits)) == comparable(copy)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def started(path: Path, app: SqlProcess, *, parked: bool) -> Following:
    app.script("CREATE TABLE IF NOT EXISTS t(a)", INSERT)
    current = Following(path, following(path, idle_seconds=0.01 if parked else 1e9, soft_frames=10**9))
    app.run(INSERT)
    current.poll()
    if parked:
        current.commits += settled(current.follower, lambda: current.follower.parked)
    return current


def before(owner: object, name: str, act: Callable[[], None]) -> None:
    """Act once, before a step."""
    step, done = getattr(owner, name), list[bool]()

    def acting(*arguments: object) -> object:
        if not done:
            done.append(True)
            act()
        return step(*arguments)

    setattr(owner, name, acting)


@pytest.mark.parametrize("mode", CHECKPOINTS)
@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("step", ["begin", "read", "change"])
def test_commits_and_resets_between_the_steps_of_a_hop(path: Path, step: str, parked: bool, mode: str) -> None:
    """The app commits, checkpoints in every mode without waiting, and commits again: before the new transaction begins, after
    it has begun and before the log is read, and after that and before the old one ends."""
    with SqlProcess(path, wait=0) as app:
        current = started(path, app, parked=parked)
        hold = current.follower.hold

        def act() -> None:
            for _ in range(2):
                app.script(INSERT, f"PRAGMA wal_checkpoint({mode})")
            app.run(INSERT)

        app.run(INSERT)
        before(hold if step == "read" else hold.hands, "_read" if step == "read" else step, act)
        for _ in range(3):
            current.poll()
        assert [each.number for each in current.commits] == [1, 2, 3, 4, 5]
        assert current.is_right
        current.follower.close()


def test_a_log_that_is_emptied_while_its_last_frame_is_looked_for(path: Path) -> None:
    """All of it is in the database, so we are in nobody's way."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=True)
        before(current.follower.hold, "_header", lambda: app.script("PRAGMA wal_checkpoint(TRUNCATE)", INSERT))
        current.follower.hop()
        assert current.follower.commits == 1
        assert current.is_right
        assert current.follower.commits == 2
        current.follower.close()


def test_a_log_that_is_reset_while_a_successor_reads_it_is_a_cut(path: Path) -> None:
    """Frames without salts, as SQLite 3.40 writes them, would not show that they are of the next generation."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=False)
        log, commits = current.follower.position, current.follower.commits
        current.follower.close()
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        successor = Follower(path, DRIVER)
        successor.open(commits)
        before(successor.hold, "_read", lambda: app.script(INSERT))
        with pytest.raises(StreamCut, match="reset while it was read again") as cut:
            successor.resume(log)
        assert cut.value.cause is CutCause.RESET
        successor.close()


def test_a_database_that_is_removed_in_a_hop(path: Path) -> None:
    """The cause is what was done to it, and not the error that we meet because of that."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=True)

        def act() -> None:
            app.close()
            path.unlink()

        before(current.follower.hold.watch, "pin", act)
        with pytest.raises(StreamCut) as cut:
            current.follower.hop()
        assert cut.value.cause is CutCause.REPLACED, cut.value
        current.follower.close()


@pytest.mark.parametrize("library", [OLD, NEW])
def test_salts_that_jump(path: Path, library: str) -> None:
    """A connection that has not reset the log before draws both salts anew; resets of an empty log change them, too."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=True)
        seen = {current.follower.position.salts}
        for _ in range(3):
            with SqlProcess(path, library) as other:
                other.run(INSERT)
                current.poll()
                current.commits += settled(current.follower, lambda: current.follower.parked)
                other.script("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint(RESTART)")
            current.poll()
            seen.add(current.follower.position.salts)
        app.run(INSERT)
        assert current.is_right
        assert current.follower.commits == 5
        assert len(seen) > 3
        current.follower.close()


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("more", [0, 1])
def test_a_writer_that_died_between_the_two_copies_of_the_header(path: Path, parked: bool, more: int) -> None:
    """Its frames are whole, and SQLite recovers them: they are committed. The counter of commits begins anew."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=parked)
        with SqlProcess(path) as victim:
            before = _headers(path)
            victim.run(INSERT)
            _write_headers(path, before[:COPY])
        for _ in range(more):
            app.run(INSERT)
        if parked:  # it was the first commit of a generation, so the log was reset in between
            assert cut_of(current.follower).cause is CutCause.RECOVERED
        else:
            current.commits += settled(current.follower, lambda: current.follower.commits == 2 + more)
            assert current.is_right
        current.follower.close()


def test_a_commit_whose_writer_died_before_it_was_in_the_header(path: Path) -> None:
    """A whole transaction is in the file, with marker and checksums; nobody has seen it, and the next one overwrites it."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=False)
        _uncommitted(path)
        current.poll()
        assert current.follower.commits == 1
        app.run("INSERT INTO t VALUES ('real')")
        assert current.is_right
        assert current.follower.commits == 2
        current.follower.close()


@pytest.mark.parametrize("empty", [False, True])
def test_such_a_commit_does_not_count_by_our_close(path: Path, empty: bool) -> None:
    """All writers are dead, and what we have captured is all that anybody has seen. Who opens the database next may have it."""
    with SqlProcess(path) as app:
        current = _uncounted(path, app, empty=empty)
    current.follower.close()
    if empty:
        assert comparable(path.read_bytes()) == comparable(applied(current.base, current.commits))
    with SqlProcess(path) as app:
        assert app.run("SELECT count(*) FROM t") == [[3]]


@pytest.mark.parametrize("empty", [False, True])
def test_such_a_commit_is_captured_if_we_let_it_count(path: Path, empty: bool) -> None:
    """Nobody has the database open any more, so its log is copied into it, and all of that is captured."""
    with SqlProcess(path) as app:
        current = _uncounted(path, app, empty=empty)
    current.commits += settled(current.follower, lambda: current.follower.commits == 2)
    with SqlProcess(path) as app:
        assert current.is_right
        app.run(INSERT)
        current.poll()
        assert current.is_right
        assert current.follower.commits == 3
    current.follower.close()


def _uncounted(path: Path, app: SqlProcess, *, empty: bool) -> Following:
    """Three commits, the last one whole in the log, and not in the header; with `empty` it is the only one there."""
    current = started(path, app, parked=False)
    if empty:
        app.say("sql", "PRAGMA wal_checkpoint(TRUNCATE)", [])
        assert app.answer(lambda: current.commits.extend(current.follower.poll()), every=0.02)[0][0] == 0
        current.poll()
    before = _headers(path)
    app.run(INSERT)
    _write_headers(path, before)
    return current


def test_what_a_killed_program_committed_that_had_the_database_alone_is_not_lost(path: Path) -> None:
    """Its commits are in no shared memory. Before it is known to be there for long, it is killed, and the log is emptied."""
    with SqlProcess(path) as app:
        current = started(path, app, parked=False)
        app.close()
        app.open()
        app.run(INSERT)
        current.poll()
        with SqlProcess(path) as other:  # keeps the log
            other.run("SELECT * FROM t")
            app.close()
        app.open()
        app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT, INSERT)
    with suppress(StreamCut):
        for _ in range(5):
            current.poll()
    current.follower.close()
    with SqlProcess(path) as app:
        assert app.run("SELECT count(*) FROM t") == [[5]]


def test_a_recovery_that_loses_frames_without_checksums_is_a_cut(path: Path) -> None:
    """SQLite 3.40 wrote them, readers have seen them, and they are gone once a writer dies at the header."""
    with SqlProcess(path, OLD) as app:
        app.script("PRAGMA cache_size=5", "CREATE TABLE t(a)", "CREATE TABLE u(a)", *[INSERT] * 50)
        follower = following(path, idle_seconds=1e9)
        app.script("BEGIN", "INSERT INTO u VALUES (1)", "SAVEPOINT s", *["UPDATE t SET a=randomblob(3000)"] * 3)
        app.script("INSERT INTO u VALUES (randomblob(100000))", "ROLLBACK TO s")
        app.script(*["INSERT INTO u VALUES (randomblob(3000))"] * 10, "COMMIT")
        follower.poll()
        if not follower.counters.unsummed:
            pytest.skip("this SQLite does not write such frames")
        before = _headers(path)
        app.run(INSERT)
        _write_headers(path, before[:COPY])
        with pytest.raises(StreamCut) as cut:
            while True:
                app.run(INSERT)
                follower.poll()
        assert cut.value.cause is CutCause.RECOVERED
        follower.close()


def _lost_between_hops(path: Path, app: SqlProcess, current: Following) -> None:
    """A commit, a reset of the log, a commit."""
    app.script(INSERT, "PRAGMA wal_checkpoint(TRUNCATE)", INSERT)


def _lost_in_a_hop(path: Path, app: SqlProcess, current: Following) -> None:
    """The same once the old transaction has ended."""
    app.run(INSERT)
    reader, acted = current.follower.hold.hands.held, list[bool]()
    end = reader.end

    def acting() -> None:
        end()
        if not acted:
            acted.append(True)
            _lost_between_hops(path, app, current)

    reader.end = acting  # type: ignore[method-assign]


def _overwritten(path: Path, app: SqlProcess, current: Following) -> None:
    """A transaction that was never committed, captured, and then another one in its place."""
    _uncommitted(path)
    current.poll()
    app.run("INSERT INTO t VALUES (zeroblob(3000))")


def _lost_before_the_first_hop(path: Path, app: SqlProcess, current: Following) -> None:
    """All is in the database when the successor begins to read, so a commit may reset the log."""
    log, commits = current.follower.position, current.follower.commits
    current.follower.close()
    app.script(INSERT, "PRAGMA wal_checkpoint(PASSIVE)")
    current.follower = Follower(path, DRIVER)
    current.follower.open(commits)
    current.follower.resume(log)
    current.commits += current.follower.backlog.take().commits
    app.run(INSERT)


def _lost_without_locks(path: Path, app: SqlProcess, current: Following) -> None:
    """Our places among the readers are taken away."""
    current.follower.hold.hands.end()
    _lost_between_hops(path, app, current)


def _lost_aside(path: Path, app: SqlProcess, current: Following) -> None:
    """The same while we stand aside."""
    assert current.follower.hold.step_aside()
    _lost_between_hops(path, app, current)


SCHEDULES = {
    "unpinned": _lost_aside,
    "unpinned-proved": _lost_aside,
    "nothing-held": _lost_between_hops,
    "nothing-held-proved": _lost_between_hops,
    "end-first": _lost_in_a_hop,
    "markers": _overwritten,
    "resume-by-position": _lost_before_the_first_hop,
    "uncounted": _lost_without_locks,
    "locks-lost": _lost_without_locks,
}


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_broken_protocol_is_seen(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loses or mixes commits without a cut: the comparison sees it."""
    with SqlProcess(path, wait=0.1) as app:
        current = started(path, app, parked=False)
        mutants.apply(name, monkeypatch.setattr)
        if name.startswith("nothing-held"):
            current.follower.hold.hands.end()
        SCHEDULES[name](path, app, current)
        for _ in range(2):
            current.poll()
        monkeypatch.undo()
        assert not _is_right_now(path, current)
        current.follower.close()


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_the_same_schedules_miss_nothing(path: Path, name: str) -> None:
    """Or end with a cut, where the locks themselves are gone."""
    with SqlProcess(path, wait=0.1) as app:
        current = started(path, app, parked=False)
        SCHEDULES[name](path, app, current)
        if name == "uncounted":
            assert cut_of(current.follower).cause is CutCause.MISMATCH
        else:
            for _ in range(2):
                current.poll()
            assert _is_right_now(path, current)
        current.follower.close()


@pytest.mark.parametrize("name", mutants.SURVIVORS)
def test_the_counter_of_commits_sees_what_the_locks_did_not_hold(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqlProcess(path, wait=0.1) as app:
        current = started(path, app, parked=False)
        mutants.apply(name, monkeypatch.setattr)
        if name.startswith("nothing-held"):
            current.follower.hold.hands.end()
        SCHEDULES[name](path, app, current)
        with pytest.raises(StreamCut, match="2 commits happened, but 1 were found"):
            current.poll()
        current.follower.close()


def _is_right_now(path: Path, current: Following) -> bool:
    """The same as `is_right`, by the app's own copy."""
    target = path.with_name("live.db")
    target.touch()
    source, copy = DRIVER.connect(path, "rw"), DRIVER.connect(target, "rw")
    source.backup(copy)
    copy.close()
    source.close()
    return comparable(applied(current.base, current.commits)) == comparable(target.read_bytes())


def _uncommitted(path: Path) -> None:
    """A transaction that is whole in the log, and not in the header of the wal-index."""
    with SqlProcess(path) as victim:
        before = _headers(path)
        victim.run(INSERT)
        _write_headers(path, before)


def _headers(path: Path) -> bytes:
    return _apart("import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read(96))", path)


def _write_headers(path: Path, content: bytes) -> None:
    _apart("import sys; open(sys.argv[1], 'r+b').write(bytes.fromhex(sys.argv[2]))", path, content.hex())


def _apart(program: str, path: Path, *arguments: str) -> bytes:
    """In a process of its own: closing the shared memory in this one would drop the follower's locks."""
    command = [sys.executable, "-Sc", program, f"{path}-shm", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
