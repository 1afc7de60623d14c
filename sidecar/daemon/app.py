"""The app beside us: started as its own user, waited for, and stopped within its grace."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sidecar.daemon.ending import until_ended
from sidecar.daemon.leftovers import Leftovers
from sidecar.daemon.signals import Signals
from sidecar.host import App
from sidecar.model import Account
from sidecar.status import Status


class AppRunner:
    """Runs the command. Without one the writers are other containers, and only a signal ends the run."""

    def __init__(
        self,
        command: Sequence[str],
        signals: Signals,
        status: Status,
        entrust: Callable[[], Account | None],
        environment: Mapping[str, str] | None,
        grace: timedelta,
        drain: timedelta,
        leftovers: Leftovers | None,
    ) -> None:
        """`entrust` lets the app's user own the databases, and returns that user unless it is ours.

        `leftovers` are the app's descendants; None to look after its process group only.
        """
        self.entrust = entrust
        self._command = command
        status.has_command = bool(command)
        self._signals = signals
        self._status = status
        self._environment = environment
        self._grace = grace
        self._drain = drain
        self._leftovers = leftovers
        self._started = 0.0
        self._ended = False

    @property
    def is_ours(self) -> bool:
        """Whether there is a command."""
        return bool(self._command)

    @property
    def seconds(self) -> float:
        """Seconds since `start`."""
        return time.monotonic() - self._started

    def start(self) -> None:
        """Start the command, if there is one. Raises `CommandNotFound` or `CommandNotExecutable`."""
        self._started = time.monotonic()
        account = self.entrust()
        if self._command:
            self._signals.app = App(self._command, self._signals.reaper, self._environment, account)

    async def until_ended(self) -> int:
        """Wait for its end, or stop it when that is requested. Returns its status."""
        grace, drain = self._grace.total_seconds(), self._drain.total_seconds()
        ended = await until_ended(self._signals, self._status, self._leftovers, grace=grace, drain=drain)
        self._ended = True
        return ended

    def kill(self) -> None:
        """Kill whatever is left of it: nothing when its end was waited for.

        The id of its process group may be another's by then, all the more when a launcher's daemon was followed for days.
        """
        if self._signals.app and not self._ended:
            if not self._signals.launched:
                self._signals.app.kill_group()
            if self._leftovers:
                self._leftovers.kill()
