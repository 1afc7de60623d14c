"""`sidecar diff` between restore points, the newest state and the live database; test_diff_command.py has what it prints."""

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, write_note
from tests.harness.database_states import connect
from tests.harness.sidecar_process import SIDECAR


@pytest.mark.s3
def test_states_in_a_store_and_the_live_database_are_compared(machine: Machine) -> None:
    """
    1. Two restore points; then a row is written, and the database stays open in WAL mode.
    2. What would be lost is that row; between the restore points another one differs.
    Result: the status is 1, and nothing is left behind.
    """
    write_note(machine.database, "first")
    machine.publish()
    write_note(machine.database, "second")
    machine.publish()
    with closing(connect(machine.database)) as app:
        app.execute("INSERT INTO notes VALUES ('third')")
        lost = machine.cli("diff")
    assert (lost.returncode, lost.stderr) == (1, "")
    assert lost.stdout.splitlines()[-1] == "+ text 'third'"
    between = machine.cli("diff", "newest~1", "newest", "--json")
    assert (between.returncode, between.stderr) == (1, "")
    row, summary = map(json.loads, between.stdout.splitlines())
    assert row["after"] == {"text": "second"}
    assert summary["differing_chunks"] == 1
    assert machine.leftovers() == []


def test_a_reader_that_has_seen_enough_changes_nothing_about_the_status(tmp_path: Path) -> None:
    """`sidecar diff … | head -1`"""
    for name, rows in (("old.db", 1), ("new.db", 5000)):
        with closing(connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE t(a)")
            connection.executemany("INSERT INTO t VALUES (?)", [("x" * 50,)] * rows)
    command = [*SIDECAR, "diff", str(tmp_path / "old.db"), str(tmp_path / "new.db"), "--limit", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith(b"new.db")
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 1)


@pytest.mark.s3
def test_the_log_says_what_changed_when(machine: Machine) -> None:
    """Two restore points and a live database, as text and as JSON; a key of the log is a state of `sidecar diff`."""
    for note in ("first", "second"):
        write_note(machine.database, note)
        machine.publish()
    write_note(machine.database, "third")
    shown = machine.cli("log")
    assert (shown.returncode, shown.stderr) == (0, "")
    head, live, newest, first = shown.stdout.splitlines()
    assert head == f"{machine.database.name}   2 restore points"
    assert live.split() == ["live", "notes", "+1"]
    assert newest.endswith("notes +1")
    assert first.endswith("the oldest one")
    points = [json.loads(line) for line in machine.cli("log", "--json", "--limit", "1").stdout.splitlines()]
    assert [each["changes"]["tables"][0]["added"] for each in points] == [1, 1]
    assert newest.startswith(points[1]["state"])
    assert machine.cli("diff", points[1]["since"], points[1]["state"], "--summary").returncode == 1
    misspelled = machine.cli("log", "--table", "note")
    assert (misspelled.returncode, "has no table note" in misspelled.stderr) == (64, True)
    refused = machine.cli("log", "--table", "notes", "--row", "1")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "notes has no primary key" in refused.stderr
    assert machine.leftovers() == []


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files, which is met while rows are matched. Nothing is left, in no thread either."""
    for name, rows in (("old.db", 1), ("new.db", 500)):
        with closing(connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE t(a)")
            connection.executemany("INSERT INTO t VALUES (randomblob(5000))", [()] * rows)
    scratch = tmp_path / "t"
    scratch.mkdir()
    command = ["prlimit", "--fsize=1000000", *SIDECAR, "diff", str(tmp_path / "old.db"), str(tmp_path / "new.db")]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(scratch)})
    assert (found.returncode, found.stdout, len(found.stderr.splitlines())) == (73, "", 1), found.stderr
    assert list(scratch.iterdir()) == []
