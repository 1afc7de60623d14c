"""Comparisons and searches that a page started: they go on in the background, and their results stay for a while."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from sidecar.compare.life import Step
from sidecar.compare.page.source import LIVE, Source
from sidecar.errors import ExitCode, SidecarError
from sidecar.log import log
from sidecar.progress import Progress

MOST_RESULTS = 24
AT_ONCE = 2
_MAY_PASS = {ExitCode.TRY_AGAIN, ExitCode.STORE_MISSING, ExitCode.NO_ROOM, ExitCode.ACCESS_DENIED}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be shown, and what to do. `may_pass`: it may be otherwise in a while."""

    message: str
    hint: str
    may_pass: bool

    @classmethod
    def of(cls, error: SidecarError) -> "Failure":
        """The failure of an error."""
        return cls(error.message, error.hint or "", error.exit_code in _MAY_PASS)


@dataclass(slots=True)
class Job(Generic[T]):
    """Work in the background: `done` of `total` chunks or states, and its result so far. It may end with a `failure`."""

    started: datetime
    result: T
    done: int = 0
    total: int = 0
    failure: Failure | None = None
    finished: anyio.Event = field(default_factory=anyio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        return self.finished.is_set()


class Jobs:
    """Runs jobs, a few at a time, and forgets the oldest ones."""

    def __init__(self, source: Source, directory: Path, group: TaskGroup, now: Callable[[], datetime]) -> None:
        self._source = source
        self._directory = directory
        self._group = group
        self._now = now
        self._limit = anyio.Semaphore(AT_ONCE)
        self._comparisons: dict[tuple[str, str], Job[Path | None]] = {}
        self._lives: dict[tuple[str, str], Job[list[Step]]] = {}

    def comparison(self, before: str, after: str) -> Job[Path | None]:
        """The comparison of two states; it is started unless it was before. One that failed may be tried again."""
        key = before, after
        job = self._comparisons.get(key)
        if job is None or (job.failure and job.failure.may_pass):
            job = self._comparisons[key] = Job[Path | None](self._now(), None)
            self._forget_oldest()
            self._group.start_soon(self._run, job, self._compare, job, before, after)
        return job

    def life(self, table: str, key: str) -> Job[list[Step]]:
        """The versions of a row; as `comparison`."""
        job = self._lives.get((table, key))
        if job is None or (job.failure and job.failure.may_pass):
            job = self._lives[table, key] = Job[list[Step]](self._now(), [])
            while len(self._lives) > MOST_RESULTS:
                del self._lives[next(iter(self._lives))]
            self._group.start_soon(self._run, job, self._look, job, table, key)
        return job

    def forget(self, before: str, after: str) -> None:
        """Compare these states anew the next time; and look for rows anew."""
        job = self._comparisons.get((before, after))
        if job and job.has_ended:
            self._remove((before, after))
        for key in [key for key, each in self._lives.items() if each.has_ended]:
            del self._lives[key]

    def forget_live(self) -> None:
        """Compare anew whatever was compared with the live database."""
        for before, after in [pair for pair in self._comparisons if LIVE in pair]:
            self.forget(before, after)

    def _forget_oldest(self) -> None:
        ended = [key for key, each in self._comparisons.items() if each.has_ended]
        for key in ended[: max(0, len(self._comparisons) - MOST_RESULTS)]:
            self._remove(key)

    def _remove(self, key: tuple[str, str]) -> None:
        job = self._comparisons.pop(key)
        if job.result is not None:
            job.result.unlink(missing_ok=True)

    async def _run(self, job: Job[T], work: Callable[..., object], *arguments: object) -> None:
        """Nothing that fails in a job ends the page."""
        try:
            async with self._limit:
                await work(*arguments)  # type: ignore[misc]
        except SidecarError as error:
            job.failure = Failure.of(error)
        except Exception as error:  # the boundary of a job
            log.exception("page job failed")
            job.failure = Failure(
                f"This is a bug: {error!r}", "Please report it with the lines on the terminal.", False
            )
        finally:
            job.finished.set()

    async def _compare(self, job: Job[Path | None], before: str, after: str) -> None:
        @contextmanager
        def show(_title: str) -> Iterator[Progress]:
            def progress(done: int, total: int) -> None:
                job.done, job.total = done, total

            yield progress

        directory = Path(tempfile.mkdtemp(dir=self._directory))
        job.result = await self._source.compare(before, after, directory, show)

    async def _look(self, job: Job[list[Step]], table: str, key: str) -> None:
        points = await self._source.points()
        async with aclosing(self._source.versions(table, key, points)) as steps:
            async for step in steps:
                job.done, job.total = step.done, step.total
                if step.version or step.problem or step.oldest:
                    job.result.append(step)
