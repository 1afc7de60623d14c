"""A store in a directory that is not there when a machine starts: not mounted, moved, or lost with a container's layer."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, may_unshare, notes, write_note
from tests.e2e.test_decided import verdict, wait_level

mounting = pytest.mark.skipif(
    os.geteuid() != 0 or not may_unshare("--mount"), reason="mounting in a namespace is not permitted here"
)


def directory(machine: Machine) -> Path:
    """The store."""
    return Path(machine.store.removeprefix("file://"))


def mounted(machine: Machine) -> tuple[str, ...]:
    """Puts a program where the store's directory is a mount point: nobody else sees what is mounted there."""
    disk = machine / "disk"
    disk.mkdir(exist_ok=True)
    directory(machine).mkdir(exist_ok=True)
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(disk), str(directory(machine)))


@mounting
@pytest.mark.parametrize("remains", ["nothing", "mount-point", "mount-point-without-database", "zero-bytes"])
@pytest.mark.parametrize("command", ["run", "backup", "check"])
def test_nothing_is_begun_where_the_stores_disk_is_not_mounted(local: Machine, remains: str, command: str) -> None:
    """
    1. The store's disk is away when the machine starts; the database is there, or its marker at least.
    2. 69, before anything is written to what is in its place.
    3. It is back: all goes on in the same history, without a conflict.
    """
    write_note(local.database, "one")
    assert local.cli("backup", prefix=mounted(local)).returncode == 0
    is_there = remains in {"nothing", "mount-point"}
    if remains == "mount-point-without-database":
        local.database.unlink()
    elif remains == "zero-bytes":
        local.database.write_bytes(b"")
    else:
        write_note(local.database, "two")
    if remains == "nothing":
        directory(local).rmdir()
    arguments = ["run", "--", "true"] if command == "run" else [command]
    refused = local.cli(*arguments)
    if command == "backup" and not is_there:
        assert refused.returncode == 78  # there is nothing to back up
    else:
        assert refused.returncode == 69
        assert "that it is mounted" in (refused.stdout if command == "check" else complaint(refused.stderr))
    assert not directory(local).exists() or list(directory(local).iterdir()) == []
    with local.run(*CALM_APP, prefix=mounted(local)) as process:
        process.wait_ready()
        assert process.terminate() == 0
    there = replace(local, store=f"file://{local.root}/disk")
    assert notes(there.restore_copy()) == notes(local.database) == (["one", "two"] if is_there else ["one"])
    assert not list(local.data.glob("*diverged*"))


@mounting
def test_store_that_is_lost_for_good_is_begun_anew_by_a_persons_word(local: Machine) -> None:
    """As the hint says: without the marker, the local database is kept and published."""
    write_note(local.database, "one")
    assert local.cli("backup", prefix=mounted(local)).returncode == 0
    refused = local.cli("run", "--", "true")
    assert refused.returncode == 69
    marker = local.data / "app.db.sidecar.json"
    assert f"remove {marker}" in complaint(refused.stderr)
    marker.unlink()
    assert local.cli("run", "--", "true").returncode == 0
    assert notes(local.restore_copy()) == ["one"]


def over(machine: Machine, mount: str, *first: str) -> tuple[str, ...]:
    """Puts a program where there is an empty file system in memory at `mount`, on top of what `first` mounts."""
    return (*first, "unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {mount} && exec "$@"', "-")


@mounting
def test_host_directory_below_a_missing_nas_is_no_store(local: Machine) -> None:
    """A container's bind mount is always there: of the host's own disk when the NAS is not. The file system tells."""
    write_note(local.database, "one")
    assert local.cli("backup", prefix=mounted(local)).returncode == 0
    refused = local.cli("run", "--", "true", prefix=over(local, str(directory(local))))
    assert refused.returncode == 69
    assert "that it is mounted" in complaint(refused.stderr)


@mounting
def test_new_disk_below_the_old_mount_point_is_no_missing_mount(local: Machine) -> None:
    """Database and store were on one volume; that is still there, and the app starts."""
    deeper = replace(local, store=f"{local.store}/deeper")
    directory(deeper).mkdir(parents=True)
    write_note(local.database, "one")
    volume = mounted(local)
    (local / "disk" / "deeper").mkdir()
    assert deeper.cli("backup", prefix=volume).returncode == 0
    started = deeper.cli("run", "--", "true", prefix=over(local, str(directory(deeper)), *volume))
    assert started.returncode == 0, started.stderr


@mounting
def test_disk_that_is_mounted_and_was_emptied_does_not_keep_the_app_from_starting(local: Machine) -> None:
    """A new disk in the old one's place: the local database is kept and published there, and that is told."""
    write_note(local.database, "one")
    assert local.cli("backup", prefix=mounted(local)).returncode == 0
    shutil.rmtree(local / "disk")
    with local.run(*CALM_APP, prefix=mounted(local)) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert "no longer has a restore point of app.db" in wait_level(process, "look")["reason"]
        assert process.terminate() == 0


@mounting
def test_idle_database_of_an_older_version_learns_where_the_store_is(local: Machine) -> None:
    """A start that keeps it writes that down, although nothing is published."""
    write_note(local.database, "one")
    assert local.cli("backup", prefix=mounted(local)).returncode == 0
    path = local.data / "app.db.sidecar.json"
    marker = json.loads(path.read_text())
    assert marker["mount"] == str(directory(local))
    del marker["mount"], marker["identity"]
    path.write_text(json.dumps(marker))
    assert local.cli("run", "--", "true", prefix=mounted(local)).returncode == 0
    assert local.cli("run", "--", "true").returncode == 69


def test_store_in_a_containers_layer_is_lost_with_it_and_begun_anew(local: Machine) -> None:
    """The default store after a redeploy, the database on a volume: it starts, every time, and is amber."""
    write_note(local.database, "one")
    for _ in range(3):
        with local.run(*CALM_APP) as process:
            process.wait_metric("sidecar_last_backup_success_timestamp_seconds", 1)
            assert process.terminate() == 0
        shutil.rmtree(directory(local))
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert "no longer has a restore point of app.db" in wait_level(process, "look")["reason"]
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["one"]


def test_store_that_has_moved_is_the_same_one(local: Machine) -> None:
    """To a larger disk: the database goes on from there, without a conflict, and with what was not published yet."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    write_note(local.database, "two")
    directory(local).rename(local / "larger")
    moved = replace(local, store=f"file://{local.root}/larger")
    with moved.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert verdict(process)["level"] == "good"
        assert process.terminate() == 0
    assert notes(moved.restore_copy()) == ["one", "two"]
    assert not list(local.data.glob("*diverged*"))


def test_look_at_a_directory_that_is_no_store_makes_none(local: Machine) -> None:
    """`check` before the first start: the mount point may be empty because nothing is mounted."""
    store = Path(local.store.removeprefix("file://"))
    for exists in (False, True):
        if exists:
            store.mkdir()
        done = local.cli("check")
        assert done.returncode == 0, done.stdout
        assert "skipped conditional write: the directory is not a store yet" in done.stdout
        assert not store.exists() or list(store.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/sidecar-store", "/sys/sidecar-store"])
def test_directory_that_cannot_be_made_is_found_out_by_a_look(local: Machine, place: str) -> None:
    """Without a start: `check` fails as that would."""
    wrong = replace(local, store=f"file://{place}")
    checked, started = wrong.cli("check"), wrong.cli("run", "--", "true", restore_timeout="1s")
    assert checked.returncode == started.returncode != 0
    assert "FAILED  conditional write" in checked.stdout
