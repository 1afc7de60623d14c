"""A mistyped store stays amber until somebody acknowledges it, and a first start is confirmed with one command."""

import json
from dataclasses import replace

from tests.e2e.machine import CALM_APP, Machine, write_note
from tests.e2e.test_decided import verdict, wait_level
from tests.harness.eventually import eventually
from tests.harness.receiver import receiving


def test_mistyped_store_stays_amber_on_every_machine_until_it_is_acknowledged(local: Machine) -> None:
    """
    1. A first start is green, with a question that `sidecar ack first_start` answers.
    2. The machine is lost, and the next one has a mistyped store: amber, and still amber after another restart.
    3. `sidecar ack` lists it, `sidecar ack empty` acknowledges it beside the running daemon; a receiver is told once.
    4. The page turns green, and stays so on the next machine.
    """
    with local.run(*CALM_APP, stream="off") as process:  # else a restore point is published as soon as it begins
        process.wait_ready()
        write_note(local.database, "real")
        assert "published" in local.cli("backup").stdout
        said = wait_level(process, "good")
        assert ("it started empty" in said["reason"], "sidecar ack first_start" in said["hint"]) == (True, True)
        assert process.terminate() == 0
    assert local.cli("ack", "first_start").stdout.startswith("acknowledged: app.db: ")
    wrong = replace(local, store=f"{local.store}s")
    for _ in range(2):
        local.lose_disk()
        with wrong.run(*CALM_APP, stream="off") as process:
            process.wait_ready()
            write_note(local.database, "shadow")
            assert "published" in wrong.cli("backup").stdout
            said = wait_level(process, "look")
            assert local.store in said["reason"]
            assert process.metric("sidecar_open_incidents", kind="empty") == 1
            assert process.terminate() == 0
    with receiving() as receiver, wrong.run(*CALM_APP, notify=receiver.url) as process:
        process.wait_ready()
        wait_level(process, "look")
        assert "sidecar ack empty" in wrong.cli("ack").stdout
        assert "acknowledged: app.db: it started empty" in wrong.cli("ack", "empty", "--note", "new").stdout
        eventually(lambda: verdict(process)["level"] == "good", 60, "the daemon notices")
        assert process.terminate() == 0
    assert receiver.kinds() == ["acknowledged"]
    local.lose_disk()
    with wrong.run(*CALM_APP) as process:
        process.wait_ready()
        assert wait_level(process, "good")["reason"] == ""
        assert json.loads(process.http("/status")[1])["incidents"] == []
        assert process.terminate() == 0
    assert wrong.cli("ack", "nope").returncode == 64
    assert wrong.cli("ack", "empty", "--all").returncode == 64
