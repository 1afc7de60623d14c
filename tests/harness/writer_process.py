"""Writers (see writers.py) as processes under the control of a test."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.harness.eventually import eventually
from tests.harness.processes import Child, shell_status
from tests.harness.writers import SCRIPT


def writer_command(database: Path, *options: str) -> list[str]:
    """The command line of a writer, for example as the app of `sidecar run --`."""
    return [sys.executable, str(SCRIPT), str(database), *options]


def last_ack(acks: Path) -> int:
    """The last number in a file of acknowledged commits; 0 if there is none. An incomplete last line does not count."""
    lines = acks.read_bytes().split(b"\n")[:-1] if acks.exists() else []
    return int(lines[-1]) if lines else 0


class WriterProcess:
    """A writer in its own process. A context manager that kills it at the end."""

    def __init__(self, database: Path, *options: str, env: Mapping[str, str], directory: Path) -> None:
        name = f"writer-{uuid.uuid4().hex[:8]}"
        self.acks = directory / f"{name}.acks"
        self._errors = directory / f"{name}.stderr"
        self._command = writer_command(database, "--acks", str(self.acks), *options)
        self._env = env
        self._child: Child | None = None

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._child = Child(self._command, self._env, stdout=subprocess.DEVNULL, stderr=errors)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def child(self) -> Child:
        """The started process."""
        assert self._child is not None, "not started"
        return self._child

    def acked(self) -> int:
        """The last number whose commit was acknowledged."""
        return last_ack(self.acks)

    def wait_acked(self, number: int, timeout: float = 30.0) -> int:
        """Wait until `acked` is at least `number`, and return it."""

        def reached() -> int | None:
            running, acked = self.child.running, self.acked()
            assert running or acked >= number, f"the writer ended after {acked}:\n{self._errors.read_text()}"
            return acked if acked >= number else None

        return eventually(reached, timeout, f"the writer commits number {number}")

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM, and return the exit status as a shell reports it."""
        if self.child.running:
            os.kill(self.child.pid, signal.SIGTERM)
        return shell_status(self.child.popen.wait(timeout))

    def kill(self) -> None:
        """Send SIGKILL, no matter what the writer is doing. Idempotent."""
        if self._child is not None:
            self._child.kill()
