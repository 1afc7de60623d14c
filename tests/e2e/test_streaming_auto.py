"""`stream=auto` with real apps: it streams where the app does not notice, says why where it does not, and loses nothing."""

import itertools
import json
import resource
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import Machine
from tests.e2e.streaming import status_of
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sql_process import NEW, OLD, SqlProcess

INSERT = "INSERT INTO t VALUES (randomblob(100))"
STREAMING = '"event": "stream begun"'
DESCRIPTORS = 256
WAITS = "sidecar, not the app, chose WAL mode"


def streaming(machine: Machine, *command: str, interval: str = "1h", prefix: tuple[str, ...] = ()) -> SidecarProcess:
    """A daemon. Without a command its app runs elsewhere, and is not waited for at the end."""
    return machine.run(*command, prefix=prefix, stream="auto", stream_interval="100ms", interval=interval, drain="0s")


def flipping(path: Path, milliseconds: int) -> tuple[str, ...]:
    """An app that writes in two journal modes when it starts, and says so."""
    create, insert = "CREATE TABLE IF NOT EXISTS t(a)", "INSERT INTO t VALUES (1)"
    statements = f"PRAGMA journal_mode=DELETE; {create}; {insert}; PRAGMA journal_mode=WAL; {insert}"
    return "sh", "-c", f'sqlite3 {path} ".timeout {milliseconds}" "{statements}" && exec sleep 60'


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def wait_entered(process: SidecarProcess) -> None:
    """The restore point through which the stream is entered is published: no copy of it reads the database any more."""
    eventually(lambda: status_of(process)["protects"], 30, "the stream protects")


def wait_streamed(process: SidecarProcess, commits: int) -> None:
    """All these commits are in segments, which a restore reaches."""
    process.wait_metric("sidecar_stream_commits_total", commits)
    wait_entered(process)
    eventually(lambda: process.metric("sidecar_stream_lag_seconds") == 0, 10, "everything is published")


def stored_stream(machine: Machine) -> dict[str, Any] | None:
    """What `status` says of the database from the store alone, once it knows how far the stream goes."""
    (found,) = json.loads(machine.cli("status", "--json").stdout)["databases"]
    return found if found.get("streamed_to") else None


def restored_after_kill(machine: Machine, process: SidecarProcess) -> int:
    """The rows that another machine gets back when this one dies now."""
    process.kill()
    target = machine / "elsewhere.db"
    done = machine.cli("restore", "--output", str(target), "--force")
    assert done.returncode == 0, done.stderr
    return rows(target)


def test_an_app_that_creates_its_database_in_wal_mode(local: Machine) -> None:
    """Nothing is streamed before the app has used its database for 10 s, which is why this takes 40 s.

    1. The app creates its database beside a running daemon.
    2. It closes its database and opens it again for each write, and never waits or fails. kill -9: every commit is in the store.
    3. Another machine streams what its app commits from the start on, without another restore point. kill -9: every commit
       is in the store.
    """
    with streaming(local) as process:
        process.wait_for_log("there is no database")
        with SqlProcess(local.database, wait=0) as app:
            app.run("CREATE TABLE t(a)")
            process.wait_for_log(STREAMING)
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            app.script(*[INSERT] * 20)
            wait_streamed(process, 20)
            for number in range(21, 41):
                app.close()
                app.open()
                app.run(INSERT)
                assert app.seconds < 1, number
                wait_streamed(process, number)
            assert not process.metric("sidecar_stream_cuts_total")
        assert restored_after_kill(local, process) == 40
    said = eventually(lambda: stored_stream(local), 30, "status knows the stream")
    assert datetime.now(UTC) - datetime.fromisoformat(said["streamed_to"]) < timedelta(seconds=said["age_seconds"])
    eventually(lambda: "\n  streamed until        20" in local.cli("status").stdout, 30, "a person sees it")
    local.lose_disk()
    with streaming(local, "sleep", "60") as process:
        process.wait_ready()
        with SqlProcess(local.database, wait=0) as app:
            app.script(INSERT, INSERT)
            process.wait_for_log(r'"stream begun".*"after": "[^"]*/40"')
            app.run(INSERT)
            wait_streamed(process, 3)
            assert process.metric("sidecar_backups_total", outcome="published") in {None, 0}
        assert restored_after_kill(local, process) == 43


def test_the_app_has_the_limit_of_descriptors_that_we_were_given(local: Machine) -> None:
    """And the daemon has more, before it streams anything."""
    limit = ("sh", "-c", f'ulimit -Sn {DESCRIPTORS}; exec "$@"', "sh")
    with streaming(local, "sh", "-c", "echo limit $(ulimit -Sn); exec sleep 60", prefix=limit) as process:
        process.wait_for_log(f"limit {DESCRIPTORS}\n")
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(1 << 16, hard) > DESCRIPTORS
        process.wait_ready()
        assert process.terminate() == 143


@pytest.mark.parametrize("milliseconds", [0, 5000])
def test_an_app_that_leaves_wal_mode_at_every_start(local: Machine, milliseconds: int) -> None:
    """And comes back: it can, whether or not we see it do so. `sqlite3` ends with an error if not."""
    for boot in range(3):
        with streaming(local, *flipping(local.database, milliseconds), interval="1s") as process:
            process.wait_for_log("delete\\nwal\\n")
            if boot:  # the first time, it may have come and gone before the first look
                process.wait_for_log(f"{STREAMING}|in another journal mode")
            assert "database is locked" not in process.output()
            assert process.terminate() == 143
        assert rows(local.restore_copy()) == 2 * boot + 2


@pytest.mark.parametrize("library", [OLD, NEW])
def test_an_app_that_opens_its_database_late_and_leaves_wal_mode(local: Machine, library: str) -> None:
    """The daemon knows that the app has chosen WAL mode, and waits for it all the same."""
    with SqlProcess(local.database) as app:
        app.run("CREATE TABLE t(a)")
        with streaming(local, interval="1s") as process:
            process.wait_for_log(STREAMING)
            app.close()
            assert process.terminate() == 0
    with streaming(local) as process:
        process.wait_ready()
        process.wait_for_log("streaming begins once the app has opened the database")
        process.wait_metric("sidecar_backups_total", 1, outcome="unchanged")  # it may lock the database for a moment
        with SqlProcess(local.database, library, wait=0, rollback=True) as app:
            for mode in ("delete", "wal", "truncate", "wal"):
                assert app.run(f"PRAGMA journal_mode={mode}") == [[mode]]
                app.run(INSERT)
            app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT)
        assert STREAMING not in process.output()
        assert process.terminate() == 0
    assert rows(local.restore_copy()) == 5


def test_a_database_that_sidecar_has_switched(local: Machine) -> None:
    """
    1. An app in rollback mode: sidecar switches its database, and streams one interval after that.
    2. The next daemon waits again, and the app sets another mode meanwhile: it can, and is left alone for good.
    """
    with streaming(local, interval="1s") as process, SqlProcess(local.database, rollback=True) as app:
        app.run("CREATE TABLE t(a)")
        process.wait_for_log("the database is not in WAL mode")
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        app.run(INSERT)
        app.close()
        process.wait_for_log("database switched to WAL")
        app.open()
        app.run("SELECT * FROM t")
        process.wait_for_log(WAITS)
        process.wait_for_log(STREAMING)
        process.wait_metric("sidecar_backups_total", 3, outcome="published")  # through which the stream is entered
        app.script(INSERT, INSERT)
        wait_streamed(process, 2)
        assert restored_after_kill(local, process) == 3
    with streaming(local) as process, SqlProcess(local.database, rollback=True, wait=0) as app:
        process.wait_for_log(WAITS)
        process.wait_metric("sidecar_backups_total", 1)  # which would switch it to WAL mode again
        assert app.run("PRAGMA journal_mode=DELETE") == [["delete"]]
        process.wait_for_log("in another journal mode after it had been in WAL mode")
        assert app.run("PRAGMA journal_mode=WAL") == [["wal"]]
        app.run(INSERT)
        assert STREAMING not in process.output()
        assert process.terminate() == 0
    assert rows(local.restore_copy()) == 4


def test_an_app_that_has_its_database_for_itself_alone(local: Machine) -> None:
    """From its start on: nothing is streamed, and it does not notice us."""
    with SqlProcess(local.database, wait=0) as app:
        app.script("PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE t(a)", INSERT)
        with streaming(local) as process:
            process.wait_for_log(r"exclusively .*not stream again before the next start")
            app.script(INSERT, INSERT)
            app.close()
            # The first backup reads it as soon as it is closed.
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            app.open(0)
            app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT)
            assert STREAMING not in process.output()
            app.close()
            assert process.terminate() == 0
    assert rows(local.restore_copy()) == 4


def test_an_app_that_wants_its_database_for_itself_alone_later(local: Machine) -> None:
    """It has it at once, without a busy timeout; we notice within 10 s, which is why this takes longer, and do not come back."""
    with streaming(local) as process, SqlProcess(local.database, wait=0) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        process.wait_for_log(STREAMING)
        wait_entered(process)
        app.script("PRAGMA locking_mode=EXCLUSIVE", INSERT)
        process.wait_for_log('"cause": "exclusive"')
        assert process.wait_metric("sidecar_stream_cuts_total", 1, cause="exclusive") == 1
        process.wait_for_log('"reason": "cut: a program has')
        app.script(INSERT, INSERT)
        app.close()
        assert process.terminate() == 0
    assert rows(local.restore_copy()) == 4


def test_a_file_that_is_replaced_while_its_log_has_frames(local: Machine) -> None:
    """An app that has the old one open, and leaves its log there: the restore point before is held, and we say how to do it."""
    other = local / "other.db"
    with SqlProcess(other) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        app.close()
    with streaming(local, interval="1s") as process, SqlProcess(local.database) as app:
        app.script("CREATE TABLE t(a)", INSERT)
        process.wait_for_log(STREAMING)
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        app.run(INSERT)
        other.replace(local.database)
        process.wait_for_log('"cause": "replaced"')
        held = process.wait_for_log(r'"suspicious snapshot".*remove -wal and -shm before.*"held": "([^"]+)"')[1]
        assert held.rpartition("/")[2] in {point.name for point in local.points()}


def test_a_write_past_the_log(local: Machine) -> None:
    """`dd` over a part of the database, while an idle app has it open: told, a cut, and in the next restore point."""
    with streaming(local, interval="1s") as process, SqlProcess(local.database) as app:
        app.script("CREATE TABLE t(a)", "INSERT INTO t VALUES (hex(zeroblob(1000)))")
        process.wait_for_log(STREAMING)
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
        place = local.database.read_bytes().index(b"0" * 1000)
        letters = itertools.cycle("ABCDEF")

        def told() -> bool:
            """Written again until the follower knows that nothing else could have written."""
            if '"cause": "replaced"' not in process.output():
                (local / "part").write_text(next(letters) * 1000)
                dd = ["dd", f"if={local / 'part'}", f"of={local.database}", "bs=1", f"seek={place}", "conv=notrunc"]
                subprocess.run(dd, check=True, stderr=subprocess.DEVNULL)
            return '"cause": "replaced"' in process.output()

        eventually(told, 30, "the cut is logged")
        assert "was written past its log: another file may have been copied over it" in process.output()
        assert process.metric("sidecar_stream_cuts_total", cause="replaced") == 1
        written = (local / "part").read_bytes()
        eventually(lambda: written in local.restore_copy().read_bytes(), 30, "it is in the next restore point")
