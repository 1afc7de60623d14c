"""What /proc says of our descendants: who has a database open, who only seems dead, who ignores a signal."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.host import process_table
from sidecar.host.descendants import Process
from sidecar.host.process_table import Proc, having_open, read
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.processes import Child

OPENS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
print("open", flush=True)
sys.stdin.read()
"""
FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("open", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit(2): this thread alone
"""


@contextmanager
def running(script: str, *arguments: str, directory: Path) -> Iterator[Child]:
    """A Python process that has printed `open`."""
    pipe = subprocess.PIPE
    child = Child([sys.executable, "-c", script, *arguments], clean_environment(directory), stdin=pipe, stdout=pipe)
    try:
        assert child.popen.stdout is not None
        assert child.popen.stdout.readline() == b"open\n"
        yield child
    finally:
        child.kill()


def process(pid: int) -> Process:
    """A process that lives."""
    found = read(pid)
    assert found is not None
    return found


@pytest.mark.parametrize("way", ["descriptors", "locks"])
def test_process_that_has_a_database_open_is_found(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its descriptors; or by SQLite's locks, where another user's descriptors may not be looked at."""
    if way == "locks":
        monkeypatch.setattr(process_table, "has_open", lambda _pid, _wanted: False)
    else:
        monkeypatch.setattr(process_table, "_lock_owners", lambda _inodes: set())
    database, other = tmp_path / "app.db", tmp_path / "other.db"
    with (
        running(OPENS, str(database), directory=tmp_path) as one,
        running(OPENS, str(other), directory=tmp_path) as two,
    ):
        both = [process(one.pid), process(two.pid)]
        assert having_open(both, [database]) == both[:1]
        assert having_open(both, [tmp_path / "app.db-wal"]) == (both[:1] if way == "descriptors" else [])
        assert having_open(both, [other, database]) == both
        assert having_open(both, [tmp_path / "missing.db"]) == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="uses the number of a system call")
def test_process_lives_until_its_last_thread_ends(tmp_path: Path) -> None:
    """The first thread has ended: the kernel calls it a zombie, and the others go on writing."""
    with running(FIRST_THREAD_ENDS, directory=tmp_path) as child:
        eventually(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text(), 10, "the first thread has ended")
        assert read(child.pid) is not None
        child.popen.kill()
        eventually(lambda: read(child.pid) is None, 10, "the process is dead, though nobody has reaped it")


def test_ignored_signals_are_known(tmp_path: Path) -> None:
    """A shell's background job ignores SIGINT and SIGQUIT; these tests may run in one."""
    script = "import signal; signal.signal(2, signal.SIG_IGN); signal.signal(3, signal.SIG_DFL); print('open', flush=True); signal.pause()"
    with running(script, directory=tmp_path) as child:
        ignored = [number for number in (1, 2, 3, 15, 37) if Proc().is_ignored(process(child.pid), number)]
        assert ignored == [signal.SIGINT]


@pytest.mark.parametrize("without_descriptors", [False, True], ids=["pidfd", "kill"])
def test_signal_reaches_only_the_process_that_is_meant(
    without_descriptors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id may be another process's by now: the time of its start tells. A sandbox may lack pidfd_open(2)."""

    def refused(_pid: int) -> int:
        raise PermissionError

    if without_descriptors:
        monkeypatch.setattr(os, "pidfd_open", refused)
    with running(OPENS, str(tmp_path / "app.db"), directory=tmp_path) as child:
        meant = process(child.pid)
        Proc().send(Process(meant.pid, meant.started - 1), signal.SIGKILL)
        assert child.running
        Proc().send(meant, signal.SIGTERM)
        assert child.popen.wait(10) == -signal.SIGTERM
        Proc().send(meant, signal.SIGTERM)


def test_ids_of_another_namespace_are_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`unshare --pid --fork` without --mount-proc: the descendants of process 1 in /proc would be all of the machine's."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with capture_logs() as logs:
        assert not process_table.become_subreaper()
    assert "another PID namespace" in logs[0]["event"]


def test_own_descendants_are_found_parents_first(tmp_path: Path) -> None:
    """This process's; the name may have spaces and brackets."""
    odd = tmp_path / "a) Z (b"
    odd.symlink_to("/bin/sleep")
    command: Sequence[str] = ["sh", "-c", f"'{odd}' 60 & wait"]
    child = Child(command, clean_environment(tmp_path))
    try:
        found = eventually(
            lambda: (
                [each for each in Proc().descendants() if each.pid == child.pid or each.parent == child.pid][1:]
                and [each for each in Proc().descendants() if child.pid in (each.pid, each.parent)]
            ),
            10,
            "both are there",
        )
        assert found[0].pid == child.pid
        eventually(lambda: process(found[1].pid).name == "a) Z (b", 10, "it has its name")
        assert not Proc().is_childless()
    finally:
        child.kill()
