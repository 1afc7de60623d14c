"""A file system that is full: the app lives on, the error says so, and all is well once there is room."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import Machine, complaint
from tests.harness.database_states import connect
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SIDECAR
from tests.harness.writer_process import last_ack, writer_command
from tests.harness.writers import check_ledger, fill

MEGABYTES = 8


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", directory], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root's CAP_SYS_ADMIN")
    yield directory
    subprocess.run(["umount", directory], check=True)


def occupy(directory: Path) -> Path:
    """Something that leaves 2 MiB; tried again while a snapshot lies there."""
    path = directory / "something else"

    def written() -> bool:
        with suppress(OSError):
            return path.write_bytes(bytes(14 << 20)) > 0
        return False

    eventually(written, what=f"14 MiB fit into {directory}")
    return path


def test_staging_without_room_fails_cycles_and_nothing_else(local: Machine, tiny: Path) -> None:
    """
    1. The app writes; restore points are published. Something fills the file system of the staging directory.
    2. Cycles fail, and so does `sidecar backup`, with 73 and one line; the app goes on, and nothing is left in staging.
    3. There is room again: the next cycle publishes, and the final backup has every row.
    """
    fill(local.database, MEGABYTES)
    app = writer_command(local.database, "--acks", str(local / "acks"), "--rate", "50")
    settings: dict[str, Any] = {"staging_dir": tiny, "interval": "300ms"}
    with local.run(*app, **settings) as process:
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        hog = occupy(tiny)
        failed = process.wait_metric("sidecar_backups_total", 1, outcome="failed")
        asked = local.cli("backup", **settings)
        assert asked.returncode == 73
        assert "no room" in complaint(asked.stderr)
        acked = last_ack(local / "acks")
        process.wait_metric("sidecar_backups_total", failed + 1, outcome="failed")
        assert process.http("/readyz")[0] == 200
        assert "no room" in process.http("/status")[1]
        assert [path.name for path in tiny.iterdir()] == [hog.name]
        hog.unlink()
        before = process.metric("sidecar_backups_total", outcome="published") or 0
        process.wait_metric("sidecar_backups_total", before + 1, outcome="published")
        assert last_ack(local / "acks") > acked
        assert process.terminate() == 0
    assert check_ledger(local.restore_copy()) == last_ack(local / "acks")


def test_target_without_room_stops_the_boot_and_the_command(local: Machine, tiny: Path) -> None:
    """Exit 73 and one line, the app never ran, and nothing is left; with room again the same boot restores."""
    fill(local.database, MEGABYTES)
    assert local.publish() == "published"
    hog = occupy(tiny)
    marker = local / "marker"
    settings: dict[str, Any] = {"databases": tiny / local.database.name}
    with local.run("touch", str(marker), **settings) as process:
        assert process.wait() == 73
        assert "room" in complaint(process.stderr())
    done = local.cli("restore", "--output", str(tiny / "copy.db"))
    assert done.returncode == 73
    assert "room" in complaint(done.stderr)
    assert not marker.exists()
    assert [path.name for path in tiny.iterdir()] == [hog.name]
    hog.unlink()
    with local.run("touch", str(marker), **settings) as process:
        assert process.wait() == 0
    assert marker.exists()


def test_a_comparison_says_where_there_is_no_room(tiny: Path, tmp_path: Path) -> None:
    """Its result would be larger than what is left. Nothing of it stays there."""
    for name, rows in (("old.db", 1), ("new.db", 3000)):
        with closing(connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE t(a)")
            connection.executemany("INSERT INTO t VALUES (randomblob(5000))", [()] * rows)
    occupied = occupy(tiny)
    command = [*SIDECAR, "diff", str(tmp_path / "old.db"), str(tmp_path / "new.db")]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tiny)})
    where = f"sidecar: no room in {tiny} for what the comparison needs"
    assert (found.returncode, found.stdout) == (73, "")
    assert found.stderr == f"{where} (free some space, or set TMPDIR to a directory with more)\n"
    assert list(tiny.iterdir()) == [occupied]
