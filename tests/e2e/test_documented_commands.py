"""The shell commands of docs/ and README, run as they stand there, with a directory as the store."""

import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from tests.docs import EVERY_PAGE
from tests.docs.commands import SHELL, command_lines
from tests.docs.markdown import Fence, Page
from tests.e2e.machine import Machine, write_note
from tests.harness.sidecar_process import SIDECAR

# What can be run anywhere. A fence with another program, or with a bucket, is only parsed (tests/docs/test_commands.py).
_PROGRAMS = {"sidecar", "sqlite3", "mkdir", "rm", "export", "jq", "zstd"}
# Nor what names a table of an example, needs an earlier command, or is ended by Ctrl-C.
_ELSEWHERE = ("s3://", "--table ", "--undo", "sidecar browse")
_SQL = "CREATE TABLE IF NOT EXISTS note (text); INSERT INTO note VALUES ('typed into the shell'); SELECT * FROM note;\n"


def _can_run(page: Page, fence: Fence) -> bool:
    if fence.language not in SHELL or any(each in fence.text for each in _ELSEWHERE):
        return False
    programs = _programs(page, fence)
    return "sidecar" in programs and programs <= _PROGRAMS


def _programs(page: Page, fence: Fence) -> set[str]:
    return {line.words[0] for line in command_lines(page) if line.where == fence.where and line.words}


FENCES = {
    fence.text: (fence, _programs(page, fence))
    for page in map(Page, EVERY_PAGE)
    for fence in page.fences
    if _can_run(page, fence)
}.values()


@pytest.mark.parametrize(("fence", "programs"), FENCES, ids=[fence.where for fence, _ in FENCES])
def test_the_commands_do_what_they_are_documented_for(fence: Fence, programs: set[str], local: Machine) -> None:
    """
    1. There is a restore point, and the database it is of; not on another computer (`restore --database ./app.db`).
    2. The fence is run by bash, which ends with the first failure.
    Result: every command succeeds, and what was written is there.
    """
    if "jq" in programs and not shutil.which("jq"):
        pytest.skip("no jq here")
    write_note(local.database, "first")
    assert local.publish() == "published"
    (key,) = [str(file.relative_to(local / "store")) for file in (local / "store" / "app.db").glob("*.zst")]
    if "sidecar restore --database ./" in fence.text:
        local.lose_disk()
    done = _bash(_substituted(fence.text, key, local), local)
    assert done.returncode == 0, done.stdout + done.stderr
    if "sqlite3 /tmp/try" in fence.text:
        assert "INSERT INTO note VALUES('typed into the shell')" in done.stdout


def test_many_fences_are_run() -> None:
    """Were none found, nothing above would fail."""
    assert len(FENCES) >= 8


def _substituted(script: str, key: str, machine: Machine) -> str:
    """A key, a time and a directory that exist here, in the place of those in the text; the newest state in that of an age."""
    script = re.sub(r"(sidecar (?:diff|export) )\d+h\b", r"\1newest", script)
    script = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", datetime.now(UTC).isoformat(), script)
    return re.sub(r"\bKEY\b", key, script).replace("/tmp/try", str(machine / "try"))


def _bash(script: str, machine: Machine) -> subprocess.CompletedProcess[str]:
    """In the machine's data directory; `sidecar` is the program under test."""
    program = machine / "bin"
    program.mkdir()
    (program / "sidecar").write_text(f'#!/bin/sh\nexec {shlex.join(SIDECAR)} "$@"\n')
    (program / "sidecar").chmod(0o755)
    env = {**machine.env, "SIDECAR_DATABASES": "app.db", "SIDECAR_STORE": machine.store, "SIDECAR_LISTEN": "off"}
    env["PATH"] = f"{program}:{env['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=machine.data,
        env=env,
        input=_SQL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
