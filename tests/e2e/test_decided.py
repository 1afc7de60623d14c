"""What a person has to decide stays in sight: over restarts, on another disk, and from the store alone."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, python_app, write_note
from tests.harness.eventually import eventually
from tests.harness.receiver import receiving
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess

FILL = "INSERT INTO notes SELECT hex(randomblob(500)) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i+1 FROM n LIMIT 500) SELECT i FROM n)"


def verdict(process: SidecarProcess) -> dict[str, str]:
    """What the page says."""
    found: dict[str, str] = json.loads(process.http("/status")[1])["verdict"]
    return found


def said_by(machine: Machine, databases: object = None) -> dict[str, str]:
    """What `sidecar status` says from the store alone; it gives that two seconds, too short on a busy machine."""

    def answered() -> dict[str, str] | None:
        found = json.loads(machine.cli("status", "--json", databases=databases or machine.database).stdout)
        verdict: dict[str, str] = found["verdict"]
        return verdict if found["source"] == "store" else None

    return eventually(answered, 60, "the store answers")


def wait_level(process: SidecarProcess, level: str) -> dict[str, str]:
    """Until the page says so."""
    eventually(lambda: verdict(process)["level"] == level, 20, f"the page is {level}")
    return verdict(process)


def execute(path: Path, statement: str) -> None:
    """Commit one statement."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


@pytest.mark.s3
@pytest.mark.parametrize("at_the_end", [False, True], ids=["while-running", "final-backup"])
def test_deleted_rows_stay_open_on_the_next_machine_too(machine: Machine, at_the_end: bool) -> None:
    """
    1. The app deletes all rows; that is published, by a cycle or by the final backup. The machine goes, with its disk.
    2. The next one is amber from the start, names the restore point that is held, and tells no receiver again.
    3. From the store alone `sidecar status` says so. Going back, by hand, decides it: then all is green.
    """
    write_note(machine.database, "row")
    execute(machine.database, FILL)
    with machine.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        execute(machine.database, "DELETE FROM notes")
        if not at_the_end:
            assert machine.cli("backup").returncode == 0  # "unchanged" where the daemon was first
            wait_level(process, "look")
        assert process.terminate() == 0
    machine.lose_disk()
    said = said_by(machine)
    assert (said["level"], "suspicious snapshot" in said["reason"]) == ("look", True)
    with receiving() as receiver, machine.run(*CALM_APP, notify=receiver.url) as process:
        process.wait_ready()
        said = wait_level(process, "look")
        assert "suspicious snapshot" in said["reason"]
        assert "sidecar restore --key app.db/" in said["hint"]
        assert process.terminate() == 0
    assert receiver.kinds() == []
    held = said["hint"].split("--key ")[1].split(";")[0]
    assert machine.cli("restore", "--key", held, "--force").returncode == 0
    assert "published" in machine.cli("backup").stdout
    with machine.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="unchanged")
        assert verdict(process)["level"] == "good"
        assert process.terminate() == 0
    assert len(notes(machine.database)) == 501


def test_fallback_stays_open_after_a_restart(local: Machine) -> None:
    """A boot took an older restore point: what is missing is still missing when the machine has restarted."""
    for text in ("one", "two"):
        write_note(local.database, text)
        assert local.publish() == "published"
    local.points()[-1].write_bytes(b"damaged")
    local.lose_disk()
    for _ in range(2):
        with local.run(*CALM_APP) as process:
            process.wait_ready()
            assert wait_level(process, "look")["title"] == "Protected, but changes were lost"
            assert process.terminate() == 0
        local.lose_disk()


def test_deleted_database_is_reported_at_the_end_and_by_the_next_start(local: Machine) -> None:
    """
    1. The app deletes its database and ends: 74.
    2. The next start brings back the newest restore point, and says what is missing, on this disk and on another.
    """
    write_note(local.database, "published")
    with receiving() as receiver, local.run(*CALM_APP, notify=receiver.url) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        for path in local.data.glob("app.db*"):
            if path.suffix != ".json":
                path.unlink()
        assert process.terminate() == 74
    assert set(receiver.kinds()) == {"failure"}
    for lost in (False, True):
        if lost:
            local.lose_disk()
        with local.run(*CALM_APP) as process:
            process.wait_ready()
            said = wait_level(process, "look")
            assert said["title"] == "Protected, but changes were lost"
            assert "app.db was missing or empty" in said["reason"]
            assert "did not shut down cleanly" not in str(json.loads(process.http("/status")[1])["problems"])
            assert process.terminate() == 0
    assert notes(local.database) == ["published"]


@pytest.mark.parametrize("remains", ["nothing", "zero-bytes"])
def test_database_that_was_deleted_between_two_runs_is_reported(local: Machine, remains: str) -> None:
    """Its marker is still there, so there was one; a machine with a new disk has nothing to tell."""
    write_note(local.database, "published")
    assert local.publish() == "published"
    local.database.unlink()
    if remains == "zero-bytes":
        local.database.touch()
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        assert "app.db was missing or empty" in wait_level(process, "look")["reason"]
        assert process.terminate() == 0
    assert notes(local.database) == ["published"]


UNFINISHED = "m1 did not shut down cleanly"


@pytest.mark.parametrize("disk", ["lost", "kept", "lost-same-name"])
def test_machine_that_did_not_shut_down_cleanly_is_reported_where_its_disk_is_not(local: Machine, disk: str) -> None:
    """It was killed: what it wrote after its last restore point is on its disk, if anywhere."""
    write_note(local.database, "one")
    first = local.with_env(FLY_MACHINE_ID="m1")
    with first.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(local.database, "two")
        process.kill()
    if disk != "kept":
        local.lose_disk()
    with local.with_env(FLY_MACHINE_ID="m2" if disk == "lost" else "m1").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        if disk == "kept":
            wait_level(process, "good")
        else:
            assert (
                f"{UNFINISHED} (killed, or the store was unreachable): what it wrote after app.db/"
                in wait_level(process, "look")["reason"]
            )
        assert process.metric("sidecar_predecessor_unfinished") == (disk != "kept")
        assert process.terminate() == 0
    assert notes(local.database) == (["one", "two"] if disk == "kept" else ["one"])
    with local.with_env(FLY_MACHINE_ID="m3").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert process.metric("sidecar_predecessor_unfinished") == 0, "m2 shut down cleanly"
        wait_level(process, "good" if disk == "kept" else "look")
        assert process.terminate() == 0


def test_machine_that_comes_back_to_its_own_disk_reports_the_one_that_was_killed_meanwhile(local: Machine) -> None:
    """Its database is kept, for nothing newer was published: what the other one wrote is nowhere."""
    write_note(local.database, "one")
    a = local.with_env(FLY_MACHINE_ID="a")
    with a.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert process.terminate() == 0
    for name in ("data", "logs", "t"):
        (local / "b" / name).mkdir(parents=True)
    b = replace(local, root=local / "b").with_env(FLY_MACHINE_ID="m1")
    with b.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        write_note(b.database, "lost")
        process.kill()
    with a.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert UNFINISHED in wait_level(process, "look")["reason"]
        assert process.terminate() == 0


@pytest.mark.parametrize("between", ["a start that fails", "a command"])
def test_machine_that_did_not_shut_down_cleanly_is_remembered_by_runs_without_an_app(
    local: Machine, between: str
) -> None:
    """Neither a start that does not come to the app, nor a command that takes the lease for a moment."""
    write_note(local.database, "one")
    with local.with_env(FLY_MACHINE_ID="m1").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.kill()
    local.lose_disk()
    m2 = local.with_env(FLY_MACHINE_ID="m2")
    if between == "a command":
        eventually(lambda: m2.cli("restore").returncode == 0, 30, "restored")
        eventually(lambda: m2.cli("backup", lease_ttl="6s").returncode == 0, 30, "the lease of m1 has ended")
        local.lose_disk()
    else:
        both = f"{local.database},{local.data}/other.db"
        failed = m2.cli("run", "--", "true", databases=both, on_empty_store="fail", lease_ttl="6s")
        assert failed.returncode == 66
        local.lose_disk()
    with m2.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert UNFINISHED in wait_level(process, "look")["reason"]
        assert process.terminate() == 0


def test_newest_restore_point_that_is_damaged_is_reported_though_the_database_is_here(local: Machine) -> None:
    """A whole one takes its place with the next change; elsewhere `status` says it before that."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    (point,) = local.points()
    point.write_bytes(point.read_bytes()[:-50] + bytes(50))
    said = said_by(local)
    assert (said["level"], f"{point.name} is damaged" in said["reason"]) == ("bad", True)
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        write_note(local.database, "two")
        assert local.cli("backup").returncode == 0
        assert f"{point.name} is damaged" in wait_level(process, "look")["reason"]
        assert process.metric("sidecar_drills_total", outcome="damaged") == 1
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["one", "two"]


def test_database_of_which_the_store_has_nothing_hides_nothing_of_another(local: Machine) -> None:
    """`sidecar status` without a daemon: a suspicion of the one is said beside what is missing of the other."""
    both = f"{local.database},{local.data}/b.db"
    write_note(local.database, *(f"row {number}" for number in range(100)))
    assert local.publish() == "published"
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        execute(local.database, "DELETE FROM notes")
        assert process.terminate() == 0
    said = said_by(local, both)
    assert said["level"] == "look"
    assert "there is no restore point of b.db" in said["reason"]
    assert "suspicious snapshot" in said["reason"]


def test_start_that_never_runs_its_app_remembers_the_machine_that_did_not_shut_down_cleanly(local: Machine) -> None:
    """The command's interpreter is missing, which only the start of it tells."""
    write_note(local.database, "one")
    with local.with_env(FLY_MACHINE_ID="m1").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.kill()
    local.lose_disk()
    script = local / "app"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert local.with_env(FLY_MACHINE_ID="m2").cli("run", "--", str(script), lease_ttl="6s").returncode == 127
    local.lose_disk()
    with local.with_env(FLY_MACHINE_ID="m3").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert UNFINISHED in wait_level(process, "look")["reason"]
        assert process.terminate() == 0


def test_machine_that_was_killed_before_its_first_restore_point_is_reported(local: Machine) -> None:
    """The next one starts empty, as the first one did."""
    with local.with_env(FLY_MACHINE_ID="m1").run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        write_note(local.database, "never published")
        process.kill()
    local.lose_disk()
    with local.with_env(FLY_MACHINE_ID="m2").run(*CALM_APP, lease_ttl="6s", interval="1s") as process:
        process.wait_ready()
        write_note(local.database, "another beginning")
        assert (
            f"{UNFINISHED} (killed, or the store was unreachable): what it wrote without a restore point"
            in wait_level(process, "look")["reason"]
        )
        assert process.terminate() == 0


def test_new_disk_is_no_deleted_database(local: Machine) -> None:
    write_note(local.database, "published")
    assert local.publish() == "published"
    local.lose_disk()
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        assert wait_level(process, "good")["reason"] == ""
        assert process.terminate() == 0


def test_database_of_another_store_is_reported(local: Machine) -> None:
    """A mistyped store on a machine whose disk stayed: kept and published, as the boot table says, and amber."""
    write_note(local.database, "published")
    assert local.publish() == "published"
    wrong = replace(local, store=f"{local.store}-mistyped")
    assert "comes from another store" in wrong.cli("check").stdout
    for _ in range(2):
        with wrong.run(*CALM_APP) as process:
            process.wait_metric("sidecar_last_backup_success_timestamp_seconds", 1)
            said = wait_level(process, "look")
            assert f"in {local.store}; from now on it is published to {wrong.store}" in said["reason"]
            assert process.terminate() == 0


def test_start_with_nothing_says_so_and_what_the_store_has_instead(local: Machine) -> None:
    """
    1. A mistyped name, of a database that the app has never made: what the store does have is in the heading.
    2. A mistyped store whose app begins empty: green, and the heading says that nothing was restored, and from where not.
    """
    write_note(local.database, "published")
    assert local.publish() == "published"
    local.lose_disk()
    with local.run(*CALM_APP, databases=local.data / "ap.db", interval="1s") as process:
        process.wait_ready()
        said = wait_level(process, "wait")
        assert said["title"] == "Nothing to protect yet" or eventually(
            lambda: verdict(process)["title"] == "Nothing to protect yet", 20, "a cycle has looked"
        )
        assert "has no restore point of ap.db, only of app.db" in verdict(process)["reason"]
        refused = local.cli("backup", databases=local.data / "ap.db")
        assert (refused.returncode, "there is no database" in complaint(refused.stderr.splitlines()[-1])) == (78, True)
        assert process.terminate() == 0
    wrong = replace(local, store=f"{local.store}-mistyped")
    with wrong.run(*CALM_APP, interval="1s") as process:
        process.wait_ready()
        write_note(local.database, "first")
        said = wait_level(process, "good")
        assert f"{wrong.store} had no restore point of app.db" in said["reason"]
        assert "first start" in said["hint"]
        assert process.terminate() == 0


def test_what_a_fenced_machine_left_is_shown_by_the_one_that_runs(local: Machine) -> None:
    """It may have been put under `diverged/` long after this one took over: nobody but the store tells of it."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    (point,) = local.points()
    aside = Path(local.store.removeprefix("file://"), "diverged", "app.db")
    aside.mkdir(parents=True)
    shutil.copy(point, aside / f"{point.name.removesuffix('.sqlite3.zst')}-m9.sqlite3.zst")
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        assert "m9 wrote changes that are not in this database" in wait_level(process, "look")["reason"]
        assert process.terminate() == 0


@pytest.mark.s3
def test_status_without_a_daemon_says_who_knows_more(machine: Machine, seaweed: Seaweed) -> None:
    """A machine that runs, one that was stopped, and one that was killed."""

    def said() -> dict[str, str]:
        return said_by(desk)

    (machine / "desk").mkdir()
    for name in ("data", "logs"):
        (machine / "desk" / name).mkdir()
    desk = replace(machine, root=machine / "desk").with_env(FLY_MACHINE_ID="desk")
    running = machine.with_env(FLY_MACHINE_ID="m1")
    write_note(machine.database, "one")
    with running.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert (said()["level"], "m1 runs" in said()["reason"]) == ("wait", True)
        assert process.terminate() == 0
    assert (said()["level"], "m1, the last one, shut down cleanly" in said()["reason"]) == ("wait", True)
    with running.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="unchanged")
        process.kill()
    eventually(lambda: said()["level"] == "look", 20, "the lease has not been renewed for its ttl")
    assert "m1 has not renewed its lease for" in said()["reason"]


@pytest.mark.s3
def test_what_lost_a_conflict_is_reported_by_the_next_machine_and_can_be_made_the_live_one(machine: Machine) -> None:
    """docs/restore.md, "What another machine wrote": its steps, as they stand there."""
    first = machine.with_env(FLY_MACHINE_ID="m1")
    write_note(machine.database, "both")
    with first.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert process.terminate() == 0
    write_note(machine.database, "only m1 knows")
    for name in ("data", "logs", "t"):
        (machine / "m2" / name).mkdir(parents=True)
    second = replace(machine, root=machine / "m2").with_env(FLY_MACHINE_ID="m2")
    append = (
        "import sqlite3; c = sqlite3.connect('data/app.db'); c.execute(\"INSERT INTO notes VALUES ('m2')\"); c.commit()"
    )
    assert second.cli("run", "--", *python_app(append)).returncode == 0
    with first.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert "gave way" in wait_level(process, "look")["reason"]
        eventually(lambda: "app.db" in machine.cli("list", "--diverged").stdout, 20, "it is kept in the store")
        assert process.terminate() == 0
    with second.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_ready()
        assert "gave way" in wait_level(process, "look")["reason"]
        assert process.terminate() == 0
    key = machine.cli("list", "--diverged").stdout.split()[-1]
    assert key.startswith("diverged/app.db/")
    assert second.cli("restore", "--key", key, "--force").returncode == 0
    assert notes(second.database) == ["both", "only m1 knows"]
    assert "published" in second.cli("backup").stdout
    first.lose_disk()
    with first.run(*CALM_APP, lease_ttl="6s") as process:
        process.wait_metric("sidecar_store_requests_total", 3, operation="list")
        assert verdict(process)["level"] == "good", "it is decided"
        assert process.terminate() == 0
    assert notes(machine.database) == ["both", "only m1 knows"]
