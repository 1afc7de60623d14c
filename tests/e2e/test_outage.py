"""A store that is away: at boot, during the run, and at the end."""

from contextlib import suppress

import pytest

from tests.e2e.machine import CALM_APP, Machine, calm_app, complaint, notes, write_note
from tests.e2e.test_decided import verdict
from tests.harness.eventually import eventually
from tests.harness.proxy import Answer, FaultProxy, s3_error
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writer_process import last_ack, writer_command
from tests.harness.writers import check_ledger


def reason(process: SidecarProcess) -> str:
    """What the page says, once it is there."""
    with suppress(OSError):
        return verdict(process)["reason"]
    return ""


@pytest.mark.s3
def test_page_says_what_a_boot_waits_for(proxied: Machine, proxy: FaultProxy) -> None:
    """The store is away: what is wrong, and that the app is not started; then it is back, and all is restored."""
    write_note(proxied.database, "one")
    assert proxied.cli("backup").returncode == 0
    proxied.lose_disk()
    proxy.down()
    with proxied.run(*CALM_APP) as process:
        eventually(lambda: "cannot be reached" in reason(process), 20, "why it waits")
        said = verdict(process)
        assert (said["level"], said["title"]) == ("wait", "Restoring")
        assert "does not start the app on an empty database" in said["hint"]
        assert process.http("/readyz")[0] == 503
        proxy.up()
        process.wait_ready()
        assert process.terminate() == 0
    assert notes(proxied.database) == ["one"]


@pytest.mark.parametrize("fault", [None, s3_error(500, "InternalError")])
def test_store_down_at_boot_never_starts_the_app(fault: Answer | None, proxied: Machine, proxy: FaultProxy) -> None:
    """Refused, failing or throttled until restore_timeout: exit 75, the app never ran, no file anywhere."""
    if fault:
        proxy.rule(fault)
    else:
        proxy.down()
    marker = proxied / "marker"
    with proxied.run("touch", str(marker), restore_timeout="1500ms") as process:
        eventually(lambda: process.output(), 10, "the first attempt is logged")
        assert process.wait(15) == 75
        complaint(process.stderr())
    assert not marker.exists()
    assert proxied.files() == []
    assert proxied.leftovers() == []


def test_boot_waits_for_a_store_that_returns_in_time(proxied: Machine, proxy: FaultProxy) -> None:
    """/livez is 200 and /readyz 503 all the while; then the restore, then the app."""
    write_note(proxied.database, "precious")
    assert proxied.cli("backup").returncode == 0
    proxied.lose_disk()
    proxy.down()
    with proxied.run(*CALM_APP, restore_timeout="60s") as process:
        process.wait_for_log("retry scheduled")
        assert process.http("/livez")[0] == 200
        assert process.http("/readyz")[0] == 503
        assert proxied.files() == []
        proxy.up()
        process.wait_ready()
        assert notes(proxied.database) == ["precious"]
        assert process.terminate() == 0


def test_outage_during_the_run_leaves_the_app_alone_and_ends_with_a_publish(
    proxied: Machine, proxy: FaultProxy
) -> None:
    """
    1. A writer is the app. Access is denied for some cycles, then the store is away for longer than a cycle's patience.
    2. The app goes on committing; failed cycles are counted and shown; the unprotected time grows.
    3. One-shot commands meanwhile give up after the same patience, with 75 and one line.
    4. The store returns: the next cycle publishes, and the failure is over.
    Takes longer than ten seconds: a cycle retries for thirty before it fails.
    """
    other = {"databases": proxied / "other.db", "store": f"{proxied.store}/other"}
    write_note(proxied / "other.db", "precious")
    acks = proxied / "acks"
    app = writer_command(proxied.database, "--acks", str(acks), "--rate", "100")
    with proxied.run(*app, interval="500ms") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        denied = proxy.rule(s3_error(403, "AccessDenied"))
        process.wait_metric("sidecar_backups_total", 2, outcome="failed")
        assert '"failing_since": "' in process.http("/status")[1]
        proxy.remove(denied)
        published = process.wait_metric(
            "sidecar_backups_total", 1 + (process.metric("sidecar_backups_total", outcome="published") or 0)
        )
        failed = process.metric("sidecar_backups_total", outcome="failed") or 0
        proxy.down()
        acked = last_ack(acks)
        with proxied.start("list") as listing, proxied.start("backup", **other) as backup:
            process.wait_metric("sidecar_backups_total", failed + 1, timeout=60, outcome="failed")
            for command in (listing, backup):
                assert command.wait(60) == 75, command.report()
                assert str(proxy.port) in complaint(command.stderr())
        assert last_ack(acks) > acked + 100
        assert (process.metric("sidecar_unprotected_seconds") or 0) > 5
        assert process.http("/readyz")[0] == 200
        proxy.up()
        process.wait_metric("sidecar_backups_total", published + 1, outcome="published")
        eventually(lambda: '"failing_since": null' in process.http("/status")[1], 20, "the failure is over")
        assert process.terminate() == 0
    assert check_ledger(proxied.restore_copy()) == last_ack(acks)


@pytest.mark.parametrize(("app_status", "status"), [(0, 74), (143, 143)])
def test_store_down_at_the_end_shows_in_the_exit_status(
    app_status: int, status: int, proxied: Machine, proxy: FaultProxy
) -> None:
    """74 for an app that ended with 0, so that a platform can alert; else the app's own status. The file stays."""
    with proxied.run(*calm_app(app_status), final_backup_timeout="1500ms") as process:
        process.wait_for_log("app started")
        write_note(proxied.database, "not published")
        proxy.down()
        assert process.terminate(20) == status
        if status == 74:
            complaint(process.stderr())
    assert notes(proxied.database) == ["not published"]
    assert proxied.leftovers() == []


def test_store_that_returns_within_the_final_backup_gets_it(
    proxied: Machine, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """The final backup is tried again until its timeout."""
    with proxied.run(*CALM_APP) as process:
        process.wait_for_log("app started")
        write_note(proxied.database, "published late")
        proxy.down()
        process.signal(15)
        process.wait_for_log("retry scheduled", 20)
        proxy.up()
        assert process.wait(30) == 0
    assert notes(proxied.restore_copy()) == ["published late"]
    assert len(seaweed.s3.restore_points(bucket)) == 1
