"""docs/restore.md, "Go back to another restore point": its steps, as they stand there."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, write_note
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3


def elsewhere(machine: Machine, directory: Path) -> Machine:
    """Another machine with the same store, credentials and file name, and an empty directory."""
    (directory / "data").mkdir(parents=True)
    (directory / "logs").mkdir()
    return replace(machine, root=directory).with_env(FLY_MACHINE_ID="desk")


def test_going_back_where_sidecar_is_the_entrypoint(machine: Machine, seaweed: Seaweed, bucket: str) -> None:
    """
    1. The app makes a mistake, which is published. While the machine runs, nobody else can publish: 75 names it.
    2. It is stopped; elsewhere the older restore point becomes the newest. The start restores it.
    3. The mistake is kept, beside the database and in the store.
    """
    machine = machine.with_env(FLY_MACHINE_ID="m1")
    desk = elsewhere(machine, machine / "desk")
    write_note(machine.database, "right")
    with machine.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(machine.database, "a mistake")
        assert machine.cli("backup").returncode == 0
        wanted = seaweed.s3.restore_points(bucket)[0].removeprefix("shop/")
        assert desk.cli("restore", "--key", wanted).returncode == 0
        refused = desk.cli("backup")
        assert (refused.returncode, "is held by m1" in complaint(refused.stderr)) == (75, True)
        assert process.terminate() == 0
    assert notes(desk.database) == ["right"]
    assert "published" in desk.cli("backup").stdout
    with machine.run(*CALM_APP) as process:
        process.wait_ready()
        assert notes(machine.database) == ["right"]
        assert process.terminate() == 0
    (kept,) = [path for path in machine.data.glob("app.db.diverged-*Z") if path.is_file()]
    assert notes(kept) == ["right", "a mistake"]
    assert "m1" in machine.cli("list", "--diverged").stdout


def test_going_back_where_the_container_stays(machine: Machine, seaweed: Seaweed, bucket: str) -> None:
    """App and sidecar are stopped; what is replaced is kept beside it, and the next boot has nothing to decide."""
    for text in ("right", "a mistake"):
        write_note(machine.database, text)
        assert machine.cli("backup").returncode == 0
    wanted = seaweed.s3.restore_points(bucket)[0].removeprefix("shop/")
    assert machine.cli("restore", "--key", wanted, "--force").returncode == 0
    assert "published" in machine.cli("backup").stdout
    with machine.run(*CALM_APP) as process:
        process.wait_ready()
        assert notes(machine.database) == ["right"]
        assert process.terminate() == 0
    assert not list(machine.data.glob("*diverged*"))
    (kept,) = machine.data.glob("app.db.replaced-*Z")
    assert notes(kept) == ["right", "a mistake"]
