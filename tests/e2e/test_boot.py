"""What a boot finds on the disk and in the store, and what it makes of them. Nothing is ever lost on the way."""

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, write_note
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writer_process import last_ack, writer_command
from tests.harness.writers import check_ledger


def publish(machine: Machine, *texts: str) -> None:
    """A restore point with one more row for each text."""
    write_note(machine.database, *texts)
    done = machine.cli("backup")
    assert done.returncode == 0, done.stderr


def outcome(process: SidecarProcess) -> str:
    """How the boot ended, once it did."""
    return process.wait_for_log(r'"database ready".*"outcome": "(\w+)"')[1]


@pytest.fixture
def conflicted(local: Machine) -> Machine:
    """The store has "remote"; the disk has "local" and knows nothing of the store."""
    publish(local, "remote")
    local.lose_disk()
    write_note(local.database, "local")
    return local


def test_conflict_remote_keeps_the_local_database_twice(conflicted: Machine) -> None:
    """The remote one wins by default; the local one is kept beside it and published under diverged/."""
    with conflicted.run(*CALM_APP) as process:
        assert outcome(process) == "restored"
        process.wait_ready()
        assert notes(conflicted.database) == ["remote"]
        process.wait_for_log("diverged database published")
        assert process.terminate() == 0
    kept = list(conflicted.data.glob("app.db.diverged-*Z"))
    assert [notes(path) for path in kept] == [["local"]]
    assert len(conflicted.points("diverged/app.db")) == 1
    assert "diverged/app.db/" in conflicted.cli("list", "--diverged").stdout


def test_conflict_with_a_damaged_local_database_keeps_it_as_it_is(conflicted: Machine) -> None:
    """It cannot be settled or published, so its bytes and its WAL are kept untouched, and the WAL is not replayed."""
    conflicted.database.write_bytes(b"once a database" * 999)
    wal = conflicted.data / "app.db-wal"
    wal.write_bytes(b"its log" * 999)
    before = set(conflicted.disk().values())
    with conflicted.run(*CALM_APP) as process:
        assert outcome(process) == "restored"
        process.wait_ready()
        assert notes(conflicted.database) == ["remote"]
        assert process.terminate() == 0
    kept = {path.name.rpartition("Z")[2]: path.read_bytes() for path in conflicted.data.glob("app.db.diverged-*")}
    assert kept == {"": b"once a database" * 999, "-wal": b"its log" * 999}
    assert before <= set(conflicted.disk().values())


def test_conflict_local_publishes_the_local_database_at_once(conflicted: Machine) -> None:
    """The losing remote restore point is simply the older one."""
    with conflicted.run(*CALM_APP, on_conflict="local") as process:
        assert outcome(process) == "kept_local"
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert notes(conflicted.database) == ["local"]
        assert process.terminate() == 0
    assert len(conflicted.points()) == 2
    assert notes(conflicted.restore_copy()) == ["local"]


def test_conflict_fail_changes_nothing(conflicted: Machine) -> None:
    """78, the app is not started, disk and store stay as they are."""
    before = conflicted.disk()
    done = conflicted.cli("run", "--", "touch", str(conflicted / "marker"), on_conflict="fail")
    assert done.returncode == 78
    assert "on_conflict" in complaint(done.stderr)
    assert not (conflicted / "marker").exists()
    assert conflicted.disk() == before
    assert len(conflicted.points()) == 1


def test_zero_bytes_count_as_absent_and_stale_companions_are_never_applied(local: Machine) -> None:
    """
    1. The store has one state. The disk has an empty file, and the WAL and journal of a foreign database.
    Result: exactly the stored state; the strangers are kept under another name.
    """
    publish(local, "stored")
    local.lose_disk()
    foreign = local / "foreign.db"
    write_note(foreign, "foreign", "rows")
    local.database.touch()
    for suffix in ("-wal", "-journal"):
        (local.data / f"app.db{suffix}").write_bytes(foreign.read_bytes())
    with local.run(*CALM_APP) as process:
        assert outcome(process) == "restored"
        process.wait_ready()
        assert notes(local.database) == ["stored"]
        assert process.terminate() == 0
    orphans = sorted(path.name.rpartition("-")[2] for path in local.data.glob("app.db.orphaned-*"))
    assert orphans == ["journal", "wal"]
    assert len(local.points()) == 1


def test_damaged_newest_point_falls_back_loudly_and_is_superseded(local: Machine) -> None:
    """
    1. The newest of two restore points is altered in the store; the disk is lost.
    2. A boot restores the older one, says so in log, metrics and status, and publishes a new point at once.
    3. The next boot needs no fallback.
    """
    publish(local, "first")
    publish(local, "second")
    local.lose_disk()
    damaged = local.points()[-1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 0xFF
    damaged.write_bytes(data)
    with local.run(*CALM_APP) as process:
        assert outcome(process) == "fell_back"
        process.wait_ready()
        assert notes(local.database) == ["first"]
        assert process.metric("sidecar_restores_total", outcome="fell_back") == 1
        assert process.metric("sidecar_restores_total", outcome="damaged") == 1
        assert damaged.name in process.http("/status")[1]
        assert '"level": "error"' in process.stderr()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert process.terminate() == 0
    assert len(local.points()) == 3
    local.lose_disk()
    with local.run(*CALM_APP) as process:
        assert outcome(process) == "restored"
        assert notes(local.database) == ["first"]


def test_no_good_point_never_starts_the_app_on_nothing(local: Machine) -> None:
    """The only restore point is cut short: 65, no file, no app."""
    publish(local, "row")
    local.lose_disk()
    only = local.points()[0]
    only.write_bytes(only.read_bytes()[:-100])
    done = local.cli("run", "--", "touch", str(local / "marker"))
    assert done.returncode == 65
    assert only.name in complaint(done.stderr)
    assert not (local / "marker").exists()
    assert local.files() == []


def test_on_empty_store_fail_starts_nothing(local: Machine) -> None:
    """66 instead of an empty database, when the operator knows that there must be one."""
    done = local.cli("run", "--", "touch", str(local / "marker"), on_empty_store="fail")
    assert done.returncode == 66
    assert "on_empty_store" in complaint(done.stderr)
    assert not (local / "marker").exists()


def test_database_that_was_there_first_is_kept_and_published_at_once(local: Machine) -> None:
    """An existing app is put under sidecar: its database is the first restore point."""
    write_note(local.database, "old data")
    with local.run(*CALM_APP) as process:
        assert outcome(process) == "kept_local"
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["old data"]


def test_killed_daemon_keeps_its_local_database_on_the_same_disk(local: Machine) -> None:
    """
    1. A writer commits; a restore point is published; it commits more. Then SIGKILL to everything.
    2. A boot on the same disk: the database descends from the newest restore point, so it is kept.
    Result: every commit is there, and in the store without waiting for the interval.
    """
    acks = local / "acks"
    app = writer_command(local.database, "--acks", str(acks), "--rate", "200")
    with local.run(*app, interval="500ms") as process:
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        reached = last_ack(acks) + 10
        eventually(lambda: last_ack(acks) >= reached, 10, "ten more commits")
        process.kill()
    acked, published = last_ack(acks), len(local.points())
    with local.run(*CALM_APP) as process:
        assert outcome(process) == "kept_local"
        assert check_ledger(local.database) >= acked
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.kill()
    assert len(local.points()) == published + 1
    assert not list(local.data.glob("*diverged*"))
    assert check_ledger(local.restore_copy()) >= acked
