"""`sidecar prune` as people and cron use it: what it would delete, what it deletes, and who it tells what."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.model import Timestamp
from tests.e2e.machine import CALM_APP, Machine, write_note
from tests.harness.proxy import DropReply, FaultProxy, Stall
from tests.harness.seaweed import Seaweed

SIZE = 1000


def ago(**age: float) -> str:
    """The name of a restore point of this age."""
    return f"{Timestamp.of(datetime.now(UTC) - timedelta(**age))}.sqlite3.zst"


def put(seaweed: Seaweed, bucket: str, name: str, tier: str) -> None:
    """A restore point with this tier, or none."""
    tags = {"Tagging": f"sidecar-tier={tier}"} if tier else {}
    seaweed.s3.put(bucket, f"shop/app.db/{name}", bytes(SIZE), **tags)


@pytest.mark.s3
def test_prune_beside_a_daemon_deletes_what_has_expired(machine: Machine, bucket: str, seaweed: Seaweed) -> None:
    """
    1. A daemon publishes; the store has older restore points of every tier. 2. A dry run lists what has expired, and changes
    nothing. 3. `prune` deletes that, without a database and without the lease. 4. The daemon goes on, and a restore works.
    """
    write_note(machine.database, "one")
    stay = {ago(days=36): "held", ago(days=30): "daily", ago(days=25): "", ago(days=19): "daily", ago(days=13): "daily"}
    stay |= {ago(days=6.9): "hourly", ago(days=4): "hourly", ago(hours=23): "recent"}
    gone = {ago(days=35, hours=1): "daily", ago(days=7, hours=1): "hourly", ago(days=1, minutes=5): "recent"}
    for name, tier in (stay | gone).items():
        put(seaweed, bucket, name, tier)
    with machine.run(*CALM_APP, on_conflict="local", stream="off") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        before = seaweed.s3.keys(bucket, "shop/app.db/")
        dry = machine.cli("prune", "--dry-run", databases="app.db")
        assert dry.returncode == 0, dry.stderr
        assert [line.split()[-1] for line in dry.stdout.splitlines()[1:4]] == [
            f"app.db/{name}" for name in sorted(gone)
        ]
        assert "would delete 3 restore points (1 daily, 1 hourly, 1 recent) and 0 segments, 2.9 KiB; " in dry.stdout
        assert "9 restore points stay, 1 of them held" in dry.stdout
        assert "may write to the store as well" in dry.stderr
        assert seaweed.s3.keys(bucket, "shop/app.db/") == before
        done = machine.cli("prune", databases="app.db")
        assert done.returncode == 0, done.stderr
        assert f"app.db: deleted 3 restore points and 0 segments, 2.9 KiB, from s3://{bucket}/shop" in done.stdout
        left = seaweed.s3.keys(bucket, "shop/app.db/")
        assert left == [key for key in before if key.rpartition("/")[2] not in gone]
        write_note(machine.database, "two")
        assert machine.cli("backup").returncode == 0
        assert process.terminate() == 0
    machine.lose_disk()
    assert machine.cli("restore").returncode == 0
    with closing(sqlite3.connect(machine.database)) as connection:
        assert connection.execute("SELECT text FROM notes ORDER BY rowid").fetchall() == [("one",), ("two",)]


@pytest.mark.s3
def test_prune_that_is_killed_loses_nothing_and_continues(
    proxied: Machine, proxy: FaultProxy, bucket: str, seaweed: Seaweed
) -> None:
    """
    1. Replies to some deletions are lost, a later one stalls. 2. SIGKILL. 3. What is gone had expired. 4. The next run does
    the rest.
    """
    expired = [ago(days=2, minutes=number) for number in range(12)]
    stay = [ago(days=3, minutes=number) for number in range(3)]
    for name in expired:
        put(seaweed, bucket, name, "recent")
    for name in stay:
        put(seaweed, bucket, name, "hourly")
    put(seaweed, bucket, ago(minutes=1), "")
    before = set(seaweed.s3.keys(bucket, "shop/app.db/"))
    proxy.rule(DropReply(), method="DELETE", times=2)
    stalled = proxy.rule(Stall(60), method="DELETE", skip=3)
    with proxied.start("prune") as process:
        proxy.wait_seen("DELETE", count=6)
        process.kill()
    proxy.remove(stalled)
    gone = {key.rpartition("/")[2] for key in before - set(seaweed.s3.keys(bucket, "shop/app.db/"))}
    assert gone < set(expired)
    done = proxied.cli("prune")
    assert done.returncode == 0, done.stderr
    left = {key.rpartition("/")[2] for key in seaweed.s3.keys(bucket, "shop/app.db/")}
    assert left == {key.rpartition("/")[2] for key in before} - set(expired)


@pytest.mark.s3
def test_a_key_that_may_not_delete_deletes_nothing(machine: Machine, bucket: str, seaweed: Seaweed) -> None:
    """And says so, with exit code 77; with a read-only key nothing is said about writing."""
    for number in range(4):
        put(seaweed, bucket, ago(days=2, minutes=number), "recent")
    put(seaweed, bucket, ago(minutes=1), "")
    before = seaweed.s3.keys(bucket, "shop/app.db/")
    done = machine.with_env(**seaweed.environment(reader=True)).cli("prune")
    assert (done.returncode, seaweed.s3.keys(bucket, "shop/app.db/")) == (77, before)
    assert "denies delete_object" in done.stderr
    assert "may write" not in done.stderr


def test_a_directory_is_pruned_by_hand_too(local: Machine) -> None:
    write_note(local.database, "one")
    assert local.cli("backup").returncode == 0
    nothing = local.cli("prune")
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert "app.db: nothing has expired; 1 restore points stay" in nothing.stdout
