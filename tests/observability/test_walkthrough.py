"""Accidents, with real processes and a real Prometheus, as docs/troubleshooting.md describes them.

`for:`, the intervals and the steps of subqueries are one second here; otherwise the rules are those that users load. `pytest -rP` prints the
alerts, log lines and messages.
"""

import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboard import DASHBOARD
from tests.e2e.machine import CALM_APP, Machine, may_unshare, write_note
from tests.harness.eventually import eventually
from tests.harness.prometheus import Prometheus
from tests.harness.proxy import FaultProxy, s3_error
from tests.harness.sidecar_process import SidecarProcess
from tests.observability.platform import FLY, exporter

if TYPE_CHECKING:
    from tests.harness.seaweed import Seaweed

FAST: dict[str, Any] = {"interval": "1s", "lease_ttl": "6s", "restore_timeout": "5s", "final_backup_timeout": "3s"}
SHOWN = ("level", "event", "database", "error", "hint", "to", "holder", "key")


@dataclass(frozen=True)
class Watch:
    """A Prometheus that scrapes machines. `ended` has the platform report an exit code to it."""

    prometheus: Prometheus
    ended: Callable[[int], None]

    def fires(self, *names: str, timeout: float = 40.0) -> None:
        """Wait until all of these alerts fire, and print their summaries."""
        for name, annotations in self.prometheus.wait_firing(*names, timeout=timeout).items():
            print(f"ALERT {name}: {annotations['summary']}")
            assert "<error" not in str(annotations)
            assert "<no value>" not in str(annotations)

    def silent(self, *names: str) -> None:
        """Wait until none of these alerts fires."""
        self.prometheus.wait_silent(*names)
        print(f"silent again: {', '.join(names)}")


@contextmanager
def watching(machine: Machine, *processes: SidecarProcess) -> Iterator[Watch]:
    """Scrape these processes, with the labels of fly.io."""
    directory = machine / f"prometheus-{processes[0].port}"  # a test may watch one machine after another
    directory.mkdir()
    rules = directory / "alerts.yml"
    loaded = (DASHBOARD.parent / "alerts.yml").read_text()
    rules.write_text(re.sub(r"for: \d+m", "for: 1s", loaded).replace(":15s]", ":1s]"))
    with exporter() as platform:
        targets = [(each.port, {**FLY, "instance": f"machine-{n}"}) for n, each in enumerate(processes, 1)]
        everything = [*targets, (platform.port, {**FLY, "job": "platform"})]
        with Prometheus(directory, everything, rules) as prometheus:
            yield Watch(prometheus, lambda code: setattr(platform, "text", f"fly_instance_exit_code {code}\n"))


def logged(process: SidecarProcess) -> list[str]:
    """The warnings and errors in the log, each once and in order; they are printed."""
    lines: list[str] = []
    for line in process.stderr().splitlines():
        if not line.startswith("{"):
            lines.append(line)
        elif (entry := json.loads(line))["level"] in {"warning", "error"}:
            lines.append(" | ".join(f"{name}={entry[name]}" for name in SHOWN if name in entry))
    once = list(dict.fromkeys(lines))
    print("\n".join(f"LOG {line}" for line in once))
    return once


def problem(process: SidecarProcess) -> str:
    """The message of the last problem in /status; it is printed."""
    last = json.loads(process.http("/status")[1])["problems"][-1]
    print(f"STATUS {last['message']} -> {last['hint']}")
    return str(last["message"])


def require_page(process: SidecarProcess, level: str, title: str) -> None:
    """Require this level and heading of the page."""
    verdict = json.loads(process.http("/status")[1])["verdict"]
    print(f"PAGE {verdict}")
    assert (verdict["level"], verdict["title"]) == (level, title)


def test_store_is_down(proxied: Machine, proxy: FaultProxy) -> None:
    """The store is unreachable for longer than two intervals and a lease's term; when it is back, nobody has to do anything."""
    with proxied.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        with watching(proxied, process) as watch:
            write_note(proxied.database, "published")
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            proxy.down()
            write_note(proxied.database, "waits")
            watch.fires("SidecarUnprotected", "SidecarNoRecentSuccess", "SidecarBackupsFail", "SidecarLeaseNotHeld")
            assert process.metric("sidecar_backup_failures_total", reason="unavailable")
            said = problem(process)
            assert "cannot be reached" in said
            assert "?" not in said, "a query hides what matters"
            assert process.http("/readyz")[0] == 200
            proxy.up()
            watch.silent("SidecarUnprotected", "SidecarNoRecentSuccess", "SidecarLeaseNotHeld")
        assert process.terminate() == 0
        assert any("backup failed" in line for line in logged(process))


def test_credentials_are_revoked(proxied: Machine, proxy: FaultProxy) -> None:
    """The store answers as S3 does to a deleted key: the app stays up, and the final backup that fails gives exit code 74."""
    with proxied.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        with watching(proxied, process) as watch:
            write_note(proxied.database, "published")
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            proxy.rule(s3_error(403, "InvalidAccessKeyId"))
            write_note(proxied.database, "waits")
            watch.fires("SidecarAccessDenied", "SidecarUnprotected", "SidecarLeaseNotHeld")
            problem(process)
            watch.ended(process.terminate())
            watch.fires("SidecarFinalBackupLost")
        assert any("backup failed" in line for line in logged(process))


@pytest.mark.skipif(
    os.geteuid() != 0 or not may_unshare("--mount"), reason="mounting in a namespace is not permitted here"
)
def test_disk_is_full(local: Machine) -> None:
    """There is no room to stage a snapshot: nothing is protected, and the exit code is 74."""
    staging = local / "staging"
    staging.mkdir()
    with closing(sqlite3.connect(local.database)) as connection:
        connection.execute("CREATE TABLE blobs AS SELECT randomblob(6 << 20) AS bytes")
        connection.commit()
    small = ("unshare", "--mount", "sh", "-ec", f'mount -t tmpfs -o size=2m none {staging}; exec "$@"', "sh")
    with local.run(*CALM_APP, prefix=small, staging_dir=staging, **FAST) as process:
        process.wait_ready()
        with watching(local, process) as watch:
            watch.fires("SidecarStagingFull", "SidecarNoRecentSuccess")
            assert "no room" in problem(process)
            watch.ended(process.terminate())
            watch.fires("SidecarFinalBackupLost")
        logged(process)


def test_second_machine_waits_and_gives_up(machine: Machine) -> None:
    """/readyz and the log name the holder; after lease_wait the exit code is 75.

    Takes longer than ten seconds: the alert has to fire while the machine waits, and that for `lease_wait`.
    """
    one, other = machine.with_env(FLY_MACHINE_ID="m1"), second(machine)
    with one.run(*CALM_APP, **FAST) as first:
        first.wait_ready()
        with other.run(*CALM_APP, **{**FAST, "lease_wait": "15s"}) as waiting:
            waiting.wait_for_log("waiting for the lease")
            with watching(machine, first, waiting) as watch:
                watch.fires("SidecarWaitsForLease", timeout=14)
                print(f"READYZ {waiting.http('/readyz')}")
                assert "m1" in waiting.http("/readyz")[1]
                watch.ended(waiting.wait())
                watch.fires("SidecarGaveUp")
            assert any("held by m1" in line for line in logged(waiting))
        assert first.terminate() == 0


@pytest.mark.parametrize("reaction", ["stop", "continue"])
def test_second_machine_takes_over_from_a_paused_one(reaction: str, machine: Machine) -> None:
    """The paused machine stops with 75, or continues without restore points; its writes go under diverged/.

    Takes longer than ten seconds: the lease has to expire, and the alert has to fire after that.
    """
    one, other = machine.with_env(FLY_MACHINE_ID="m1"), second(machine)
    with ExitStack() as stack:
        first = stack.enter_context(one.run(*CALM_APP, **{**FAST, "on_lease_lost": reaction}))
        first.wait_ready()
        write_note(one.database, "published")
        first.wait_metric("sidecar_backups_total", 1, outcome="published")
        successor = stack.enter_context(other.run(*CALM_APP, **FAST))
        successor.wait_for_log("waiting for the lease")
        watch = stack.enter_context(watching(machine, first, successor))
        first.signal(signal.SIGSTOP)
        write_note(one.database, "written by the paused one")
        successor.wait_ready()
        first.signal(signal.SIGCONT)
        if reaction == "stop":
            watch.ended(first.wait())
            watch.fires("SidecarGaveUp")
        else:
            watch.fires("SidecarLeaseLost", "SidecarLeaseNotHeld")
            first.signal(signal.SIGTERM)
            assert first.wait() == 75
        assert not any("bug" in line for line in logged(first))
        listed = other.cli("list", "--diverged").stdout
        print(f"LIST {listed}")
        assert "m1" in listed
        assert successor.terminate() == 0


def test_newest_restore_point_is_damaged(machine: Machine, seaweed: "Seaweed", bucket: str) -> None:
    """An older one is restored, and log, page, status and alert say so."""
    for text in ("old", "new"):
        write_note(machine.database, text)
        assert machine.cli("backup").returncode == 0
    newest = seaweed.s3.restore_points(bucket)[-1]
    seaweed.s3.put(bucket, newest, b"not what was written")
    machine.lose_disk()
    with machine.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        with watching(machine, process) as watch:
            watch.fires("SidecarRestorePointDamaged")
            assert "what was written between the two is missing" in problem(process)
            require_page(process, "look", "Protected, but changes were lost")
            assert process.terminate() == 0
        assert any("damaged restore point skipped" in line for line in logged(process))


def test_store_loses_its_restore_points(machine: Machine, seaweed: "Seaweed", bucket: str) -> None:
    """Somebody empties the prefix, including the lease; the app writes nothing meanwhile."""
    with machine.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        write_note(machine.database, "published")
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        settled(process)
        with watching(machine, process) as watch:
            for key in seaweed.s3.keys(bucket):
                seaweed.s3.delete(bucket, key)
            watch.fires("SidecarDrillDamaged")
            assert "is gone from the store, along with all others" in problem(process)
            settled(process)
            require_page(process, "look", "Protected – needs attention")
            assert process.terminate() == 0
        assert any("lease object rewritten" in line for line in logged(process))
    assert seaweed.s3.restore_points(bucket)


def test_disk_of_the_store_is_not_mounted(local: Machine) -> None:
    """An unmounted disk leaves an empty directory behind; once it is mounted again, nobody has to do anything else."""
    store = Path(local.store.removeprefix("file://"))
    with local.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        write_note(local.database, "published")
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with watching(local, process) as watch:
            store.rename(local / "elsewhere")
            store.mkdir()
            write_note(local.database, "waits")
            watch.fires("SidecarUnprotected", "SidecarBackupsFail", "SidecarLeaseNotHeld")
            assert process.metric("sidecar_backup_failures_total", reason="missing")
            assert "is not the one that was there" in problem(process)
            require_page(process, "bad", "Not protected")
            store.rmdir()
            (local / "elsewhere").rename(store)
            watch.silent("SidecarUnprotected", "SidecarLeaseNotHeld")
            assert process.terminate() == 0
        logged(process)


def test_app_deletes_all_rows(machine: Machine) -> None:
    """A DELETE leaves the file as large as it was and is reported; a VACUUM after it is not reported again."""
    with machine.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        write_note(machine.database, *(f"{number:1000}" for number in range(1000)))
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with watching(machine, process) as watch:
            execute(machine, "DELETE FROM notes")
            watch.fires("SidecarSuspiciousSnapshot")
            problem(process)
            require_page(process, "look", "Protected – needs attention")
            execute(machine, "VACUUM")
            settled(process)
            assert process.metric("sidecar_suspicious_snapshots_total") == 1
            assert process.terminate() == 0
        assert any("suspicious snapshot" in line for line in logged(process))
        print(f"LIST {machine.cli('list').stdout}")


def test_app_deletes_its_database(local: Machine) -> None:
    """The page is red at once and the exit code is 74; the next start restores the newest restore point, and the page stays amber."""
    with local.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        write_note(local.database, "published")
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with watching(local, process) as watch:
            for path in local.data.glob("app.db*"):
                if path.suffix != ".json":
                    path.unlink()
            watch.fires("SidecarBackupsFail", "SidecarNoRecentSuccess")
            problem(process)
            require_page(process, "bad", "Not protected")
            code = process.terminate()
            assert code == 74
            watch.ended(code)
            watch.fires("SidecarFinalBackupLost")
        logged(process)
    with local.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        eventually(lambda: json.loads(process.http("/status")[1])["problems"], 20, "what was told is shown again")
        require_page(process, "look", "Protected, but changes were lost")
        logged(process)
        assert process.terminate() == 0


def test_store_or_database_is_mistyped(local: Machine) -> None:
    """With a wrong name nothing is ever protected; with a wrong store everything is, and the page is amber until somebody acknowledges it."""
    write_note(local.database, "published")
    assert local.cli("backup").returncode == 0
    local.lose_disk()
    with local.run(*CALM_APP, databases=local.data / "ap.db", **FAST) as process:
        process.wait_ready()
        with watching(local, process) as watch:
            watch.fires("SidecarNoRecentSuccess")
            require_page(process, "wait", "Nothing to protect yet")
            assert process.terminate() == 0
        assert any("starts with an empty database" in line for line in logged(process))
    wrong = replace(local, store=f"{local.store}s")
    with wrong.run(*CALM_APP, **FAST) as process:
        process.wait_ready()
        write_note(local.database, "another beginning")
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        with watching(wrong, process) as watch:
            watch.fires("SidecarStoreMistyped")
            require_page(process, "look", "Protected – needs attention")
            assert process.terminate() == 0
        logged(process)


def test_machine_is_killed_and_its_disk_lost(machine: Machine) -> None:
    """Its writes after its last restore point are gone; the next machine reports that for a day."""
    write_note(machine.database, "published")
    with machine.with_env(FLY_MACHINE_ID="m1").run(*CALM_APP, **FAST) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        process.kill()
    with second(machine).run(*CALM_APP, **{**FAST, "lease_wait": "30s"}) as process:
        process.wait_ready()
        with watching(machine, process) as watch:
            watch.fires("SidecarPredecessorUnfinished")
            problem(process)
            require_page(process, "look", "Protected – needs attention")
        logged(process)
        assert process.terminate() == 0


def second(machine: Machine) -> Machine:
    """Another machine of the same app, with its own disk."""
    (machine / "second").mkdir()
    return Machine.make(machine / "second", machine.store, machine.env).with_env(FLY_MACHINE_ID="m2")


def execute(machine: Machine, statement: str) -> None:
    with closing(sqlite3.connect(machine.database, isolation_level=None)) as connection:
        connection.execute(statement)


def settled(process: SidecarProcess) -> None:
    """Wait for two more successful cycles: everything written before is protected then."""
    done = process.metric("sidecar_last_backup_success_timestamp_seconds") or 0
    process.wait_metric("sidecar_last_backup_success_timestamp_seconds", done + 2)
    eventually(lambda: process.metric("sidecar_unprotected_seconds") == 0, 10, "all is protected")
