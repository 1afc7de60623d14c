"""Brings rows back into the live database, for the page: one at a time, tried on a copy, and done once a person confirms."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from sidecar.compare.fitness import Preview
from sidecar.compare.page.jobs import Failure
from sidecar.errors import SidecarError, UsageError
from sidecar.log import log
from sidecar.progress import Progress, Show

PATIENCE = 600.0  # seconds in which a person confirms
Confirm = Callable[[Preview], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: so many rows, and for how many seconds writers had to wait. `saved` is where the rows of before are.

    `restore_point` is the key of the state before; None if it was undone, or if nothing had to be done.
    """

    rows: int
    saved: str = ""
    restore_point: str | None = None
    held: float = 0.0


class Returner(Protocol):
    """Changes the live database. Nothing is done if anything is raised, by `confirm` as well."""

    async def bring_back(self, table: str, state: str, *, rows: str, show: Show, confirm: Confirm) -> Done:
        """Bring back rows that are `missing`, `changed` ones too, or the table `exact`ly as it was. Raises `SidecarError`."""
        ...

    async def undo(self, *, show: Show, confirm: Confirm) -> Done:
        """Undo what was brought back last, within the hour. Raises `SidecarError`."""
        ...


@dataclass(slots=True)
class Restoring:
    """A table of a state on its way back; without a `table`, the last one on its way out again."""

    table: str
    state: str
    rows: str
    started: datetime
    phase: str = "compare"
    done: int = 0
    total: int = 0
    preview: Preview | None = None
    outcome: Done | None = None
    failure: Failure | None = None
    confirmed: anyio.Event = field(default_factory=anyio.Event)
    finished: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def asks(self) -> bool:
        """Whether it waits for a person to confirm."""
        return self.preview is not None and not self.confirmed.is_set() and not self.finished.is_set()


class Restorer:
    """Does one at a time."""

    def __init__(self, returner: Returner, group: TaskGroup, now: Callable[[], datetime]) -> None:
        self._returner = returner
        self._group = group
        self._now = now
        self.current: Restoring | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one goes on."""
        return self.current is not None and not self.current.finished.is_set()

    def begin(self, table: str, state: str, rows: str) -> None:
        """Prepare to bring a table of a state back, or, without a table, to undo the last one; unless one goes on."""
        if not self.is_busy:
            self.current = Restoring(table, state, rows, self._now())
            self._group.start_soon(self._run, self.current)

    def confirm(self) -> None:
        """Do what is prepared."""
        if self.current is not None and self.current.asks:
            self.current.confirmed.set()

    def cancel(self) -> None:
        """Do nothing of what is prepared; once it was confirmed, it goes on."""
        if self.current is not None and not self.current.confirmed.is_set():
            self.current.scope.cancel()
            self.current = None

    async def _run(self, job: Restoring) -> None:
        try:
            with job.scope:
                job.outcome = await self._work(job)
        except SidecarError as error:
            job.failure = Failure.of(error)
        except Exception as error:  # the boundary of a job
            log.exception("bringing back failed")
            job.failure = Failure(
                f"This is a bug: {error!r}", "Please report it with the lines on the terminal.", False
            )
        finally:
            job.finished.set()

    async def _work(self, job: Restoring) -> Done:
        async def confirm(preview: Preview) -> None:
            job.preview, job.phase = preview, "ask"
            with anyio.move_on_after(PATIENCE):
                await job.confirmed.wait()
            if not job.confirmed.is_set():
                raise UsageError("nothing was done: nobody confirmed it within ten minutes", "begin again")
            job.phase, job.done, job.total = "publish", 0, 0

        @contextmanager
        def show(title: str) -> Iterator[Progress]:
            if job.preview is None:
                job.phase = title

            def progress(done: int, total: int) -> None:
                job.done, job.total = done, total

            yield progress

        if not job.table:
            return await self._returner.undo(show=show, confirm=confirm)
        return await self._returner.bring_back(job.table, job.state, rows=job.rows, show=show, confirm=confirm)
