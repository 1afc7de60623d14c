"""How the processes that descend from ours are ended: who is signalled next, and the loop that does it."""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.host.clock import Clock
from sidecar.log import log

POLL = 0.05
HEAD_START = 0.5  # for a supervisor to learn that it stops, before its children do
KILL_SECONDS = 3.0  # for the kernel to end what SIGKILL hit
STOP_SECONDS = 1.0  # to halt whoever is born while the others are halted
BETWEEN_STOPS = 0.005


@dataclass(frozen=True, slots=True)
class Process:
    """A process, known by its id and when it started: the kernel gives an id to another process later."""

    pid: int
    started: int
    parent: int = field(default=0, compare=False)
    name: str = field(default="", compare=False)
    stopped: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


class ProcessTable(Protocol):
    """The processes of this machine, as far as they descend from ours."""

    def descendants(self) -> list[Process]:
        """Those that live, parents before children. One whose parent ends at this moment may be missing."""
        ...

    def is_childless(self) -> bool:
        """Whether none of them is left, dead ones that are not reaped included. Exact, other than `descendants`."""
        ...

    def send(self, process: Process, number: int) -> None:
        """Send a signal; nothing happens when the process is gone. Raises PermissionError."""
        ...

    def is_ignored(self, process: Process, number: int) -> bool:
        """Whether the process ignores the signal."""
        ...


def below(root: int, processes: Iterable[Process]) -> list[Process]:
    """The descendants of a process id, parents before children."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    generation = children.pop(root, [])
    while generation:
        found += generation
        generation = [child for parent in generation for child in children.pop(parent.pid, [])]
    return found


class Roundup:
    """Who is signalled next. Nobody is asked, stopped or killed twice; a process that was born meanwhile is new."""

    def __init__(self, head_start: float = HEAD_START) -> None:
        self._head_start = head_start
        self._asked: dict[Process, float] = {}
        self._stopped: dict[Process, None] = {}  # in order
        self._killed: set[Process] = set()

    def to_ask(self, living: Sequence[Process], now: float) -> list[Process]:
        """Those to ask to end: with a parent among them, only when that one was asked `head_start` seconds ago.

        So a supervisor knows that it stops before its children end, and does not start them again.
        """
        parents = {process.pid: process for process in living}
        due = [each for each in living if each not in self._asked and self._had_its_time(parents.get(each.parent), now)]
        self._asked.update(dict.fromkeys(due, now))
        return due

    def to_stop(self, living: Sequence[Process]) -> list[Process]:
        """Those to halt with SIGSTOP, so that nobody reacts when the others are killed."""
        due = [each for each in living if each not in self._stopped]
        self._stopped.update(dict.fromkeys(due))
        return due

    def to_kill(self) -> list[Process]:
        """Those to kill: whoever was to be stopped before."""
        due = [each for each in self._stopped if each not in self._killed]
        self._killed.update(due)
        return due

    def _had_its_time(self, parent: Process | None, now: float) -> bool:
        return parent is None or (parent in self._asked and now - self._asked[parent] >= self._head_start)


class Descendants:
    """Everybody who descends from this process, in whatever process group or session."""

    def __init__(self, table: ProcessTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._refused: set[Process] = set()
        self._asked = False

    def living(self) -> list[Process]:
        """Those that live now, parents before children."""
        return self._table.descendants()

    def are_gone(self) -> bool:
        """Whether none is left."""
        return self._table.is_childless()

    async def end(self, number: int, deadline: float, is_hurried: Callable[[], bool]) -> None:
        """Ask each to end, once; kill at the deadline (on the clock), or as soon as `is_hurried`, until none is left."""
        roundup = Roundup()
        while not self.are_gone() and self._clock.monotonic() < deadline and not is_hurried():
            self._ask(roundup.to_ask(self.living(), self._clock.monotonic()), number)
            await self._clock.sleep(POLL)
        if not self.are_gone():
            await self._kill(roundup)

    def signal(self, processes: Iterable[Process], number: int) -> list[Process]:
        """Send a signal to these. Returns those that may be signalled; another one is logged, once."""
        reached = []
        for process in processes:
            try:
                self._table.send(process, number)
                reached.append(process)
            except PermissionError:
                self._log_refused(process)
        return reached

    def kill_now(self) -> None:
        """SIGKILL to all, without waiting for their end."""
        stopped = self.signal(self.living(), signal.SIGSTOP)
        self.signal(self.living(), signal.SIGKILL)
        self.signal(stopped, signal.SIGCONT)  # whoever may be stopped but not killed goes on

    def _ask(self, processes: Sequence[Process], number: int) -> None:
        """A shell's background jobs ignore SIGINT and SIGQUIT: they get SIGTERM. One that is stopped is continued."""
        for process in processes:
            self.signal([process], signal.SIGTERM if self._table.is_ignored(process, number) else number)
            if process.stopped:
                self.signal([process], signal.SIGCONT)
        if processes:
            told = log.debug if self._asked else log.info  # one that forks at each signal does not fill the log
            told("processes left by the command asked to end", processes=[str(process) for process in processes])
            self._asked = True

    async def _kill(self, roundup: Roundup) -> None:
        stopped: list[Process] = []
        killed: list[Process] = []
        try:
            await self._stop_and_kill(roundup, stopped, killed)
        finally:
            left = [] if self.are_gone() else self.living()
            # A writer that is halted for good may have a lock that keeps everybody out of the database.
            self.signal([each for each in left if each in stopped], signal.SIGCONT)
        if killed:
            log.warning("processes left by the command killed", processes=[str(process) for process in killed])
        if left:
            names = [str(process) for process in left]
            log.error(
                "processes left by the command cannot be ended: what they write now is in no backup", processes=names
            )

    async def _stop_and_kill(self, roundup: Roundup, stopped: list[Process], killed: list[Process]) -> None:
        """Until none is left, or the time is over. Who may not be signalled does not delay the end of the others."""
        began = self._clock.monotonic()
        while not self.are_gone() and self._clock.monotonic() < began + KILL_SECONDS:
            fresh = self.signal(roundup.to_stop(self.living()), signal.SIGSTOP)
            stopped += fresh
            if fresh and self._clock.monotonic() < began + STOP_SECONDS:
                await self._clock.sleep(BETWEEN_STOPS)
                continue  # look again: who was being born while the others were stopped?
            killed += self.signal(roundup.to_kill(), signal.SIGKILL)
            await self._clock.sleep(POLL)

    def _log_refused(self, process: Process) -> None:
        if process not in self._refused:
            self._refused.add(process)
            hint = "it runs as another user; run sidecar as root, or stop that process with the app"
            log.warning("no permission to signal a process left by the command", process=str(process), hint=hint)
