"""A program that embeds the library, on a machine where a daemon may run."""

import json
import sys
from typing import Any

import pytest

from tests.e2e.machine import CALM_APP, Machine, notes, write_note
from tests.harness.processes import Child
from tests.harness.seaweed import Seaweed

PROGRAM = """
import asyncio, json, os, sidecar

async def main():
    async with sidecar.open(databases=[os.environ["DATABASE"]], store=os.environ["STORE"]) as session:
        events = session.events()
        try:
            (done,) = (await session.backup()).databases
        except sidecar.errors.SidecarError as error:
            return {"error": str(error), "exit_code": error.exit_code}
        report = await session.status()
    kinds = [event.kind async for event in events]
    return {"outcome": done.outcome, "key": done.restore_point, "source": report.source, "events": kinds}

print(json.dumps(asyncio.run(main())))
"""


def embedded(machine: Machine) -> dict[str, Any]:
    """What the program says at its end."""
    environment = {**machine.env, "DATABASE": str(machine.database), "STORE": machine.store}
    with (machine / "out").open("wb") as out, (machine / "err").open("wb") as err:
        child = Child([sys.executable, "-c", PROGRAM], environment, cwd=machine.root, stdout=out, stderr=err)
        assert child.popen.wait(60) == 0, (machine / "err").read_text()
    (line,) = (machine / "out").read_text().splitlines()  # its own output, without a line of the log
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_daemon_of_this_machine_makes_the_backup(local: Machine) -> None:
    """There is never a second writer: the epoch stays, and the daemon counts the publish."""
    with local.run(*CALM_APP, stream="off") as process:  # else a restore point is published as soon as it begins
        process.wait_ready()
        write_note(local.database, "asked for")
        epoch = json.loads(process.http("/status")[1])["lease"]["epoch"]
        found = embedded(local)
        assert (found["outcome"], found["source"], found["events"]) == ("published", "daemon", [])
        assert process.metric("sidecar_backups_total", outcome="published") == 1
        lease = json.loads(process.http("/status")[1])["lease"]
        assert (lease["epoch"], lease["held"]) == (epoch, True)
        assert embedded(local)["outcome"] == "unchanged"
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["asked for"]


def test_a_daemon_without_a_control_socket_is_not_overtaken(local: Machine) -> None:
    """75 and nothing is published, as the command does."""
    with local.run(*CALM_APP, control_socket="off", stream="off") as process:
        process.wait_ready()
        write_note(local.database, "row")
        found = embedded(local)
        assert found["exit_code"] == 75
        assert str(process.pid) in found["error"]
        assert local.points() == []


@pytest.mark.s3
def test_without_a_daemon_it_is_the_holder_for_one_publish(machine: Machine, seaweed: Seaweed, bucket: str) -> None:
    """To a real S3 store; afterwards the lease is released, and a daemon starts without waiting."""
    write_note(machine.database, "row")
    found = embedded(machine)
    assert (found["outcome"], found["source"]) == ("published", "store")
    assert "published" in found["events"]
    assert [key.endswith(found["key"]) for key in seaweed.s3.restore_points(bucket)] == [True]
    assert notes(machine.restore_copy()) == ["row"]
    with machine.with_env(FLY_MACHINE_ID="another").run(*CALM_APP, lease_wait="0s") as process:
        process.wait_ready()
        assert process.terminate() == 0
