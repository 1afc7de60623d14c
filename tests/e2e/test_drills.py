"""Drills in the real daemon: proven on schedule, damage found and replaced, gone at once when the daemon stops.

The restore points are counted, so there is no stream, which may begin with one.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, write_note
from tests.harness.proxy import FaultProxy, Stall
from tests.harness.seaweed import Seaweed


def rot(path: Path) -> None:
    """One bit of a restore point flips in the store's disk: same size, same name."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x04
    path.write_bytes(data)


def test_daemon_proves_its_newest_restore_point(machine: Machine) -> None:
    """
    1. A daemon drills every second; a row is written and published: soon a drill was good, by metric and `/status`.
    2. `list` shows it, `status` too, from the daemon; after the daemon has stopped from the store.
    """
    with machine.run(*CALM_APP, drill_interval="1s", stream="off") as process:
        process.wait_ready()
        write_note(machine.database, "precious")
        assert machine.cli("backup").returncode == 0
        process.wait_metric("sidecar_drills_total", 1, outcome="good", database="app.db")
        shown = json.loads(process.http("/status")[1])["databases"][0]
        assert (shown["drill_outcome"], shown["proven"]) == ("good", shown["restore_point"])
        assert process.metric("sidecar_last_drill_timestamp_seconds", database="app.db")
        status = machine.cli("status").stdout
        assert "proven by a drill" in status
        assert "a month, estimated" in status
        assert process.terminate() == 0
    listed = json.loads(machine.cli("list", "--json").stdout)["databases"][0]["restore_points"]
    assert listed[0]["drill"]["outcome"] == "good"
    assert (listed[0]["reused"], listed[0]["uploaded"]) == (0, listed[0]["size"])
    assert listed[0]["holder"]
    store = json.loads(machine.cli("status", "--json").stdout)["databases"][0]
    assert (store["drill_outcome"], store["last_drill"]) == ("good", listed[0]["drill"]["at"])
    assert machine.leftovers() == []


def test_daemon_finds_damage_behind_its_back_and_publishes_a_whole_one(local: Machine) -> None:
    """
    1. A daemon with an interval of an hour has published; a bit of that object flips in the store.
    2. The next drill says so by metric, log and `/status`, and a new restore point follows, which is proven in turn.
    3. `verify --all` shows both in a table, and exits with 65. A lost disk is restored from the good one.
    """
    write_note(local.database, *["a row"] * 3000)
    with local.run(*CALM_APP, drill_interval="1s", stream="off") as process:
        process.wait_ready()
        process.wait_metric("sidecar_drills_total", 1, outcome="good")
        (rotten,) = local.points()
        rot(rotten)
        process.wait_metric("sidecar_drills_total", 1, outcome="damaged")
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        good = process.metric("sidecar_drills_total", outcome="good") or 0
        process.wait_metric("sidecar_drills_total", good + 2, outcome="good")
        assert process.metric("sidecar_drills_total", outcome="damaged") == 1
        problems = json.loads(process.http("/status")[1])["problems"]
        assert any("drill: damaged" in problem["message"] and problem["hint"] for problem in problems)
        assert '"drill: damaged"' in process.stderr()
        assert process.terminate() == 0
    done = local.cli("verify", "--all")
    assert done.returncode == 65
    assert "1 of 2" in complaint(done.stderr)
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["KEY", "TIME", "SIZE", "RESULT"]
    assert f"app.db/{rotten.name}" in first
    assert "DAMAGED" in first
    assert second.endswith("good")
    local.lose_disk()
    assert local.cli("restore").returncode == 0
    assert len(notes(local.database)) == 3000
    assert local.leftovers() == []


def test_stop_does_not_wait_for_a_drill(local: Machine) -> None:
    """A drill that takes a minute at its rate is cancelled: the daemon stops in seconds and leaves no scratch file."""
    with closing(sqlite3.connect(local.database)) as connection:
        connection.execute("CREATE TABLE big (data)")
        connection.execute("INSERT INTO big VALUES (randomblob(60000000))")
        connection.commit()
    staged = local / "staged"
    staged.mkdir()
    with local.run(*CALM_APP, drill_interval="1s", stream="off", staging_dir=staged) as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process._await(lambda: any(staged.iterdir()), 20, "a drill is under way")
        assert process.terminate(timeout=10) == 0
    assert list(staged.iterdir()) == []
    assert process.stderr().count("drill: good") == 0


def test_drills_can_be_turned_off(local: Machine) -> None:
    write_note(local.database, "row")
    with local.run(*CALM_APP, drill_interval="0") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        assert json.loads(process.http("/status")[1])["databases"][0]["next_drill"] is None
        assert process.terminate() == 0


@pytest.mark.parametrize("lost", ["an older one", "the newest one"])
def test_restore_point_that_expires_while_it_is_verified_is_gone_and_not_damaged(
    proxied: Machine, proxy: FaultProxy, bucket: str, seaweed: Seaweed, lost: str
) -> None:
    """
    1. `verify --all` has listed three restore points, and its first read stalls. 2. One is deleted. 3. It goes on.
    What expired is shown as gone, which is no failure. The newest one never expires: there, gone is damaged.
    """
    for number in range(3):
        write_note(proxied.database, str(number))
        assert proxied.cli("backup").returncode == 0
    keys = seaweed.s3.keys(bucket, "shop/app.db/")
    released = Event()
    proxy.clear()
    proxy.rule(Stall(60, direction="request", released=released), method="GET", path_contains=".zst")
    with proxied.start("verify", "--all") as process:
        proxy.wait_seen("GET", ".zst", timeout=30)
        gone = keys[1] if lost == "an older one" else keys[2]
        seaweed.s3.delete(bucket, gone)
        released.set()
        status = process.wait()
        rows = {line.split()[0]: line for line in process.stdout().splitlines()[1:]}
    assert len(rows) == 3
    row = rows.pop(gone.removeprefix("shop/"))
    assert all(line.endswith("good") for line in rows.values())
    if lost == "an older one":
        assert status == 0
        assert row.endswith("gone: it expired or was deleted meanwhile")
    else:
        assert status == 65
        assert "GONE: it was the newest" in row


def test_newest_restore_point_that_was_deleted_before_is_damage_to_verify(
    machine: Machine, bucket: str, seaweed: Seaweed
) -> None:
    """The listing does not show it; the lease names it."""
    for number in range(2):
        write_note(machine.database, str(number))
        assert machine.cli("backup").returncode == 0
    newest = seaweed.s3.keys(bucket, "shop/app.db/")[-1]
    seaweed.s3.delete(bucket, newest)
    done = machine.cli("verify", "--all")
    assert done.returncode == 65
    assert newest.removeprefix("shop/") in done.stdout
    assert "is gone from the store" in complaint(done.stderr)
