"""The real command line in real processes."""

import http.client
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.processes import Child, shell_status
from tests.harness.template import start_of

__all__ = ["SIDECAR", "SidecarProcess", "free_port", "run_cli"]

# It can be replaced by another program, so that the end-to-end tests test the bundle (tests/e2e/test_bundle.py).
_OTHER = os.environ.get("PROGRAM_UNDER_TEST")
SIDECAR = (str(Path(_OTHER).resolve()),) if _OTHER else (sys.executable, "-m", "sidecar")

_TAIL = 8000


class SidecarProcess:
    """`sidecar ARGS` as a child, with its output in files in `directory`. A context manager.

    It listens on a free loopback port (`port`), set by SIDECAR_LISTEN, unless `env` or `args` name an address; `prefix` is
    put before the command, for example `unshare --pid --fork`.
    """

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str],
        directory: Path,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = SIDECAR,
    ) -> None:
        listen = _listen(args, env) or f"{LOOPBACK}:{free_port()}"
        name = f"sidecar-{uuid.uuid4().hex[:8]}"
        self.port = int(listen.rpartition(":")[2]) if listen != "off" else 0
        self._argv = [*prefix, *program, *args]
        self._env = {"SIDECAR_LISTEN": listen, **env}
        self._cwd = cwd or directory
        self._stdout, self._stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.kill()
        if kind is not None:
            print(self.report(), file=sys.stderr)

    def start(self) -> Self:
        """Start the process; returns at once."""
        assert self._child is None, "already started; create another SidecarProcess"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            start = start_of(self._argv, self._env)
            self._child = Child(self._argv, self._env, cwd=self._cwd, stdout=stdout, stderr=stderr, start=start)
        return self

    @property
    def child(self) -> Child:
        """The started process."""
        assert self._child is not None, "not started"
        return self._child

    @property
    def pid(self) -> int:
        """The process id (of `prefix`, if there is one)."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self.child.running

    def wait(self, timeout: float = 30.0) -> int:
        """The exit status as a shell reports it (128+n for a signal); AssertionError after `timeout` seconds."""
        try:
            return shell_status(self.child.popen.wait(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s\n{self.report()}") from None

    def signal(self, number: int) -> None:
        """Send a signal only to the process, not to its group."""
        os.kill(self.pid, number)

    def terminate(self, timeout: float = 30.0) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """Send SIGKILL to the process and all its descendants, as if the machine were lost. Idempotent."""
        if self._child is not None:
            self._child.kill()

    def family(self) -> list[int]:
        """The ids of the process and of all living descendants, orphans included (needs /proc)."""
        return self.child.family()

    def http(self, path: str, timeout: float = 30.0) -> tuple[int, str]:
        """Status and body of a GET; OSError while nothing listens. A busy machine may take seconds for it."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return once /readyz replies 200; AssertionError if the process ends or the time is up."""
        self._await(lambda: self._status("/readyz") == 200, timeout, "/readyz answers 200")

    def wait_for_log(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """The first match of a regular expression in the output, which must come within `timeout` seconds."""
        match: list[re.Match[str]] = []

        def found() -> bool:
            match.extend(re.finditer(pattern, self.output()))
            return bool(match)

        self._await(found, timeout, f"the output matches {pattern!r}")
        return match[0]

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the samples called `name` that have `labels`; None if there are none."""
        status, text = self.http("/metrics")
        assert status == 200, f"/metrics answers {status}: {text}"
        values = [value for found, value in _samples(text, name) if labels.items() <= found.items()]
        return sum(values) if values else None

    def wait_metric(self, name: str, at_least: float, timeout: float = 30.0, **labels: str) -> float:
        """The value of a metric, once it is `at_least` that high."""
        values: list[float] = []

        def reached() -> bool:
            values.append(self._metric_or_zero(name, labels))
            return values[-1] >= at_least

        self._await(reached, timeout, f"{name}{labels or ''} >= {at_least:g}")
        return values[-1]

    def stdout(self) -> str:
        """Everything written to stdout so far."""
        return _read(self._stdout)

    def stderr(self) -> str:
        """Everything written to stderr so far."""
        return _read(self._stderr)

    def output(self) -> str:
        """Stdout, then stderr."""
        return self.stdout() + self.stderr()

    def report(self) -> str:
        """The command and the ends of its output, for a failed test."""
        out, err = self.stdout()[-_TAIL:], self.stderr()[-_TAIL:]
        return f"--- {' '.join(self._argv)}\n--- stdout\n{out}\n--- stderr\n{err}"

    def _status(self, path: str) -> int | None:
        try:
            return self.http(path)[0]
        except (OSError, http.client.HTTPException):
            return None

    def _metric_or_zero(self, name: str, labels: Mapping[str, str]) -> float:
        try:
            return self.metric(name, **labels) or 0.0
        except (OSError, http.client.HTTPException):
            return 0.0

    def _await(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Like `eventually`, but fail at once if the process ends before the condition is true."""

        def settled() -> str | None:
            ended = not self.running  # first: what the process did before it ended still counts
            if condition():
                return "true"
            return "ended" if ended else None

        try:
            outcome = eventually(settled, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None
        assert outcome == "true", f"ended with {self.wait(0)} before {what}\n{self.report()}"


def run_cli(
    *args: str,
    env: Mapping[str, str],
    timeout: float = 60.0,
    cwd: Path | None = None,
    stdin: bytes = b"",
    program: Sequence[str] = SIDECAR,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; `returncode` is as a shell reports it. AssertionError after `timeout` seconds.

    It listens nowhere unless `env` or `args` name an address: its own port may be in use here.
    """
    pipe = subprocess.PIPE
    env = {**env, "SIDECAR_LISTEN": _listen(args, env) or "off"}
    argv = [*program, *args]
    child = Child(argv, env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, start=start_of(argv, env))
    try:
        out, err = child.popen.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        child.kill_all()
        out, err = child.popen.communicate()
        raise AssertionError(f"{args} took more than {timeout:g} s\n{out.decode()}\n{err.decode()}") from None
    finally:
        child.kill()
    return subprocess.CompletedProcess(
        child.popen.args, shell_status(child.popen.returncode), out.decode(), err.decode()
    )


def _listen(args: Sequence[str], env: Mapping[str, str]) -> str | None:
    """The address to listen on, from the command line or the environment; arguments after `--` belong to the app."""
    own = args[: args.index("--")] if "--" in args else args
    for option, value in pairwise([*own, ""]):
        if option == "--listen":
            return value
        if option.startswith("--listen="):
            return option.removeprefix("--listen=")
    return env.get("SIDECAR_LISTEN")


def _samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Only lines that can be a sample of `name` are parsed: tests ask up to fifty times a second."""
    lines = "".join(line for line in text.splitlines(keepends=True) if line.startswith(name))
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels, sample.value


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
