"""Signals at the worst moment: nothing corrupt, nothing half-published, no hang, and the right exit status."""

import json
import signal
import time

import pytest

from tests.e2e.machine import CALM_APP, Machine, calm_app, notes, python_app, write_note
from tests.harness.eventually import eventually
from tests.harness.proxy import FaultProxy, Stall
from tests.harness.seaweed import Seaweed
from tests.harness.writer_process import WriterProcess, last_ack, writer_command
from tests.harness.writers import check_ledger, fill

FOREVER = 120.0
POINT = ".sqlite3.zst"  # in the path of requests about a restore point, and not of those by which the daemon tries the store
STUBBORN = python_app(
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('app started', flush=True); time.sleep(60)"
)


def test_second_sigterm_cuts_the_grace_of_a_stubborn_app_and_keeps_the_final_backup(local: Machine) -> None:
    """
    1. The app ignores SIGTERM; shutdown_grace is a minute. A row is written that no restore point has.
    2. SIGTERM: nothing ends. A second one: the app is killed at once.
    Result: 137, and the row is in the store.
    """
    with local.run(*STUBBORN, shutdown_grace="60s") as process:
        process.wait_for_log("app started")
        process.wait_ready()
        write_note(local.database, "only the final backup has it")
        process.signal(signal.SIGTERM)
        process.wait_for_log("stop requested")
        assert process.http("/readyz")[0] == 503
        assert process.http("/livez")[0] == 200
        asked_again = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 137
        assert time.monotonic() - asked_again < 20
    assert notes(local.restore_copy()) == ["only the final backup has it"]


def test_sigterm_during_the_restore_leaves_no_database(proxied: Machine, proxy: FaultProxy) -> None:
    """
    1. A restore point of several parts is in the store; the disk is lost.
    2. A boot: one part of the download stalls. /livez says 200 and /readyz 503 meanwhile.
    3. SIGTERM: prompt end with 128+15, the app was never started, the data directory is empty.
    4. The next boot restores everything.
    """
    fill(proxied.database, 16)
    write_note(proxied.database, "precious")
    assert proxied.cli("backup", part_size="5MiB").returncode == 0
    proxied.lose_disk()
    stalled = proxy.rule(Stall(FOREVER, after_bytes=100_000), method="GET", path_contains=POINT, skip=1)
    with proxied.run(*CALM_APP, part_size="5MiB") as process:
        proxy.wait_seen("GET", POINT, count=2)
        assert process.http("/livez")[0] == 200
        assert process.http("/readyz") == (503, "restoring\n")
        assert json.loads(process.http("/status")[1])["phase"] == "restoring"
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
        assert "app started" not in process.stdout()
    assert proxied.files() == []
    proxy.remove(stalled)
    with proxied.run(*CALM_APP) as process:
        process.wait_ready()
        assert notes(proxied.database) == ["precious"]
        assert process.terminate() == 0


def test_sigterm_during_an_upload_gives_it_up_and_publishes_a_final_one(
    proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """
    1. Writers commit in a large database, one as the app, one beside it. A part of the first upload stalls for ever.
    2. SIGTERM: the upload is aborted, the app stops (exit status 7), the final backup is published.
    Result: exactly one restore point, which holds every acknowledged commit; no open upload, no temporary file.
    """
    fill(proxied.database, 16)
    proxy.rule(
        Stall(FOREVER, after_bytes=10_000), method="PUT", path_contains=POINT, query_contains="partNumber=2", times=1
    )
    acks = proxied / "acks"
    app = writer_command(proxied.database, "--acks", str(acks), "--exit-status", "7", "--rate", "200")
    with proxied.run(*app, part_size="5MiB", interval="1s") as process:
        with WriterProcess(proxied.database, "--rate", "200", env=proxied.env, directory=proxied.root) as other:
            proxy.wait_seen("PUT", POINT, query_contains="partNumber=2", timeout=30)
            other.wait_acked(other.acked() + 20)
            process.wait_ready()
            assert seaweed.s3.restore_points(bucket) == []
            assert other.stop() == 0
        process.signal(signal.SIGTERM)
        assert process.wait(30) == 7
    assert len(seaweed.s3.restore_points(bucket)) == 1
    assert seaweed.s3.open_uploads(bucket) == []
    assert proxied.leftovers() == []
    assert check_ledger(proxied.restore_copy()) >= max(other.acked(), last_ack(acks)) > 0


def test_signals_during_the_final_backup_do_not_cut_it_short(
    proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """
    1. SIGTERM; the app ends with 3; the final upload's last request is held back for two seconds.
    2. SIGTERM, SIGINT and SIGTERM again, as an impatient platform sends them.
    Result: the backup is published and the status is the app's.
    """
    with proxied.run(*calm_app(3), part_size="5MiB") as process:
        process.wait_for_log("app started")
        fill(proxied.database, 16)
        proxy.rule(Stall(2), method="POST", path_contains=POINT, query_contains="uploadId")
        process.signal(signal.SIGTERM)
        proxy.wait_seen("POST", POINT, "uploadId", timeout=20)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            process.signal(number)
        assert process.wait(30) == 3
    assert len(seaweed.s3.restore_points(bucket)) == 1
    assert seaweed.s3.open_uploads(bucket) == []
    assert proxied.leftovers() == []
    assert proxied.cli("verify").returncode == 0


def test_final_backup_that_takes_too_long_is_given_up_and_shows_in_the_exit_status(
    proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """
    1. SIGTERM; the app ends; a part of the final upload stalls beyond final_backup_timeout.
    Result: 74, because the app ended with 0; nothing half-published, no open upload; the
    database is still on the disk.
    """
    with proxied.run(*CALM_APP, part_size="5MiB", final_backup_timeout="2s") as process:
        process.wait_for_log("app started")
        fill(proxied.database, 16)
        before = proxied.disk()
        proxy.rule(Stall(FOREVER, after_bytes=10_000), method="PUT", path_contains=POINT, query_contains="partNumber=2")
        assert process.terminate() == 74
        assert "final backup timed out" in process.stderr()
    assert seaweed.s3.restore_points(bucket) == []
    assert seaweed.s3.open_uploads(bucket) == []
    assert proxied.leftovers() == []
    assert before.items() <= proxied.disk().items()


def test_daemon_killed_between_publish_and_marker_is_no_conflict(
    proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """
    1. The store publishes a restore point, but its reply never arrives; the machine dies at this moment (SIGKILL).
    2. It boots on the same disk: the marker names the restore point as pending.
    Result: the local database is kept, with what was written after that restore point.
    """
    with proxied.run(*CALM_APP, interval="300ms") as process:
        process.wait_for_log("app started")
        proxy.rule(Stall(FOREVER, direction="reply"), method="PUT", path_contains=POINT)
        write_note(proxied.database, "published")
        proxy.wait_seen("PUT", POINT)
        eventually(lambda: seaweed.s3.restore_points(bucket), 10, "the store has it")
        write_note(proxied.database, "written later")
        process.kill()
    proxy.clear()
    with proxied.run(*CALM_APP) as process:
        process.wait_ready()
        assert process.metric("sidecar_restores_total", outcome="kept_local") == 1
        assert notes(proxied.database) == ["published", "written later"]
        assert process.terminate() == 0
    assert not list(proxied.data.glob("*diverged*"))
    assert notes(proxied.restore_copy()) == ["published", "written later"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT, signal.SIGHUP)],
    ids=lambda number: number.name,
)
def test_commands_end_cleanly_on_a_signal(
    first: int, second: int, proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """A stop signal, or the end of the terminal, cancels `backup` and `restore` in the middle of a transfer.

    128+n, no traceback, no half-done anything.
    """
    fill(proxied.database, 16)
    proxy.rule(Stall(FOREVER, after_bytes=10_000), method="PUT", path_contains=POINT, query_contains="partNumber=2")
    with proxied.start("backup", part_size="5MiB") as process:
        proxy.wait_seen("PUT", POINT, query_contains="partNumber=2", timeout=20)
        process.signal(first)
        assert process.wait(15) == 128 + first
        assert "Traceback" not in process.stderr()
    assert seaweed.s3.restore_points(bucket) == []
    assert seaweed.s3.open_uploads(bucket) == []
    proxy.clear()
    assert proxied.cli("backup", part_size="5MiB").returncode == 0
    proxied.lose_disk()
    proxy.rule(Stall(FOREVER, after_bytes=100_000), method="GET", path_contains=POINT, skip=1)
    with proxied.start("restore", part_size="5MiB") as process:
        proxy.wait_seen("GET", POINT, count=2, timeout=20)
        process.signal(second)
        assert process.wait(15) == 128 + second
        assert "Traceback" not in process.stderr()
    assert proxied.files() == []
