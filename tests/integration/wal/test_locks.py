"""No step of ours drops a lock of another connection of this process."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.database import live_now
from sidecar.database.driver import pragma
from sidecar.database.in_place import Shown, live_parts
from sidecar.database.wal import Follower, glance
from sidecar.database.wal.descriptors import close_kept
from sidecar.database.wal.room import empty, force_reset
from tests.harness.sql_process import SqlProcess
from tests.integration.wal.replica import DRIVER, following

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks")

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


def locks_of(path: Path) -> set[tuple[str, int]]:
    """The bytes of a database and its shared memory that this process has locked."""
    inodes = {str(os.stat(f"{path}{suffix}").st_ino): suffix for suffix in ("", "-shm")}
    found: set[tuple[str, int]] = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        inode = fields[5].rpartition(":")[2] if len(fields) > 7 else ""
        if inode in inodes and fields[4] == str(os.getpid()):
            found |= {(inodes[inode], byte) for byte in range(int(fields[6]), int(fields[7]) + 1)}
    return found


def descriptors_of(path: Path) -> int:
    """How many descriptors this process has of a database and its companions."""
    return sum(_target(each).startswith(str(path)) for each in os.listdir("/dev/fd"))


def _target(name: str) -> str:
    try:
        return os.readlink(f"/dev/fd/{name}")
    except OSError:
        return ""


def steps(follower: Follower, app: SqlProcess) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way of ours to a database, in an order in which each can happen."""
    yield "open", follower.open
    yield "start", follower.start
    yield "write", lambda: app.run(INSERT)
    yield "look", follower.look
    yield "hop", follower.hop
    yield "thorough", lambda: follower.look(thorough=True)
    yield "aside", lambda: follower.hold.step_aside()
    yield "write aside", lambda: app.run(INSERT)
    yield "catch up", lambda: follower.hold.catch_up()
    yield "checkpoint", lambda: app.run("PRAGMA wal_checkpoint(PASSIVE)")
    yield "park", lambda: follower.hold.park()
    yield "backfill", lambda: follower.hold.hands.backfill()
    yield "force", lambda: force_reset(follower.hold, follower.limits)
    yield "empty", lambda: empty(follower.hold)
    yield "index", follower.index
    yield "glance", lambda: glance(follower.path)
    yield "in place", lambda: read_in_place(follower)
    yield "live now", lambda: read_live(follower.path)
    yield "resume", lambda: follower.resume(follower.position)
    yield "close", follower.close


def read_in_place(follower: Follower) -> None:
    size = pragma_of(follower.path, "page_size")
    shown = Shown(follower.index(), size, pragma_of(follower.path, "page_count"))
    with live_parts(follower.path, follower.path.stat().st_ino, shown, DRIVER.version_info) as parts:
        parts.read(0)


def read_live(path: Path) -> None:
    with live_now(path, DRIVER) as parts:
        held = locks_of(path)
        parts.read(0)
        assert {name for name, _ in held} == {"", "-shm"}


def pragma_of(path: Path, name: str) -> int:
    with closing(DRIVER.connect(path, "ro")) as connection:
        return pragma(connection, name)


def test_no_step_drops_the_locks_of_a_transaction_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app, closing(DRIVER.connect(path, "ro")) as beside:
        app.script("CREATE TABLE t(a)", INSERT)
        beside.execute("BEGIN")
        beside.execute("SELECT count(*) FROM t").fetchall()
        held = locks_of(path)
        assert {byte for name, byte in held if name} >= {
            124,
            128,
        }  # the place of a reader, and the shared memory as a whole
        for name, step in steps(Follower(path, DRIVER), app):
            step()
            assert held <= locks_of(path), name
        app.run(INSERT)
        assert beside.execute("SELECT count(*) FROM t").fetchall() == [(1,)]


def test_leaving_drops_no_lock_either(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        with closing(DRIVER.connect(path, "ro")) as beside:
            beside.execute("BEGIN")
            beside.execute("SELECT count(*) FROM t").fetchall()
            held = locks_of(path)
            follower = following(path)
            follower.hold.hands.close(tidy=True)
            assert held <= locks_of(path)
        follower.close()


def test_our_descriptors_are_closed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        with closing(DRIVER.connect(path, "ro")) as beside:
            beside.execute("SELECT * FROM t").fetchall()
            alone = descriptors_of(path)
            following(path).close()
            assert descriptors_of(path) > alone  # kept: closing them would drop the locks of the one beside
        following(path).close()
        close_kept()
        assert descriptors_of(path) == 0


def test_any_number_of_streams_beside_an_open_connection_keeps_no_more_descriptors_than_one(tmp_path: Path) -> None:
    """An app in this process, as with the library: its locks stay, and the log, which has none, is closed each time."""
    path = tmp_path / "app.db"
    with closing(DRIVER.connect(path, "rwc")) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE t(a)")
        app.execute("BEGIN")
        app.execute("SELECT count(*) FROM t").fetchall()
        held, alone = locks_of(path), descriptors_of(path)
        kept = set()
        for _ in range(10):
            follower = following(path)
            follower.hop()
            follower.failed = True  # as after a cut
            follower.close()
            glance(path)
            kept.add(descriptors_of(path) - alone)
            assert held <= locks_of(path)
        assert len(kept) == 1
        app.execute("ROLLBACK")
    close_kept()
    assert descriptors_of(path) == 0


def test_a_kept_descriptor_of_a_removed_file_is_not_used_for_the_one_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(DRIVER.connect(path, "rwc")) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE t(a)")
        following(path).close()
        path.rename(tmp_path / "old.db")
        path.write_bytes(b"another file")
        seen = glance(path)
        assert seen
        assert (seen.is_wal, seen.stamps.inode) == (False, (os.stat(path).st_dev, os.stat(path).st_ino))


def test_many_glances_beside_an_open_connection_keep_one_descriptor(tmp_path: Path) -> None:
    """It is closed soon after the connection."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        with closing(DRIVER.connect(path, "ro")) as connection:
            connection.execute("SELECT * FROM t").fetchall()
            before = descriptors_of(path)
            for _ in range(10):
                seen = glance(path)
                assert seen
                assert (seen.is_wal, seen.used, seen.exclusive) == (True, True, False)
            assert descriptors_of(path) == before + 1
        close_kept()
        assert descriptors_of(path) == 0
        app.run("PRAGMA journal_mode=DELETE")
        app.run("BEGIN EXCLUSIVE")
        seen = glance(path)
        assert seen
        assert (seen.is_wal, seen.used, seen.exclusive) == (False, True, True)
