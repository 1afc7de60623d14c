"""A copy of the template does what a start of `python -m sidecar` does."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.processes import Child
from tests.harness.sidecar_process import SIDECAR
from tests.harness.template import Copied, start_of

STARTS: tuple[type[subprocess.Popen[bytes]], ...] = (subprocess.Popen, Copied)
APP = ("run", "--", "sh", "-c", "cat; pwd; env | grep -v TEST_PROCESS_MARK; exit 3")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Enough for every command; the clock of Tonga, which is ahead of all others."""
    return clean_environment(
        tmp_path,
        SIDECAR_DATABASES="app.db",
        SIDECAR_STORE=f"file://{tmp_path}/store",
        SIDECAR_LISTEN="off",
        SIDECAR_LEASE="off",
        TZ="Pacific/Tongatapu",
    )


@pytest.mark.parametrize("arguments", [("--version",), ("nonsense",), ("list",), APP], ids=lambda each: each[0])
def test_a_copy_says_what_a_start_says(arguments: tuple[str, ...], environment: dict[str, str], tmp_path: Path) -> None:
    """Status, output, directory, environment, and what comes from standard input."""
    seen = []
    for start in STARTS:
        pipe = subprocess.PIPE
        child = Child(
            [*SIDECAR, *arguments], environment, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, start=start
        )
        out, err = child.popen.communicate(b"typed\n", 60)
        complaints = [line for line in err.splitlines() if line.startswith(b"sidecar: ")]
        seen.append((child.popen.returncode, sorted(out.splitlines()), complaints))
        child.kill()
    assert seen[0] == seen[1]
    assert seen[0][0] == {"--version": 0, "nonsense": 64, "list": 0, "run": 3}[arguments[0]]


def test_a_copy_is_a_process_of_its_own(environment: dict[str, str], tmp_path: Path) -> None:
    """Our child, with a session; a signal ends it, and no other; nothing of it is left."""
    argv = [*SIDECAR, "run", "--", "sleep", "60"]
    children = [
        Child(argv, {**environment, "SIDECAR_DATABASES": f"{number}.db"}, cwd=tmp_path, start=Copied)
        for number in range(2)
    ]
    for child in children:
        assert os.getsid(child.pid) == child.pid
        assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{child.pid}/status").read_text()
        eventually(lambda child=child: len(child.family()) == 2, 30, "the app runs")  # type: ignore[misc]
    os.kill(children[0].pid, signal.SIGTERM)
    assert children[0].popen.wait(30) == 143
    assert children[0].family() == []
    assert children[1].running
    for child in children:
        child.kill()
        assert child.family() == []


def test_what_an_interpreter_reads_from_its_environment_is_no_copy(environment: dict[str, str]) -> None:
    assert start_of([*SIDECAR, "list"], environment) is Copied
    for name in ("PYTHONOPTIMIZE", "LD_PRELOAD", "LC_ALL"):
        assert start_of([*SIDECAR, "list"], environment | {name: "1"}) is subprocess.Popen
    assert start_of([*SIDECAR, "list"], {**environment, "LANG": "C"}) is subprocess.Popen
    assert start_of(["unshare", *SIDECAR, "list"], environment) is subprocess.Popen
