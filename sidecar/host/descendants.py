"""Ends the processes that descend from ours: the order in which they are signalled, and the loop that signals them."""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.host.clock import Clock
from sidecar.log import log

POLL = 0.05
LONGEST_PAUSE = 0.5  # between two looks at all processes, while nobody new is found
HEAD_START = 0.5  # a supervisor gets the signal this much earlier than its children
KILL_SECONDS = 3.0  # for the kernel to end the processes that got SIGKILL
STOP_SECONDS = 1.0  # to halt whoever is born while the others are halted
BETWEEN_STOPS = 0.005


@dataclass(frozen=True, slots=True)
class Process:
    """A process, identified by its id and start time, because the kernel reuses ids."""

    pid: int
    started: int
    parent: int = field(default=0, compare=False)
    name: str = field(default="", compare=False)
    stopped: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


class ProcessTable(Protocol):
    """The processes on this machine that descend from ours."""

    def descendants(self) -> list[Process]:
        """The live descendants, parents before children. One whose parent is just exiting may be missing."""
        ...

    def is_childless(self) -> bool:
        """Whether no descendant is left, not even an unreaped one. Unlike `descendants`, this is exact."""
        ...

    def send(self, process: Process, number: int) -> None:
        """Send a signal, or do nothing if the process is gone. Raises PermissionError."""
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
    """Chooses the processes to signal next. None is asked, stopped or killed twice; a new process is treated like any other."""

    def __init__(self, head_start: float = HEAD_START) -> None:
        self._head_start = head_start
        self._asked: dict[Process, float] = {}
        self._stopped: dict[Process, None] = {}  # in order
        self._killed: set[Process] = set()

    def to_ask(self, living: Sequence[Process], now: float) -> list[Process]:
        """The processes to ask to exit. A process with a living parent is asked `head_start` seconds after that parent.

        So a supervisor knows that it is stopping before its children exit, and does not restart them.
        """
        parents = {process.pid: process for process in living}
        due = [each for each in living if each not in self._asked and self._had_its_time(parents.get(each.parent), now)]
        self._asked.update(dict.fromkeys(due, now))
        return due

    def to_stop(self, living: Sequence[Process]) -> list[Process]:
        """The processes to suspend with SIGSTOP, so that none reacts while others are killed."""
        due = [each for each in living if each not in self._stopped]
        self._stopped.update(dict.fromkeys(due))
        return due

    def to_kill(self) -> list[Process]:
        """The processes to kill: those that `to_stop` has returned before."""
        due = [each for each in self._stopped if each not in self._killed]
        self._killed.update(due)
        return due

    def _had_its_time(self, parent: Process | None, now: float) -> bool:
        return parent is None or (parent in self._asked and now - self._asked[parent] >= self._head_start)


class Descendants:
    """All processes that descend from this one, in any process group or session."""

    def __init__(self, table: ProcessTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._refused: set[Process] = set()
        self._asked = False

    def living(self) -> list[Process]:
        """The live descendants, parents before children."""
        return self._table.descendants()

    def are_gone(self) -> bool:
        """Whether no descendant is left."""
        return self._table.is_childless()

    async def end(self, number: int, deadline: float, is_hurried: Callable[[], bool]) -> None:
        """Ask each to exit, once. Kill those that are left at `deadline` (a monotonic time), or once `is_hurried`."""
        roundup, look, pause = Roundup(), self._clock.monotonic(), POLL
        while not self.are_gone() and self._clock.monotonic() < deadline and not is_hurried():
            if self._clock.monotonic() >= look:  # reading all processes costs more than to ask for the last one's end
                fresh = roundup.to_ask(self.living(), self._clock.monotonic())
                self._ask(fresh, number)
                pause = POLL if fresh else min(2 * pause, LONGEST_PAUSE)
                look = self._clock.monotonic() + pause
            await self._clock.sleep(POLL)
        if not self.are_gone():
            await self._kill(roundup)

    def signal(self, processes: Iterable[Process], number: int) -> list[Process]:
        """Send a signal to these processes. Returns those that we may signal; each of the others is logged once."""
        reached = []
        for process in processes:
            try:
                self._table.send(process, number)
                reached.append(process)
            except PermissionError:
                self._log_refused(process)
        return reached

    def kill_now(self) -> None:
        """Send SIGKILL to all, without waiting for them to exit."""
        stopped = self.signal(self.living(), signal.SIGSTOP)
        self.signal(self.living(), signal.SIGKILL)
        self.signal(stopped, signal.SIGCONT)  # whoever may be stopped but not killed goes on

    def _ask(self, processes: Sequence[Process], number: int) -> None:
        """Signal these processes. Background jobs of a shell ignore SIGINT and SIGQUIT, so they get SIGTERM.

        A stopped process is continued: it could not react otherwise.
        """
        for process in processes:
            self.signal([process], signal.SIGTERM if self._table.is_ignored(process, number) else number)
            if process.stopped:
                self.signal([process], signal.SIGCONT)
        if processes:
            write = log.debug if self._asked else log.info  # a process that forks at each signal must not fill the log
            write("processes left by the command asked to end", processes=[str(process) for process in processes])
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
        """Kill until none is left or the time is up. Processes that we may not signal do not delay the others."""
        began = self._clock.monotonic()
        while not self.are_gone() and self._clock.monotonic() < began + KILL_SECONDS:
            fresh = self.signal(roundup.to_stop(self.living()), signal.SIGSTOP)
            stopped += fresh
            if fresh and self._clock.monotonic() < began + STOP_SECONDS:
                await self._clock.sleep(BETWEEN_STOPS)
                continue  # look again: a process may have forked just before it was stopped
            killed += self.signal(roundup.to_kill(), signal.SIGKILL)
            await self._clock.sleep(POLL)

    def _log_refused(self, process: Process) -> None:
        if process not in self._refused:
            self._refused.add(process)
            hint = "it runs as another user; run sidecar as root, or stop that process with the app"
            log.warning("no permission to signal a process left by the command", process=str(process), hint=hint)
