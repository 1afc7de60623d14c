"""The processes that the command leaves running outside its group: a launcher's daemon is followed, the others are ended."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio
from anyio import to_thread

from sidecar.daemon.signals import Signals
from sidecar.host import Descendants, Process, having_open, read
from sidecar.log import log

LOOK_SECONDS = 0.5
FIRST_LOOK_SECONDS = 0.1


class Leftovers:
    """The descendants that are still running when the command has exited."""

    def __init__(self, descendants: Descendants, databases: Sequence[Path], signals: Signals) -> None:
        self._descendants = descendants
        self._files = [Path(f"{path}{suffix}") for path in databases for suffix in ("", "-wal", "-shm")]
        self._signals = signals
        self._followed: set[Process] = set()
        self._has_followed = False

    async def follow(self, patience: float) -> None:
        """Wait while a process that has had a database open is running, or a parent of one.

        If none opens a database within `patience` seconds, return.
        """
        give_up = time.monotonic() + patience
        while not self._descendants.are_gone():
            await self._look(await to_thread.run_sync(self._descendants.living, abandon_on_cancel=True))
            self._followed = {each for each in self._followed if read(each.pid) == each}
            if not self._followed and (self._has_followed or time.monotonic() >= give_up):
                return
            await anyio.sleep(LOOK_SECONDS if self._has_followed else FIRST_LOOK_SECONDS)

    @property
    def status(self) -> int | None:
        """The exit status of the last process that was followed; None if there was none."""
        return self._signals.reaper.adopted_status if self._has_followed else None

    def pass_on(self, number: int) -> None:
        """Send a signal to the topmost followed processes, not to their children."""
        living = self._descendants.living()
        pids = {process.pid for process in living}
        top = [each for each in living if each in self._followed and each.parent not in pids]
        self._descendants.signal(top, number)

    async def end(self, deadline: float) -> None:
        """Ask each to exit, with the signal that stopped us, and kill those left at `deadline`, a monotonic time."""
        await self._descendants.end(self._signals.number, deadline, self._signals.hurry.is_set)

    def kill(self) -> None:
        """Kill all of them immediately."""
        self._descendants.kill_now()

    async def _look(self, living: Sequence[Process]) -> None:
        """Follow each process that has a database open, and its parents: a supervisor would start the next one."""
        found = await to_thread.run_sync(having_open, living, self._files, abandon_on_cancel=True)
        parents, fresh = {process.pid: process for process in living}, set[Process]()
        for process in found:
            each: Process | None = process
            while each and each not in fresh:
                fresh.add(each)
                each = parents.get(each.parent)
        if fresh and not self._has_followed:
            self._has_followed = True
            names = [str(process) for process in living if process in fresh]
            log.info(
                "command ended, the run continues with the processes that have a database open",
                processes=names,
            )
        self._signals.reaper.adopt(process.pid for process in fresh - self._followed)
        self._followed |= fresh
