"""A store that insists on checksums, as buckets with Object Lock do: everything works without a setting.

One test starts four processes and moves 30 MB, the other waits for a lease to be renewed: each takes some seconds.
"""

import random
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness.eventually import eventually
from tests.harness.faults import has_checksum
from tests.harness.proxy import FaultProxy, Insist
from tests.harness.sidecar_process import SidecarProcess, run_cli

if TYPE_CHECKING:
    from tests.harness.seaweed import Seaweed

ROWS = 9 << 10  # of a KiB each: two parts, of which the second publish copies one


def test_a_store_that_insists_on_checksums(env: dict[str, str], bucket: str, proxy: FaultProxy, tmp_path: Path) -> None:
    """1. Two publishes, the second with a copied part. 2. Check. 3. Lose the database. 4. A daemon restores it and publishes."""
    proxy.rule(Insist())
    database = tmp_path / "app.db"
    env |= {
        "AWS_ENDPOINT_URL_S3": proxy.endpoint,
        "SIDECAR_DATABASES": str(database),
        "SIDECAR_STORE": f"s3://{bucket}/app",
        "SIDECAR_PART_SIZE": "5MiB",
    }
    with closing(sqlite3.connect(database, isolation_level=None)) as app:
        app.execute("create table t(n integer primary key, data blob)")
        app.execute("begin")
        app.executemany("insert into t(data) values(?)", [(random.Random(n).randbytes(1000),) for n in range(ROWS)])
        app.execute("commit")
        first = run_cli("backup", env=env, cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        app.execute("insert into t(data) values('last')")
    second = run_cli("backup", env=env, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert [seen.status for seen in proxy.seen("PUT") if "x-amz-copy-source" in seen.headers] == [200]

    checked = run_cli("check", "--listen", "off", env=env, cwd=tmp_path)
    assert "FAILED" not in checked.stdout, checked.stdout

    for file in tmp_path.glob("app.db*"):
        file.unlink()
    with SidecarProcess("run", "--", "sleep", "60", env=env, directory=tmp_path) as daemon:
        daemon.wait_ready()
        with closing(sqlite3.connect(database, isolation_level=None)) as app:
            assert app.execute("select count(*) from t").fetchone() == (ROWS + 1,)
            app.execute("insert into t(data) values('more')")
        assert daemon.terminate() == 143
        assert "checksums enabled" in daemon.output()
    refused = [seen for seen in proxy.seen("PUT") if not has_checksum(seen.headers) and seen.status == 400]
    assert len(refused) == 4, "one for each process"


def test_a_bucket_with_object_lock(env: dict[str, str], seaweed: "Seaweed", tmp_path: Path) -> None:
    """Every write of a key is a new version there, and none can be deleted. The bucket goes with its server.

    1. A daemon publishes, renews its lease, and publishes once more at the end; the next backup tags what it supersedes.
    2. The database is lost, and restored with every row.
    """
    raw = seaweed.s3.raw
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    locked = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    raw.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=locked)
    database = tmp_path / "app.db"
    env |= {"SIDECAR_DATABASES": str(database), "SIDECAR_STORE": f"s3://{bucket}/app", "SIDECAR_LEASE_TTL": "5s"}
    with closing(sqlite3.connect(database, isolation_level=None)) as app:
        app.execute("create table t(n)")
        with SidecarProcess("run", "--", "sleep", "60", env=env, directory=tmp_path) as daemon:
            daemon.wait_ready()
            eventually(lambda: seaweed.s3.restore_points(bucket))
            before = _versions(raw, bucket, "app/lease.json")
            eventually(lambda: _versions(raw, bucket, "app/lease.json") > before + 1, timeout=30)
            app.execute("insert into t values(1)")
            assert daemon.terminate() == 143
        app.execute("insert into t values(2)")
    assert run_cli("backup", env=env, cwd=tmp_path).returncode == 0
    first, *_, newest = seaweed.s3.restore_points(bucket)
    assert seaweed.s3.tags(bucket, first)["sidecar-tier"] == "recent"
    assert not seaweed.s3.tags(bucket, newest)
    assert raw.head_object(Bucket=bucket, Key=newest)["ObjectLockMode"] == "COMPLIANCE"

    checked = run_cli("check", "--listen", "off", env=env, cwd=tmp_path)
    assert "FAILED" not in checked.stdout, checked.stdout
    for file in tmp_path.glob("app.db*"):
        file.unlink()
    restored = run_cli("restore", env=env, cwd=tmp_path)
    assert restored.returncode == 0, restored.stderr
    with closing(sqlite3.connect(database)) as app:
        assert app.execute("select n from t").fetchall() == [(1,), (2,)]


def _versions(raw: Any, bucket: str, key: str) -> int:
    return len(raw.list_object_versions(Bucket=bucket, Prefix=key).get("Versions", []))
