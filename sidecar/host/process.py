"""The app as a child process, and the reaping of all other children.

There is one reaper: it collects every dead child when SIGCHLD arrives, and passes the app's status on. So orphans that
this process inherits (as PID 1 or subreaper) never stay zombies, and nothing else can take the app's status. What our own
process starts, as the SDK does a `credential_process`, is left to whoever waits for it: it is in our process group.
"""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import anyio

from sidecar.errors import CommandNotExecutable, CommandNotFound
from sidecar.host.process_table import dead_children, is_of_our_group
from sidecar.host.runtime import given_limits
from sidecar.log import log
from sidecar.model import Account

POLL = 0.02
KILL_GRACE = 2.0  # for the kernel to end processes after SIGKILL
LEFT_SECONDS = 10.0  # for whoever has started a process to ask how it ended


class Reaper:
    """Collects dead children; `collect` is to be called at every SIGCHLD."""

    def __init__(self) -> None:
        self.adopted_status: int | None = None  # of the last adopted child that has ended, as a shell would say it
        self._watched: dict[int, App] = {}
        self._adopted: set[int] = set()
        self._left: dict[int, float] = {}  # dead children of our process group, and since when that is known

    def adopt(self, pids: Iterable[int]) -> None:
        """Keep the status of these as well, if they are our children when they end."""
        self._adopted.update(pids)

    def watch(self, app: "App") -> None:
        """Report the end of the app to this child, even if it has ended already."""
        self._watched[app.pid] = app
        self.collect()

    def collect(self) -> None:
        """Reap all dead children but helpers, without waiting."""
        while (dead := _next_dead()) and not self._is_left(dead):
            self._reap(dead)
        if dead:  # a helper is the first in the line: the others are found one by one
            zombies = [child for child in dead_children() if not self._is_left(child)]
            for child in zombies:
                self._reap(child)

    def _reap(self, child: int) -> None:
        try:
            pid, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            return
        self._left.pop(pid, None)
        if app := self._watched.pop(pid, None):  # once: the number may be given to another process
            app.ended(os.waitstatus_to_exitcode(status))
        elif pid in self._adopted:
            self._adopted.discard(pid)
            self.adopted_status = _shell_status(os.waitstatus_to_exitcode(status))

    def _is_left(self, child: int) -> bool:
        """Whether a dead child is left to whoever waits for it. If nobody does, it was an orphan, and is ours after all."""
        if child in self._watched or child in self._adopted or not is_of_our_group(child):
            return False
        now = time.monotonic()
        self._left = {pid: since for pid, since in self._left.items() if now - since < 2 * LEFT_SECONDS}
        return now - self._left.setdefault(child, now) < LEFT_SECONDS


class App:
    """Implements `Child`: a process in a group of its own, with our stdin, stdout and stderr."""

    def __init__(
        self,
        command: Sequence[str],
        reaper: Reaper,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> None:
        """Start the app, with our environment and user unless others are given.

        Raises `CommandNotFound` or `CommandNotExecutable`.
        """
        # Popen and not anyio.open_process: asyncio's own watcher would wait for the pid beside our reaper.
        with _translated(command), given_limits():
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                command,
                process_group=0,
                env=_environment_of(environment, account),
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=account.groups if account else None,
            )
        self.pid = self._process.pid
        self._over = anyio.Event()
        self._status = 0
        self._refused = False
        self._give_terminal()
        reaper.watch(self)

    def ended(self, returncode: int) -> None:
        """Called by the reaper; a negative code is a signal's number."""
        self._process.returncode = returncode
        self._status = _shell_status(returncode)
        self._over.set()

    async def wait(self) -> int:
        """See `Child`."""
        await self._over.wait()
        return self._status

    def signal(self, number: int) -> None:
        """See `Child`."""
        if self._over.is_set():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # the command changed its user: sudo, or a set-user-ID program
            self._log_refused()

    async def stop_group(self, grace: float) -> None:
        """See `Child`. Polls, because the kernel does not report when a process group becomes empty."""
        deadline = time.monotonic() + grace
        self._signal_group(signal.SIGTERM)
        while self._group_exists() and time.monotonic() < deadline:
            await anyio.sleep(POLL)
        self.kill_group()
        deadline = time.monotonic() + KILL_GRACE
        while self._group_exists() and time.monotonic() < deadline:
            await anyio.sleep(POLL)

    def kill_group(self) -> None:
        """Send SIGKILL to the rest of the group."""
        self._signal_group(signal.SIGKILL)

    def _log_refused(self) -> None:
        if not self._refused:
            self._refused = True
            hint = "it runs as another user, and sidecar is not root: run sidecar as root, with app_user"
            log.warning("no permission to signal the app", pid=self.pid, hint=hint)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _group_exists(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _give_terminal(self) -> None:
        """Make the app's group the terminal's foreground one, so that it may read from it (as a shell does)."""
        if not os.isatty(0):
            return
        with suppress(OSError):
            previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                os.tcsetpgrp(0, self.pid)
            finally:
                signal.signal(signal.SIGTTOU, previous)
            os.kill(self.pid, signal.SIGCONT)


def _next_dead() -> int:
    """A child that can be reaped; 0 when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


def _shell_status(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def _environment_of(given: Mapping[str, str] | None, account: Account | None) -> dict[str, str] | None:
    """The environment with the account's names; its home replaces ours, but not one that was chosen."""
    if account is None:
        return None if given is None else dict(given)
    environment = {**(os.environ if given is None else given), "USER": account.name, "LOGNAME": account.name}
    if account.home and environment.get("HOME", "/") in {"/", pwd.getpwuid(os.geteuid()).pw_dir}:
        environment["HOME"] = account.home
    return environment


def take_terminal_back() -> None:
    """Make our group the terminal's foreground one again, before we exit."""
    if os.isatty(0):
        with suppress(OSError):
            previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                os.tcsetpgrp(0, os.getpgrp())
            finally:
                signal.signal(signal.SIGTTOU, previous)


def become(command: Sequence[str]) -> None:
    """Replace this process with the command. Raises `CommandNotFound` or `CommandNotExecutable`."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):  # what is ignored stays so over exec(3)
        signal.signal(ignored_by_python, signal.SIG_DFL)
    with _translated(command):
        os.execvp(command[0], list(command))  # noqa: S606 - the user's own command


@contextmanager
def _translated(command: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise not_found(command[0]) from error
    except OSError as error:
        raise not_executable(command[0], error) from error


def require_command(command: Sequence[str]) -> None:
    """Check that a command can be started, before anything else is done. Raises as `become` does."""
    name = command[0]
    candidates = [name] if "/" in name else [f"{folder}/{name}" for folder in os.get_exec_path()]
    existing = [candidate for candidate in candidates if os.path.isfile(candidate)]
    if not existing:
        if os.path.isdir(name):
            raise not_executable(name, IsADirectoryError(0, "it is a directory"))
        raise not_found(name)
    if not any(os.access(candidate, os.X_OK) for candidate in existing):
        raise not_executable(name, PermissionError(0, "Permission denied"))


def not_found(name: str) -> CommandNotFound:
    """The error for a command that does not exist."""
    return CommandNotFound(
        f"command not found: {name}", "give the app's command after `--`; is it installed and on PATH?"
    )


def not_executable(name: str, error: OSError) -> CommandNotExecutable:
    """The error for a command that exists but does not start."""
    return CommandNotExecutable(
        f"command cannot be executed: {name}: {error.strerror}", "check its mode and first line"
    )


class Child(Protocol):
    """The app, as a child process."""

    @property
    def pid(self) -> int:
        """The id of its process and of its process group."""
        ...

    async def wait(self) -> int:
        """Wait for the app to end. Returns its exit status as in a shell: 0-255, 128+n when killed by signal n."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the app alone, unless it has ended."""
        ...

    def kill_group(self) -> None:
        """Send SIGKILL to every process of the app's group."""
        ...

    async def stop_group(self, grace: float) -> None:
        """End every process of the app's group: SIGTERM, at most `grace` seconds, SIGKILL."""
        ...
