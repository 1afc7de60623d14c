"""A machine of the tour: a directory, `sidecar run` in it, and the guestbook which that runs.

Everything here is bounded in time and ends in `TourFailed` with a reason, and no process outlives `boot`.
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
# An AWS key, a proxy or a SIDECAR_ setting of whoever runs the tour must not change what it shows.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
_READY = re.compile(r"^guestbook listening on http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^sidecar_backups_total\{([^}]*)\} (\S+)$", re.MULTILINE)

T = TypeVar("T")


class TourFailed(Exception):
    """The tour cannot go on; the message says why."""


class Unreachable(TourFailed):
    """Nobody answers at this port, or not in HTTP, or not in time."""


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
        """What a command prints on stdout. Raises `TourFailed` when it fails or takes too long."""
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
            raise TourFailed(f"`{spoken(command)}` took more than {_COMMAND_SECONDS:.0f} s") from error
        if done.returncode != 0:
            raise TourFailed(f"`{spoken(command)}` ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine whose guestbook answers at `port`, and its sidecar at `sidecar_port`."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    sidecar_port: int
    boot_seconds: float

    def published(self) -> int:
        """How many restore points its sidecar says it has published."""
        metrics = ask(self.sidecar_port, "GET", "/metrics").body.decode()
        wanted = {f'database="{DATABASE}"', 'outcome="published"'}
        return sum(int(float(value)) for labels, value in _SAMPLE.findall(metrics) if wanted <= set(labels.split(",")))

    def wait_for_publish_after(self, earlier: int, *, seconds: float = 60.0) -> int:
        """How many are published once there are more than `earlier`."""

        def more() -> int | None:
            now = self.published()
            return now if now > earlier else None

        return wait_for("a restore point", more, self.process, seconds=seconds)

    def stop(self) -> int:
        """SIGTERM to the sidecar; its exit status, as a shell would say it."""
        self.process.terminate()
        try:
            status = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TourFailed(f"sidecar had not stopped {_STOP_SECONDS:.0f} s after SIGTERM") from error
        return status if status >= 0 else 128 - status

    def destroy(self) -> None:
        """Lose the machine's disk."""
        shutil.rmtree(self.directory)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, read to its end."""

    status: int
    body: bytes


def ask(port: int, method: str, path: str, document: object = None) -> Reply:
    """One request to a port of 127.0.0.1, past any proxy. Raises `Unreachable`."""
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


def spoken(command: tuple[str, ...] | list[str]) -> str:
    """A command as a person would type it."""
    return " ".join(command).replace(f"{sys.executable} -m sidecar ", "sidecar ").replace(sys.executable, "python")


@contextlib.contextmanager
def boot(workshop: Workshop, name: str, announce: Callable[[str], None]) -> Iterator[Machine]:
    """A machine that is ready for requests, in a fresh directory. None of its processes is left at the end.

    `announce` is told the command line before it runs.
    """
    directory = workshop.root / name
    directory.mkdir()
    sidecar_port = _free_port()
    command = _run_command(directory, workshop.store, sidecar_port)
    announce(spoken(command))
    log = workshop.root / f"{name}.log"
    started = time.monotonic()
    process = _spawn(workshop, directory, log, command)
    try:
        port = wait_for("the guestbook's ready line", lambda: _ready_port(log), process, seconds=_BOOT_SECONDS)
        wait_for("GET /readyz to say 200", lambda: _is_ready(sidecar_port), process, seconds=_BOOT_SECONDS)
        yield Machine(directory, process, port, sidecar_port, time.monotonic() - started)
    finally:
        _end(process, workshop)


def _spawn(workshop: Workshop, directory: Path, log: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - commands of the tour itself
            command,
            # Not the caller's directory: a sidecar.toml there would be read.
            cwd=directory,
            env=workshop.environment(GUESTBOOK_DB=str(directory / DATABASE), GUESTBOOK_PORT="0"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the tour alone, which then stops the rest in order.
            start_new_session=True,
        )


def _ready_port(log: Path) -> int | None:
    line = _READY.search(log.read_text(errors="replace"))
    return int(line[1]) if line else None


def _is_ready(sidecar_port: int) -> bool | None:
    return True if ask(sidecar_port, "GET", "/readyz").status == http.client.OK else None


def wait_for(what: str, look: Callable[[], T | None], process: subprocess.Popen[bytes], *, seconds: float) -> T:
    """What `look` finds, as soon as it finds anything; while it raises `Unreachable` it has found nothing.

    Raises `TourFailed` if the process ends or time runs out.
    """
    deadline = time.monotonic() + seconds
    while True:
        # Asked first: what a process did just before its end still counts.
        status = process.poll()
        with contextlib.suppress(Unreachable):
            found = look()
            if found is not None:
                return found
        if status is not None:
            raise TourFailed(f"sidecar ended with status {status} before there was {what}")
        if time.monotonic() > deadline:
            raise TourFailed(f"waited {seconds:.0f} s in vain for {what}")
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
    """Kill processes of this tour that lost their parent. Linux only: elsewhere there is no /proc to search."""
    mark = f"GUESTBOOK_DB={workshop.root}/".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # somebody else's, or gone already
            if mark in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)
