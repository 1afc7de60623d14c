"""Child processes that cannot outlive the tests.

Every child leads its own session and has a mark in its environment, which its descendants inherit. Killing a child kills
every process with its mark, even one that has left the process group. A separate guardian process does the same when the
test run dies without a chance to clean up: it notices because its standard input closes. (Linux's parent death signal is
not suitable: it is sent when the *thread* that started the child ends.)

Run as a script, this file is the guardian.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

MARK = "TEST_PROCESS_MARK"

Stream: TypeAlias = int | IO[bytes] | None


class Child:
    """A started process and all its descendants."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        start: type[subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self.mark = uuid.uuid4().hex
        marked = {**env, MARK: self.mark}
        self.popen: subprocess.Popen[bytes] = start(
            argv, env=marked, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        _guardian.watch(self.popen.pid, self.mark)

    @property
    def pid(self) -> int:
        """The process id; the process leads its own session and group."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """True until the process itself has ended."""
        return self.popen.poll() is None

    def family(self) -> list[int]:
        """The ids of the process and of all living descendants, orphans included (needs /proc)."""
        own = [self.pid] if self.running else []  # a copy of a process (`template`) has the mark of that in /proc
        return [*own, *(pid for pid in marked(self.mark) if pid not in own)]

    def kill_all(self) -> None:
        """Send SIGKILL to the process and its descendants; its pipes stay open, so that they can still be read."""
        if self.running:
            kill_group(self.pid)
        kill_marked(self.mark)

    def kill(self) -> None:
        """Send SIGKILL to the process and its descendants, and wait until they are gone. Idempotent."""
        self.kill_all()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()
        _guardian.forget(self.popen.pid, self.mark)


def shell_status(returncode: int) -> int:
    """The exit status as a shell reports it: 128+n for death by signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def kill_group(group: int) -> None:
    """Send SIGKILL to a process group, if it exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def kill_marked(mark: str, timeout: float = 5.0) -> None:
    """Send SIGKILL to every process that has `mark`, until none is left; does nothing without /proc."""
    deadline = time.monotonic() + timeout
    while (found := marked(mark)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def marked(mark: str) -> list[int]:
    """The ids of all living processes that have `mark`."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


class _Guardian:
    """Our end of the guardian process, started with the first child."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int, mark: str) -> None:
        self._tell(f"+ {pid} {mark}\n")

    def forget(self, pid: int, mark: str) -> None:
        self._tell(f"- {pid} {mark}\n")

    def _tell(self, line: str) -> None:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(line.encode())
        process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self._stop, self._process)
        return self._process

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


_guardian = _Guardian()


def _guard() -> None:
    """Keep a list of living children; when standard input closes, kill the remaining ones."""
    living: set[tuple[int, str]] = set()
    for line in sys.stdin:
        verb, pid, mark = line.split()
        if verb == "+":
            living.add((int(pid), mark))
        else:
            living.discard((int(pid), mark))
    for group, mark in living:
        kill_group(group)
        kill_marked(mark)


if __name__ == "__main__":
    _guard()
