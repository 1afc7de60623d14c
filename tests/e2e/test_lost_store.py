"""A store that loses its restore points while a daemon runs, or between two: never green, never silent."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, calm_app, notes, write_note
from tests.harness.eventually import eventually
from tests.harness.receiver import receiving
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess


def verdict(process: SidecarProcess) -> dict[str, str]:
    """What the page says."""
    found: dict[str, str] = json.loads(process.http("/status")[1])["verdict"]
    return found


def empty_bucket(seaweed: Seaweed, machine: Machine) -> None:
    """Delete every object of the machine's store."""
    bucket, _, _ = machine.store.removeprefix("s3://").partition("/")
    for key in keys(seaweed, machine):
        seaweed.s3.delete(bucket, key)


def keys(seaweed: Seaweed, machine: Machine) -> list[str]:
    """The keys of all objects of the machine's store, with its prefix."""
    bucket, _, prefix = machine.store.removeprefix("s3://").partition("/")
    return list(seaweed.s3.keys(bucket, prefix))


@pytest.mark.parametrize("remains", [False, True], ids=["moved", "empty-mount-point"])
@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
def test_directory_that_vanishes_is_an_outage(local: Machine, remains: bool, idle: bool) -> None:
    """
    1. The store's directory is moved away, as by umount; where it was is nothing, or an empty directory.
    2. Cycles fail, of a database that nobody writes to as well; nothing is written there; the page is red.
    3. `sidecar backup` fails, too.
    4. It comes back: backups go on, in the same history.
    """
    store = Path(local.store.removeprefix("file://"))
    write_note(local.database, "one")
    with local.run(*CALM_APP, interval="1s", lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        store.rename(local / "elsewhere")
        if remains:
            store.mkdir()
        if not idle:
            write_note(local.database, "two")
        process.wait_metric("sidecar_backups_total", 3, outcome="failed")
        said = verdict(process)
        assert said["level"] == "bad"
        assert "mounted" in said["hint"]
        assert local.cli("backup").returncode == 69
        assert not store.exists() or list(store.iterdir()) == []
        if remains:
            store.rmdir()
        (local / "elsewhere").rename(store)
        eventually(lambda: verdict(process)["level"] == "good", 20, "backups work again")
        write_note(local.database, "three")
        assert process.terminate() == 0
    assert len(local.points()) >= 2
    assert notes(local.restore_copy()) == (["one", "three"] if idle else ["one", "two", "three"])


def test_idle_app_that_is_stopped_while_its_store_is_gone_is_no_success(local: Machine) -> None:
    """74, and no word of a recovery, though nothing was written since the last restore point."""
    store = Path(local.store.removeprefix("file://"))
    write_note(local.database, "one")
    with receiving() as receiver, local.run(*CALM_APP, interval="1s", lease_ttl="6s", notify=receiver.url) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.wait_metric("sidecar_backups_total", 1, outcome="unchanged")
        store.rename(local / "elsewhere")
        store.mkdir()
        process.wait_metric("sidecar_backups_total", 1, outcome="failed")
        assert process.terminate() == 74
    assert "recovery" not in receiver.kinds()


@pytest.mark.s3
def test_idle_apps_that_are_stopped_while_the_store_is_silent_end_well_and_in_time(
    machine: Machine, seaweed: Seaweed
) -> None:
    """Eight databases, all published: one short wait for all of them, and no false alarm."""
    databases = [machine.data / f"{number}.db" for number in range(8)]
    for database in databases:
        write_note(database, "one")
    with machine.run(
        *CALM_APP, databases=",".join(map(str, databases)), lease="off", final_backup_timeout="8s"
    ) as process:
        process.wait_metric("sidecar_backups_total", 8, outcome="published")
        seaweed.pause()
        try:
            assert process.terminate(60) == 0
        finally:
            seaweed.resume()
        (seconds,) = re.findall(r'"final_backup_seconds": ([0-9.]+)', process.stderr())
        assert float(seconds) < 8


def test_final_backup_into_a_store_that_vanished_is_no_success(local: Machine) -> None:
    """Exit code 74, although the directory could be made again; nothing is."""
    store = Path(local.store.removeprefix("file://"))
    write_note(local.database, "one")
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        store.rename(local / "elsewhere")
        write_note(local.database, "two")
        assert process.terminate() == 74
    assert not store.exists()


@pytest.mark.s3
@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
@pytest.mark.parametrize("lease", ["on", "off"])
def test_emptied_bucket_is_told_and_filled_again(machine: Machine, seaweed: Seaweed, idle: bool, lease: str) -> None:
    """
    1. Every object is deleted, the lease among them. With a lease that is noticed at its next renewal; without one, by
       a cycle that publishes, or by whoever asks for a backup: the restore point that the command names exists.
    2. It is told, as a problem and to a webhook; a whole restore point is published at once, also of an idle database.
    """
    write_note(machine.database, "one")
    with (
        receiving() as receiver,
        machine.run(*CALM_APP, interval="1s", lease=lease, lease_ttl="6s", notify=receiver.url) as process,
    ):
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        empty_bucket(seaweed, machine)
        if not idle:
            write_note(machine.database, "two")
        if idle and lease == "off":
            answer = machine.cli("backup", lease=lease).stdout  # "unchanged", if a drill noticed it first
            assert any(key.endswith(answer.split()[-1]) for key in keys(seaweed, machine)), answer
        process.wait_metric("sidecar_drills_total", 1, outcome="damaged")
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        eventually(lambda: verdict(process)["level"] == "look", 20, "it is there again, and to be looked at")
        assert "is gone from the store" in verdict(process)["reason"]
        receiver.wait(lambda each: "drill" in each.kinds())
        assert process.terminate() == 0
    machine.lose_disk()
    assert machine.cli("restore").returncode == 0
    assert notes(machine.database) == (["one"] if idle else ["one", "two"])


@pytest.mark.s3
def test_lost_lease_object_is_a_reason_to_look_at_once(machine: Machine, seaweed: Seaweed) -> None:
    """Not at the next cycle, which is an hour away; though a file's stamp of a moment ago never proves that nothing changed."""
    write_note(machine.database, "one")
    with machine.run(*CALM_APP, interval="1h", lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        empty_bucket(seaweed, machine)
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        assert verdict(process)["level"] == "look"
        assert process.terminate() == 0


def test_backup_by_hand_does_not_believe_its_marker(local: Machine) -> None:
    """`unchanged` would name a restore point that is not there."""
    write_note(local.database, "one")
    assert local.cli("backup").returncode == 0
    again = local.cli("backup")
    assert "unchanged" in again.stdout
    for point in local.points():
        point.unlink()
    again = local.cli("backup")
    assert (again.returncode, "published" in again.stdout) == (0, True)
    assert "restore point lost" in again.stderr
    assert len(local.points()) == 1


def test_final_backup_looks_once_more(local: Machine) -> None:
    """The disk may go with the machine: what was published an hour ago must still be there."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, lease="off") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        for point in local.points():
            point.unlink()
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["one"]


@pytest.mark.parametrize(("app", "code"), [(("sleep", "1000"), 143), (calm_app(3), 3), (CALM_APP, 74)], ids=str)
def test_lost_final_backup_is_in_the_log_whatever_the_exit_code(
    local: Machine, app: tuple[str, ...], code: int
) -> None:
    """Most apps have no handler: 143 is then what a stop looks like. The next machine without this disk says it, too."""
    store = Path(local.store.removeprefix("file://"))
    write_note(local.database, "one")
    with local.run(*app, final_backup_timeout="2s", lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        store.rename(local / "elsewhere")
        write_note(local.database, "two")
        assert process.terminate() == code
        assert "do not destroy this machine" in process.stderr()
    (local / "elsewhere").rename(store)
    local.lose_disk()
    with local.with_env(FLY_MACHINE_ID="m2").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert "did not shut down cleanly" in verdict(process)["reason"]
        assert process.metric("sidecar_predecessor_unfinished") == 1
        assert process.terminate() == 0


def test_boot_beside_a_store_that_was_emptied_says_so(local: Machine) -> None:
    """Its objects were deleted, and it is the same store: the local database is kept and published, a person is to look."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    store = Path(local.store.removeprefix("file://"))
    shutil.rmtree(store / "app.db")
    (store / "lease.json").unlink()
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert verdict(process)["level"] == "look"
        assert "no longer has a restore point of app.db" in verdict(process)["reason"]
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["one"]


def test_directory_is_looked_at_by_every_idle_cycle(local: Machine) -> None:
    """Restore points deleted by hand, the lease left: a look costs nothing there, so nobody waits ten minutes for it."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, interval="1s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.wait_metric("sidecar_backups_total", 1, outcome="unchanged")
        (point,) = local.points()
        point.unlink()
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        assert f"{point.name} is gone from the store" in verdict(process)["reason"]
        assert process.terminate() == 0
    assert len(local.points()) == 1


def test_without_a_store_of_its_own_the_page_is_not_green(local: Machine) -> None:
    """SIDECAR_STORE forgotten: restore points beside the database die with it."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, prefix=("env", "-u", "SIDECAR_STORE")) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        said = verdict(process)
        assert (said["level"], said["title"]) == ("look", "Protected – needs attention")
        assert "lost with it" in said["reason"]
        assert "SIDECAR_STORE" in said["hint"]
        assert process.terminate() == 0
