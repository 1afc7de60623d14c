"""A machine of the tour: a directory, `sidecar run` in it, and the guestbook that it runs.

Everything is bounded in time and raises `TourFailed` with a reason. No process outlives `boot`.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

DATABASE = "guestbook.db"

_BOOT_SECONDS = 60.0
_STOP_SECONDS = 60.0
_GIVE_UP_SECONDS = 10.0
_COMMAND_SECONDS = 60.0
_REQUEST_SECONDS = 10.0
# AWS keys, proxies and SIDECAR_ settings in the user's environment must not change what the tour shows.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
_READY = re.compile(r"^guestbook listening on http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^sidecar_backups_total\{([^}]*)\} (\S+)$", re.MULTILINE)

T = TypeVar("T")


class TourFailed(Exception):
    """The tour cannot continue; the message says why."""


class Unreachable(TourFailed):
    """Nothing answers on this port, or not with HTTP, or not in time."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """The temporary directory of one tour: the store, the machines' directories and their logs."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def logs(self) -> list[Path]:
        return sorted(self.root.glob("*.log"))

    def environment(self, **more: str) -> dict[str, str]:
        """The whole environment of a child."""
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {**passed_on, "PYTHONUNBUFFERED": "1", **more}

    def run(self, *command: str) -> str:
        """Run a command and return its stdout. Raises `TourFailed` when it fails or takes too long."""
        environment = self.environment()
        try:
            done = subprocess.run(  # noqa: S603 - commands of the tour itself
                command,
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TourFailed(f"`{format_command(command)}` took more than {_COMMAND_SECONDS:.0f} s") from error
        if done.returncode != 0:
            raise TourFailed(
                f"`{format_command(command)}` exited with status {done.returncode}: {done.stderr.strip()[-2000:]}"
            )
        return done.stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine. Its guestbook listens on `port`, its sidecar on `sidecar_port`."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    sidecar_port: int
    boot_seconds: float

    def published(self) -> int:
        """The number of restore points that its sidecar has published, from its metrics."""
        metrics = ask(self.sidecar_port, "GET", "/metrics").body.decode()
        wanted = {f'database="{DATABASE}"', 'outcome="published"'}
        return sum(int(float(value)) for labels, value in _SAMPLE.findall(metrics) if wanted <= set(labels.split(",")))

    def wait_for_publish_after(self, earlier: int, *, seconds: float = 60.0) -> int:
        """Wait until more than `earlier` restore points are published, and return their number."""

        def more() -> int | None:
            now = self.published()
            return now if now > earlier else None

        return wait_for("a restore point", more, self.process, seconds=seconds)

    def stop(self) -> int:
        """Send SIGTERM to sidecar and return its exit status, as a shell reports it."""
        self.process.terminate()
        try:
            status = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TourFailed(f"sidecar did not stop within {_STOP_SECONDS:.0f} s after SIGTERM") from error
        return status if status >= 0 else 128 - status

    def destroy(self) -> None:
        """Delete the machine's directory, as if its disk were lost."""
        shutil.rmtree(self.directory)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, read to its end."""

    status: int
    body: bytes


def ask(port: int, method: str, path: str, document: object = None) -> Reply:
    """Send one request to a port of 127.0.0.1, without any proxy. Raises `Unreachable`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
    body = None if document is None else json.dumps(document)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return Reply(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{method} http://127.0.0.1:{port}{path}: {error!r}") from error
    finally:
        connection.close()


def _run_command(directory: Path, store: Path, sidecar_port: int) -> list[str]:
    """The command line that a machine boots with."""
    return [
        *(sys.executable, "-m", "sidecar", "run", "--database", str(directory / DATABASE), "--store", store.as_uri()),
        *("--interval", "5s", "--listen", f"127.0.0.1:{sidecar_port}", "--", sys.executable, "-m", "sidecar.demo"),
    ]


def format_command(command: tuple[str, ...] | list[str]) -> str:
    """Format a command as a person would type it."""
    return " ".join(command).replace(f"{sys.executable} -m sidecar ", "sidecar ").replace(sys.executable, "python")


@contextlib.contextmanager
def boot(workshop: Workshop, name: str, announce: Callable[[str], None]) -> Iterator[Machine]:
    """Start a machine in a new directory and yield it when it is ready. At the end none of its processes is left.

    `announce` is called with the command line before it runs.
    """
    directory = workshop.root / name
    directory.mkdir()
    sidecar_port = _free_port()
    command = _run_command(directory, workshop.store, sidecar_port)
    announce(format_command(command))
    log = workshop.root / f"{name}.log"
    started = time.monotonic()
    process = _spawn(workshop, directory, log, command)
    try:
        port = wait_for("the guestbook's ready line", lambda: _ready_port(log), process, seconds=_BOOT_SECONDS)
        wait_for("GET /readyz to answer with 200", lambda: _is_ready(sidecar_port), process, seconds=_BOOT_SECONDS)
        yield Machine(directory, process, port, sidecar_port, time.monotonic() - started)
    finally:
        _end(process, workshop)


def _spawn(workshop: Workshop, directory: Path, log: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - commands of the tour itself
            command,
            # Not the current directory: a sidecar.toml there would be read.
            cwd=directory,
            env=workshop.environment(GUESTBOOK_DB=str(directory / DATABASE), GUESTBOOK_PORT="0"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches only the tour, which then stops everything cleanly.
            start_new_session=True,
        )


def _ready_port(log: Path) -> int | None:
    line = _READY.search(log.read_text(errors="replace"))
    return int(line[1]) if line else None


def _is_ready(sidecar_port: int) -> bool | None:
    return True if ask(sidecar_port, "GET", "/readyz").status == http.client.OK else None


def wait_for(what: str, look: Callable[[], T | None], process: subprocess.Popen[bytes], *, seconds: float) -> T:
    """Call `look` until it returns something, and return that; `Unreachable` counts as nothing.

    Raises `TourFailed` when the process ends or time runs out.
    """
    deadline = time.monotonic() + seconds
    while True:
        # Polled first: what a process did just before it ended still counts.
        status = process.poll()
        with contextlib.suppress(Unreachable):
            found = look()
            if found is not None:
                return found
        if status is not None:
            raise TourFailed(f"sidecar exited with status {status} while the tour waited for {what}")
        if time.monotonic() > deadline:
            raise TourFailed(f"waited {seconds:.0f} s for {what}, in vain")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes], workshop: Workshop) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GIVE_UP_SECONDS)
    finally:  # also when a second Ctrl-C cuts the wait short
        process.kill()
        process.wait(_GIVE_UP_SECONDS)
        end_strays(workshop)


def end_strays(workshop: Workshop) -> None:
    """Kill orphaned processes of this tour. Works on Linux only: other systems have no /proc to search."""
    mark = f"GUESTBOOK_DB={workshop.root}/".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # another user's process, or one that has ended
            if mark in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)
