"""docs/json.md: every field that real commands and daemons give is described there, and nothing else is."""

import json

import pytest

from tests.docs.json_fields import documented, fields, undocumented
from tests.e2e.machine import CALM_APP, Machine, write_note
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess


@pytest.mark.s3
def test_the_fields_of_a_real_daemon_and_store_are_those_that_are_documented(machine: Machine) -> None:
    """After a conflict, publishes and a drill, with a cost: what is null or empty at other times has fields, too."""
    write_note(machine.database, "first")
    assert machine.cli("backup").returncode == 0
    machine.lose_disk()
    write_note(machine.database, "of another lineage")
    with machine.run(*CALM_APP, drill_interval="1s", interval="1s", stream="on") as process:
        process.wait_metric("sidecar_drills_total", 1, outcome="good")
        write_note(machine.database, "second")
        eventually(lambda: full(process), 30, "cost, history, listing and a problem are there")
        by_daemon = json.loads(process.http("/status")[1])
        assert process.terminate() == 0
    shown = {"status": [by_daemon], "list": []}
    for arguments in (("status",), ("list",), ("list", "--diverged")):
        shown[arguments[0]].append(json.loads(machine.cli(*arguments, "--json").stdout))
        assert shown[arguments[0]][-1]["databases"][0].get("restore_points") != []
    for command, answers in shown.items():
        assert undocumented(command, answers) == set()
        assert documented(command) - fields(answers) == set()


def full(process: SidecarProcess) -> bool:
    """Whether everything that may be null or empty in /status is not."""
    shown = json.loads(process.http("/status")[1])
    database = shown["databases"][0]
    listing = database["listing"]
    return bool(shown["cost"] and shown["problems"] and database["history"] and listing and listing["oldest"])
