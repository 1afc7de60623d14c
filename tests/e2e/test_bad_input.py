"""Stores, files and disks that cannot be worked with: one line, the right exit code, no changed data."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, may_unshare, notes, write_note
from tests.harness.seaweed import Seaweed
from tests.harness.writers import fill

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or not may_unshare("--mount"), reason="mounting in a namespace is not permitted here"
)


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with this code, and its one line has these words."""
    assert done.returncode == code, f"{done.returncode}\n{done.stderr}"
    line = complaint(done.stderr)
    assert all(word in line for word in words), line


def mounted(*script: str) -> tuple[str, ...]:
    """A prefix: run the command in a mount namespace of its own, after these shell lines."""
    return ("unshare", "--mount", "sh", "-ec", "\n".join([*script, 'exec "$@"']), "sh")


# --- stores ---


@pytest.mark.parametrize(
    ("changed", "code", "word"),
    [
        ({"SIDECAR_STORE": "s3://no-such-bucket/shop"}, 69, "no-such-bucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, 77, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, 77, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 77, "AWS_"),
        ({"AWS_ENDPOINT_URL_S3": "no url"}, 78, "not a URL"),
        ({"AWS_REGION": "", "AWS_ENDPOINT_URL_S3": ""}, 78, "AWS_REGION"),
    ],
    ids=["missing bucket", "wrong secret", "unknown key", "no credentials", "nonsense endpoint", "no region"],
)
def test_store_that_refuses_us(changed: dict[str, str], code: int, word: str, machine: Machine) -> None:
    """At once, not after restore_timeout; `run` starts no app, `backup` leaves the database alone."""
    write_note(machine.database, "precious")
    before = machine.disk()
    marker = machine / "marker"
    refused(machine.cli("run", "--", "touch", str(marker), env=changed, timeout=15), code, word)
    refused(machine.cli("backup", env=changed, timeout=15), code, word)
    assert not marker.exists()
    assert machine.disk() == before


def test_key_that_may_only_read_cannot_publish(machine: Machine, seaweed: Seaweed) -> None:
    """77 from `backup`; the reading commands work with it."""
    write_note(machine.database, "row")
    assert machine.cli("backup").returncode == 0
    reader = seaweed.environment(reader=True)
    write_note(machine.database, "another")
    refused(machine.cli("backup", env=reader), 77, "denies")
    assert machine.cli("verify", env=reader).returncode == 0


# --- files ---


def _text(path: Path) -> None:
    path.write_text("no database " * 1000)


def _random(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _damaged(path: Path) -> None:
    fill(path, 0.2)
    data = bytearray(path.read_bytes())
    data[100:3000] = b"\xff" * 2900
    path.write_bytes(data)


@pytest.mark.parametrize("make", [_text, _random, _damaged])
@pytest.mark.parametrize("command", ["backup", "run"])
def test_file_that_is_no_database_is_65(make: Callable[[Path], None], command: str, local: Machine) -> None:
    """Text, noise (as an encrypted database is) and a damaged schema: not published, not touched, no app on them."""
    make(local.database)
    before = local.disk()
    app = ["--", "touch", str(local / "marker")] if command == "run" else []
    refused(local.cli(command, *app), 65, str(local.database))
    assert not (local / "marker").exists()
    assert local.disk() == before
    assert local.points() == []


def test_missing_database_and_directory_are_78(local: Machine) -> None:
    """`backup` of nothing is a mistake; a directory is one for `run` as well."""
    refused(local.cli("backup"), 78, str(local.database))
    local.database.mkdir()
    refused(local.cli("backup"), 78, str(local.database))
    refused(local.cli("run", "--", "touch", str(local / "marker")), 78, str(local.database))
    assert not (local / "marker").exists()
    assert local.files() == ["app.db"]


def test_a_path_through_a_link_to_itself_is_78(local: Machine) -> None:
    """Python before 3.13 makes a RuntimeError of it."""
    (local / "loop").symlink_to("loop")
    refused(local.cli("backup", env={"SIDECAR_DATABASES": str(local / "loop" / "app.db")}), 78, "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_database_is_78(local: Machine) -> None:
    """A file of somebody else: neither published as nothing nor replaced."""
    write_note(local.database, "row")
    local.database.chmod(0)
    refused(local.cli("backup"), 78, str(local.database))
    refused(local.cli("run", "--", "touch", str(local / "marker")), 78, str(local.database))
    assert not (local / "marker").exists()


# --- restore points ---


def test_damaged_restore_point_is_65_and_replaces_nothing(local: Machine) -> None:
    """Cut short, altered, or something else entirely: `restore` and `verify` name it; the database that is there stays."""
    write_note(local.database, "first")
    assert local.publish() == "published"
    (point,) = local.points()
    whole, before = point.read_bytes(), local.disk()
    altered = whole[:20] + bytes([whole[20] ^ 0x55]) + whole[21:]
    for damaged in (whole[:-50], altered, b"foreign" * 99):
        point.write_bytes(damaged)
        refused(local.cli("restore", "--force"), 65, point.name.partition(".sqlite3")[0], "by its key")
    done = local.cli("verify")
    refused(done, 65)
    assert f"{point.name}: DAMAGED" in done.stdout
    assert local.disk() == before


def test_restore_of_what_does_not_exist(local: Machine) -> None:
    """--at before the first point 66, a key that is not there 66, a key of another database or of nothing 64."""
    other = local.data / "other.db"
    for path in (local.database, other):
        write_note(path, path.name)
        assert local.cli("backup", databases=path).returncode == 0
    stranger = next((local / "store").glob("other.db/*.zst"))
    before = local.disk()
    refused(local.cli("restore", "--at", "2020-01-01T00:00:00Z", "--force"), 66, "2020")
    refused(local.cli("restore", "--key", "app.db/20200101T000000.000Z.sqlite3.zst", "--force"), 66, "sidecar list")
    refused(local.cli("restore", "--key", f"other.db/{stranger.name}", "--force"), 64, "app.db")
    (local / "store" / "app.db" / "notes.txt").write_text("not ours")
    refused(local.cli("restore", "--key", "app.db/notes.txt", "--force"), 64, "app.db")
    assert local.disk() == before


# --- disks ---


@needs_mounts
def test_no_room_to_restore_is_73(local: Machine) -> None:
    """By `restore` and by `run`; nothing is left on the full disk, no app is started on nothing."""
    fill(local.database, 6)
    assert local.publish() == "published"
    tiny = mounted(f"mount -t tmpfs -o size=4m none {local.data}")
    lists = f"trap 'ls -A {local.data} > {local / 'listing'}' EXIT"
    prefix = (*tiny[:4], tiny[4].replace('exec "$@"', f'{lists}\n"$@"'), "sh")
    for arguments in (["restore"], ["run", "--", "touch", str(local / "marker")]):
        refused(local.cli(*arguments, prefix=prefix), 73, str(local.data))
        assert (local / "listing").read_text() == ""
    assert not (local / "marker").exists()


@needs_mounts
def test_no_room_for_staging_fails_the_backup_and_not_the_app(local: Machine) -> None:
    """`backup` is 73; under `run` the app lives on, and 74 tells of it in the end."""
    fill(local.database, 6)
    staging = local / "staging"
    staging.mkdir()
    prefix = mounted(f"mount -t tmpfs -o size=2m none {staging}")
    refused(local.cli("backup", prefix=prefix, staging_dir=staging), 73, str(staging))
    with local.run(*CALM_APP, prefix=prefix, staging_dir=staging) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="failed")
        assert process.http("/readyz")[0] == 200
        assert process.terminate() == 74
    assert local.points() == []


def test_read_only_data_directory_is_78(local: Machine) -> None:
    """By `run` and by `restore`, before anything is downloaded."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    local.lose_disk()
    prefix: tuple[str, ...] = ()
    if os.geteuid() != 0:
        local.data.chmod(0o555)
    elif may_unshare("--mount"):
        prefix = mounted(f"mount --bind {local.data} {local.data}", f"mount -o remount,bind,ro {local.data}")
    else:
        pytest.skip("mounting in a namespace is not permitted here")
    refused(local.cli("run", "--", "touch", str(local / "marker"), prefix=prefix), 78, str(local.data))
    refused(local.cli("restore", prefix=prefix), 78, str(local.data))
    local.data.chmod(0o755)
    assert not (local / "marker").exists()
    assert local.files() == []


def test_output_where_nothing_can_be_written(local: Machine) -> None:
    """A directory is 64; below a file is 78."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    refused(local.cli("restore", "--output", str(local.data)), 64, "directory")
    refused(local.cli("restore", "--output", f"{local.database}/below.db"), 78, str(local.database))
    assert notes(local.database) == ["row"]


# --- databases that are not used as SQLite does by default, or not under this name ---


@needs_mounts
def test_database_that_is_a_mount_point_is_78(local: Machine) -> None:
    """The app's WAL is elsewhere: by `run`, `backup`, `restore` and `check`, whatever the store has."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    (local / "other").mkdir()
    write_note(local / "other" / "app.db", "another")
    prefix = mounted(f"mount --bind {local / 'other' / 'app.db'} {local.database}")
    for command in (("run", "--", "touch", str(local / "marker")), ("backup",), ("restore", "--force")):
        refused(local.cli(*command, prefix=prefix), 78, "is a mount point of its own", "mount the directory")
    checked = local.cli("check", prefix=prefix)
    assert checked.returncode == 78
    assert "is a mount point of its own" in checked.stdout
    assert not (local / "marker").exists()
    assert notes(local.database) == ["row"]


def test_lock_directory_that_was_left_is_78(local: Machine) -> None:
    """A program that locks with it would wait for ever; it is named with the way to remove it."""
    write_note(local.database, "row")
    lock = Path(f"{local.database}.lock")
    lock.mkdir()
    refused(local.cli("run", "--", "touch", str(local / "marker")), 78, f"rmdir {lock}")
    refused(local.cli("backup"), 78, f"rmdir {lock}")
    assert not (local / "marker").exists()
    lock.rmdir()
    assert local.cli("backup").returncode == 0


DOTFILE_APP = """
import sqlite3, sys, time
connection = sqlite3.connect(f"file:{sys.argv[1]}?vfs=unix-dotfile", uri=True, isolation_level=None)
connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v)")
connection.executemany("INSERT INTO t VALUES (?, 0)", [(key,) for key in range(200)])
end = time.monotonic() + 3
while time.monotonic() < end:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE t SET v = v + 1 WHERE k < 100")
    time.sleep(0.01)
    connection.execute("UPDATE t SET v = v - 1 WHERE k >= 100")
    connection.execute("COMMIT")
print("sum", connection.execute("SELECT sum(v) FROM t").fetchone()[0])
"""


@pytest.mark.parametrize("mode", ["wal", "keep"])
def test_app_with_another_locking_protocol_is_left_alone(mode: str, local: Machine) -> None:
    """Created, written and locked by lock directory while sidecar runs: nothing is published, and the app's sum stays 0."""
    app = (sys.executable, "-c", DOTFILE_APP, str(local.database))
    with local.run(*app, interval="300ms", journal_mode=mode) as process:
        process.wait_for_log("backup failed")
        assert process.wait() == 74
        assert "sum 0" in process.stdout()
        assert f"{local.database}.lock" in process.output()
    assert local.points() == []
