"""Notifications and heartbeats of the real process."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.fleet import Fleet, freeze, thaw
from tests.e2e.machine import CALM_APP, Machine, calm_app, complaint, may_unshare, write_note
from tests.harness.proxy import FaultProxy
from tests.harness.receiver import SECRET, Receiver, receiving
from tests.harness.writers import open_database


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


def test_outage_is_sent_once_and_its_end_to_every_receiver_and_the_heartbeat_pauses(
    proxied: Machine, proxy: FaultProxy, receiver: Receiver
) -> None:
    """
    1. All is well: the heart beats. 2. The store is gone: one message, no beat. 3. It is back: one more, and beats.
    One of the receivers answers nothing all the time. No URL is in the log, in /status or on the page.
    """
    write_note(proxied.database, "one")
    with receiving() as hanging:
        hanging.slow = True
        urls = f"{hanging.url},{receiver.url}"
        with proxied.run(*CALM_APP, interval="1s", notify=urls, heartbeat_url=f"{receiver.url}/beat") as process:
            process.wait_ready()
            receiver.wait(lambda each: each.gets)
            proxy.down()
            write_note(proxied.database, "two")
            process.wait_metric("sidecar_backups_total", 2, outcome="failed")
            receiver.wait(lambda each: each.posts)
            beats = len(receiver.gets)
            proxy.up()
            receiver.wait(lambda each: len(each.posts) == 2 and len(each.gets) > beats)
            assert receiver.kinds() == ["failure", "recovery"]
            assert "Do not destroy this machine, only its disk has the changes since 2" in receiver.posts[0]["hint"]
            text = receiver.posts[0]["text"]
            assert text.startswith("sidecar failure on ")
            assert "app.db: " in text
            shown = process.http("/status")[1] + process.http("/metrics")[1]
            assert json.loads(process.http("/status")[1])["notifications"]["sent"] == 2
            hanging.released.set()
            assert process.terminate() == 0
        assert SECRET not in shown + process.output()


@pytest.mark.parametrize("status", [0, 3], ids=["exit 74", "the app's own status"])
def test_final_backup_that_failed_is_sent_before_the_end(
    proxied: Machine, proxy: FaultProxy, receiver: Receiver, status: int
) -> None:
    write_note(proxied.database, "one")
    with proxied.run(*calm_app(status), notify=receiver.url, final_backup_timeout="2s") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(proxied.database, "two")
        proxy.down()
        assert process.terminate() == (status or 74)
    assert any("could not be published" in each["message"] for each in receiver.posts), receiver.posts
    assert "do not destroy this machine" in receiver.posts[0]["hint"]


def test_database_that_the_app_deleted_is_on_no_disk(local: Machine, receiver: Receiver) -> None:
    """The exit code is 74, and the message does not send anybody to its disk: only the restore point is left."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, notify=receiver.url) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        for path in local.data.glob("app.db*"):
            path.unlink()
        assert process.terminate() == 74
        said = complaint(process.stderr())
    told = [f"{each['message']} {each['hint']}" for each in receiver.posts]
    assert said.count(f"{local.database} (newest restore point: app.db/") == 1
    assert len(told) == 2, told
    for text in (*told, said):
        assert "sidecar restore" in text
        assert "local file" not in text
        assert "only its disk" not in text


def test_takeover_is_two_messages_that_say_different_things(fleet: Fleet) -> None:
    """One says who took over, the other where this machine's state is; there is no failure beside them."""
    a, b = fleet.member("a"), fleet.member("b")
    with receiving() as receiver:
        with a.run(notify=receiver.url) as first:
            first.wait_metric("sidecar_backups_total", 2, outcome="published")
            freeze(*first.family())
            with b.run() as second:
                second.wait_metric("sidecar_backups_total", 1, timeout=60, outcome="published")
                thaw(*first.family())
                assert first.wait(60) == 75
                assert second.terminate() == 0
        assert receiver.kinds() == ["divergence", "divergence"]
        assert "taken over by b" in receiver.posts[0]["message"]
        assert "is kept as diverged/app.db/" in receiver.posts[1]["message"]


@pytest.mark.skipif(
    os.geteuid() != 0 or not may_unshare("--mount"), reason="mounting in a namespace is not permitted here"
)
def test_name_server_that_is_silent_does_not_delay_the_end(local: Machine) -> None:
    """The app ends by itself while the receivers' names are looked up, which would take minutes."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        try:
            silent.bind(("127.0.0.153", 53))
        except OSError as error:
            pytest.skip(f"no name server can be here: {error}")
        resolv = local / "resolv.conf"
        resolv.write_text("nameserver 127.0.0.153\noptions timeout:30 attempts:5\n")
        elsewhere = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv))
        write_note(local.database, "one")
        with local.run(*calm_app(3), prefix=elsewhere, heartbeat_url="http://heart.example.net/") as process:
            process.wait_ready()
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            silent.settimeout(30)
            assert silent.recv(512)
            assert process.terminate() == 3
        assert "last notifications not sent in time" in process.output()


def test_receiver_that_answers_nothing_delays_the_end_by_seconds_at_most(local: Machine, receiver: Receiver) -> None:
    """The limit is 5 s; the generous one here only distinguishes it from the receiver's own 30 s."""
    receiver.slow = True
    write_note(local.database, "one")
    with local.run(*CALM_APP, interval="1s", notify=receiver.url, heartbeat_url=receiver.url) as process:
        process.wait_ready()
        receiver.wait(lambda each: each.calls)
        started = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - started < 20


def test_boot_that_fails_is_sent(local: Machine, receiver: Receiver) -> None:
    """Nobody looks at a machine that does not start."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    for point in local.points():
        point.write_bytes(b"damaged")
    local.lose_disk()
    with local.run(*CALM_APP, notify=receiver.url) as process:
        assert process.wait() == 65
    assert receiver.kinds() == ["failure"]


def test_lost_rows_and_growth_are_sent(local: Machine, receiver: Receiver) -> None:
    write_note(local.database, *("x" * 1000 for _ in range(100)))
    with local.run(*CALM_APP, notify=receiver.url, alert_growth="200%") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(local.database, *("x" * 1000 for _ in range(1000)))
        assert local.cli("backup").returncode == 0
        receiver.wait(lambda each: each.kinds() == ["growth"])
        _empty(local)
        assert local.cli("backup").returncode == 0
        receiver.wait(lambda each: each.kinds() == ["growth", "suspicion"])
        assert "restore --key" in receiver.posts[1]["hint"]


def _empty(machine: Machine) -> None:
    with closing(open_database(machine.database)) as connection:
        connection.execute("DROP TABLE notes")
        connection.execute("VACUUM")


def test_check_and_a_wrong_url_show_no_secret(local: Machine) -> None:
    done = local.cli("check", notify=f"https://example.com/{SECRET}", heartbeat_url=f"https://example.com/{SECRET}")
    assert done.returncode == 0, done.stderr
    assert "heartbeat_url" in done.stdout
    for setting in ("SIDECAR_NOTIFY", "SIDECAR_HEARTBEAT_URL"):
        wrong = local.cli("check", env={setting: f"example.com/{SECRET}"})
        assert wrong.returncode == 78
        assert "not a URL like" in wrong.stderr
        assert SECRET not in done.stdout + done.stderr + wrong.stdout + wrong.stderr
