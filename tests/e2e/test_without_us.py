"""Standard tools suffice: any S3 client, zstd and the sqlite3 shell open a restore point."""

import shutil
import subprocess

import pytest

from tests.e2e.machine import Machine, write_note
from tests.harness.seaweed import Seaweed
from tests.harness.writers import fill


@pytest.mark.skipif(
    not (shutil.which("zstd") and shutil.which("sqlite3")), reason="the zstd and sqlite3 programs are not on PATH"
)
@pytest.mark.parametrize("megabytes", [0, 16], ids=["one PUT", "several parts"])
def test_restore_point_opens_with_zstd_and_sqlite3(
    megabytes: int, machine: Machine, seaweed: Seaweed, bucket: str
) -> None:
    """`zstd -t` finds the object sound, `zstd -d` makes a database of it, the shell finds it sound and complete."""
    write_note(machine.database, "readable", "for ever")
    fill(machine.database, megabytes)
    assert machine.cli("backup", part_size="5MiB").returncode == 0
    (key,) = seaweed.s3.restore_points(bucket)
    assert key.endswith(".sqlite3.zst")
    archive, restored = machine / "point.sqlite3.zst", machine / "by-hand.db"
    archive.write_bytes(seaweed.s3.get(bucket, key))
    subprocess.run(["zstd", "-q", "-t", archive], check=True, timeout=30)
    subprocess.run(["zstd", "-q", "-d", archive, "-o", restored], check=True, timeout=30)
    query = "PRAGMA integrity_check; SELECT text FROM notes ORDER BY rowid;"
    shell = subprocess.run(
        ["sqlite3", restored, query], check=True, timeout=30, env=dict(machine.env), capture_output=True, text=True
    )
    assert shell.stdout.splitlines() == ["ok", "readable", "for ever"]
