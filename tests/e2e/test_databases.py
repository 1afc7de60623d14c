"""Several databases, strange names, every page size, foreign journal modes, and no command at all."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.machine import CALM_APP, Machine, notes, write_note
from tests.harness.eventually import eventually
from tests.harness.seaweed import Seaweed
from tests.harness.writer_process import WriterProcess, last_ack, writer_command
from tests.harness.writers import check_ledger, fill

NAMES = ("with space.db", "Größe & 日本.db", "100%+plain.db")
PAGE_SIZES = (512, 4096, 65536)


def test_several_databases_with_any_name_survive(machine: Machine, seaweed: Seaweed, bucket: str) -> None:
    """
    1. Three databases with spaces, other letters and signs in their names; SIGTERM; the disk is lost.
    2. A boot restores all of them before it is ready. Their names are URL-encoded in keys.
    """
    paths = [machine.data / name for name in NAMES]
    databases = ",".join(map(str, paths))
    with machine.run(*CALM_APP, databases=databases) as process:
        process.wait_for_log("app started")
        for path in paths:
            write_note(path, path.name)
        assert process.terminate() == 0
    folders = {key.split("/")[1] for key in seaweed.s3.restore_points(bucket)}
    assert folders == {quote(name, safe="") for name in NAMES}
    machine.lose_disk()
    with machine.run(*CALM_APP, databases=databases) as process:
        process.wait_ready()
        assert [notes(path) for path in paths] == [[name] for name in NAMES]
        for name in NAMES:
            assert process.metric("sidecar_restore_bytes", database=name)
        assert process.terminate() == 0
    listed = machine.cli("list", databases=databases).stdout
    assert all(name in listed for name in NAMES)


def test_one_database_that_cannot_be_restored_stops_the_boot_of_all(local: Machine) -> None:
    """The app never starts with one of its databases missing: 65, although the other one is good."""
    good, bad = local.data / "good.db", local.data / "bad.db"
    databases = f"{good},{bad}"
    write_note(good, "good")
    write_note(bad, "bad")
    assert local.cli("backup", databases=databases).returncode == 0
    local.lose_disk()
    for point in (local / "store" / "bad.db").iterdir():
        point.write_bytes(b"")
    done = local.cli("run", "--", "touch", str(local / "marker"), databases=databases)
    assert done.returncode == 65
    assert "bad.db" in done.stderr
    assert not (local / "marker").exists()


def test_every_page_size_comes_back_row_by_row(local: Machine) -> None:
    """The smallest, the default and the largest page size, through one `backup` and one `restore`."""
    paths = [local.data / f"pages-{size}.db" for size in PAGE_SIZES]
    databases = ",".join(map(str, paths))
    for path, size in zip(paths, PAGE_SIZES, strict=True):
        fill(path, 1.5, page_size=size)
    before = [_content(path) for path in paths]
    assert local.cli("backup", databases=databases).returncode == 0
    local.lose_disk()
    assert local.cli("restore", databases=databases, integrity_check="full").returncode == 0
    assert [_content(path) for path in paths] == before
    assert [size for size, _ in before] == list(PAGE_SIZES)


@pytest.mark.parametrize("mode", ["wal", "keep"])
def test_busy_database_in_delete_mode_is_protected(mode: str, local: Machine) -> None:
    """An app that knows nothing of WAL commits all the time: restore points come, and the final one has everything."""
    acks = local / "acks"
    app = writer_command(local.database, "--journal-mode", "delete", "--acks", str(acks))
    with local.run(*app, interval="200ms", journal_mode=mode) as process:
        process.wait_metric("sidecar_backups_total", 2, outcome="published")
        reached = last_ack(acks) + 20
        eventually(lambda: last_ack(acks) >= reached, 15, "twenty more commits")
        assert process.terminate() == 0
    assert len(local.points()) >= 3
    assert check_ledger(local.restore_copy()) == last_ack(acks)


def test_plain_sidecar_waits_for_writers_elsewhere(local: Machine) -> None:
    """
    1. Without a command; a writer in another process commits; restore points are published.
    2. SIGTERM to both: sidecar waits `drain`, in which the writer ends.
    Result: 0, and everything acknowledged is in the final restore point.
    """
    with local.run(interval="300ms", drain="1500ms") as process:
        process.wait_ready()
        with WriterProcess(local.database, "--rate", "300", env=local.env, directory=local.root) as writer:
            writer.wait_acked(20)
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            process.signal(signal.SIGTERM)
            process.wait_for_log("stop requested")
            writer.wait_acked(writer.acked() + 20)
            assert writer.stop() == 0
            assert process.running
            assert process.wait() == 0
    assert check_ledger(local.restore_copy()) == writer.acked()


def test_plain_sidecar_skips_the_rest_of_the_drain_on_a_second_signal(local: Machine) -> None:
    """As with an app: the second signal shortens the wait, never the final backup."""
    with local.run(drain="10m") as process:
        process.wait_ready()
        write_note(local.database, "row")
        process.signal(signal.SIGTERM)
        process.wait_for_log("stop requested")
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert notes(local.restore_copy()) == ["row"]


def _content(path: Path) -> tuple[int, list[tuple[object, ...]]]:
    """Page size and all rows."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM filler ORDER BY id").fetchall()
        return connection.execute("PRAGMA page_size").fetchone()[0], rows
