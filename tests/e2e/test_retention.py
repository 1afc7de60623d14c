"""Retention as a user meets it: tags in a bucket, a directory that is pruned, a lost database that is noticed."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.model import Timestamp
from tests.e2e.machine import CALM_APP, Machine, write_note
from tests.harness.seaweed import Seaweed


def old_point(store: Path, tier: str | None, **age: float) -> str:
    """A restore point of a certain age, in a store that is a directory."""
    name = f"{Timestamp.of(datetime.now(UTC) - timedelta(**age))}.sqlite3.zst"
    (store / "app.db" / name).write_bytes(b"old")
    if tier:
        tags = store / ".sidecar" / "tags" / "app.db" / f"{name}.json"
        tags.parent.mkdir(parents=True, exist_ok=True)
        tags.write_text(json.dumps({"sidecar-tier": tier}))
    return name


def test_expired_restore_points_of_a_directory_go(local: Machine) -> None:
    """
    1. The store has restore points of every tier and age. 2. `backup` publishes one more.
    3. Those that have expired are gone, those that are held or have no tier are not; the list shows what is left.
    """
    store = local / "store"
    write_note(local.database, "one")
    assert local.cli("backup").returncode == 0
    stay = [
        old_point(store, None, days=13),
        old_point(store, "held", days=12),
        old_point(store, "hourly", days=6, hours=23),
        old_point(store, "daily", days=5),
    ]
    old_point(store, "recent", days=4)
    old_point(store, "recent", days=1, minutes=1)
    stay += [old_point(store, "recent", hours=23), *(path.name for path in local.points()[-1:])]
    write_note(local.database, "two")
    done = local.cli("backup")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in local.points()][:-1] == stay
    assert len(json.loads(local.cli("list", "--json").stdout)["databases"][0]["restore_points"]) == len(stay) + 1


def test_lost_database_is_published_noticed_and_pushes_nothing_out(
    machine: Machine, bucket: str, seaweed: Seaweed
) -> None:
    """
    1. A daemon has published a real database. 2. The app starts over with an empty one: published, too.
    3. The real one is tagged as held; metric, `/status` and log say so, and say how to get it back. So it is done.
    """
    write_note(machine.database, *["a row of some length"] * 5000)
    with machine.run(*CALM_APP) as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        (real,) = seaweed.s3.keys(bucket, "shop/app.db/")
        for path in (machine.database, *machine.data.glob("app.db-*")):
            path.unlink()
        with closing(sqlite3.connect(machine.database)) as connection:
            connection.execute("PRAGMA user_version = 7")
        done = machine.cli("backup")
        assert done.returncode == 0, done.stderr
        assert process.metric("sidecar_suspicious_snapshots_total") == 1
        problem = json.loads(process.http("/status")[1])["problems"][-1]
        assert "suspicious" in problem["message"]
        key = real.removeprefix("shop/")
        assert f"sidecar restore --key {key}" in problem["hint"]
        write_note(machine.database, "the new database")
        assert machine.cli("backup").returncode == 0
        empty, newest = seaweed.s3.keys(bucket, "shop/app.db/")[1:]
        assert seaweed.s3.tags(bucket, empty)["sidecar-tier"] in {"recent", "hourly", "daily"}
        assert seaweed.s3.tags(bucket, real) == {"sidecar-tier": "held"}
        assert seaweed.s3.tags(bucket, newest) == {}
        assert process.terminate() == 0
    assert '"suspicious snapshot"' in process.stderr()
    assert machine.cli("restore", "--key", key, "--force").returncode == 0
    with closing(sqlite3.connect(machine.database)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (5000,)


@pytest.mark.parametrize(("tables", "rows"), [(30, 20), (1, 60)], ids=["many-tables", "one-page"])
def test_rows_deleted_from_a_small_database_are_noticed(local: Machine, tables: int, rows: int) -> None:
    """Empty tables and indexes keep a page each: by pages, most of it would seem to be there."""
    with closing(sqlite3.connect(local.database)) as connection, connection:
        connection.execute("PRAGMA journal_mode=wal")
        for number in range(tables):
            connection.execute(f"CREATE TABLE t{number} (a UNIQUE, b)")
            connection.executemany(f"INSERT INTO t{number} VALUES (?, ?)", [(each, "x" * 10) for each in range(rows)])
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with closing(sqlite3.connect(local.database)) as connection, connection:
            for number in range(tables):
                connection.execute(f"DELETE FROM t{number}")
        assert local.cli("backup").returncode == 0
        assert process.metric("sidecar_suspicious_snapshots_total") == 1
        verdict = json.loads(process.http("/status")[1])["verdict"]
        assert verdict["level"] == "look"
        assert f"it has 0 rows, the previous restore point's database has {tables * rows}" in verdict["reason"]
        assert process.terminate() == 0
    assert [
        each["tier"] for each in json.loads(local.cli("list", "--json").stdout)["databases"][0]["restore_points"]
    ] == [
        "held",
        None,
    ]


@pytest.mark.parametrize("restored", [False, True], ids=["published", "just-restored"])
def test_file_that_takes_the_place_of_the_database_is_told_of(local: Machine, restored: bool) -> None:
    """The app has the old one open, and goes on writing where no backup looks."""
    write_note(local.database, "one")
    if restored:
        assert local.publish() == "published"
        local.lose_disk()
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        if not restored:
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with closing(sqlite3.connect(local / "new.db")) as connection, connection:
            connection.execute("CREATE TABLE notes AS SELECT 'another' AS text")
        for path in local.data.glob("app.db-*"):
            path.unlink()
        (local / "new.db").rename(local.database)
        assert local.cli("backup").returncode == 0
        problems = [each["message"] for each in json.loads(process.http("/status")[1])["problems"]]
        assert [f"{local.database} is not the same file as before" in each for each in problems] == [True]
        assert process.terminate() == 0


def test_rows_deleted_without_vacuum_are_noticed_and_come_back(machine: Machine, bucket: str, seaweed: Seaweed) -> None:
    """
    1. A daemon has published a real database. 2. The app deletes all rows: the file stays as large as it was.
    3. The restore point before is held, and said to be. 4. VACUUM says nothing more. 5. The rows are brought back.
    """
    write_note(machine.database, *["a row of some length"] * 5000)
    with machine.run(*CALM_APP, stream="off") as process:  # a stream begins with a restore point
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        (real,) = seaweed.s3.keys(bucket, "shop/app.db/")
        size = machine.database.stat().st_size
        for statement in ("DELETE FROM notes", "VACUUM"):
            with closing(sqlite3.connect(machine.database, isolation_level=None)) as connection:
                connection.execute(statement)
            assert machine.cli("backup").returncode == 0
            assert process.metric("sidecar_suspicious_snapshots_total") == 1
            assert seaweed.s3.tags(bucket, real) == {"sidecar-tier": "held"}
        sizes = json.loads(machine.cli("list", "--json").stdout)["databases"][0]["restore_points"]
        assert [each["database_size"] == size for each in sizes] == [True, True, False]
        assert sizes[0]["database_live"] == size
        assert sizes[1]["database_live"] == sizes[2]["database_live"] < size / 10
        problem = json.loads(process.http("/status")[1])["problems"][-1]
        assert process.terminate() == 0
    key = problem["hint"].split("--key ")[1].split(";")[0]
    assert key == real.removeprefix("shop/")
    assert machine.cli("restore", "--key", key, "--force").returncode == 0
    with closing(sqlite3.connect(machine.database)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (5000,)
