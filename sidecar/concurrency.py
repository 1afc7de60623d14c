"""Bounded concurrency that raises plain errors instead of exception groups, and pools of reusable buffers."""

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from anyio import to_thread

from sidecar.errors import SidecarError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class Pool(Generic[T]):
    """Keeps objects that are costly to make for reuse, by several threads.

    Above all buffers: in a virtual machine a fresh page costs more than what is written into it. Give an object back only
    when nothing reads or writes it any more; one that is not given back is simply lost to the pool.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: list[T] = []

    def take(self) -> T:
        """An unused object, in whatever state its last user left it."""
        try:
            return self._free.pop()
        except IndexError:
            return self._make()

    def give(self, item: T) -> None:
        """Return an object that is no longer used."""
        self._free.append(item)


class ConcurrencyLimit:
    """Limits how many enter at once, as a context manager; others can wait until nobody is inside."""

    def __init__(self, at_once: int) -> None:
        self._free = anyio.Semaphore(at_once)
        self._idle = anyio.Event()
        self.under_way = 0

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self.under_way += 1

    async def __aexit__(self, *_: object) -> None:
        self.under_way -= 1
        self._free.release()
        if not self.under_way:
            self._idle.set()
            self._idle = anyio.Event()

    async def idle(self) -> None:
        """Return as soon as nobody is inside."""
        while self.under_way:
            await self._idle.wait()


class Shared(Generic[R]):
    """Work whose result serves everybody who asked for it before it began. One that fails or is cancelled serves nobody."""

    def __init__(self, work: Callable[[], Awaitable[R]]) -> None:
        self._work = work
        self._begun = 0
        self._result: tuple[int, R] | None = None  # and the number of the run that it comes from
        self._alone = anyio.Lock()

    async def __call__(self) -> R:
        """The result of a run that began after this call. Raises what the work raises."""
        asked = self._begun
        async with self._alone:
            if self._result is None or self._result[0] <= asked:
                self._begun += 1
                number = self._begun
                self._result = (number, await self._work())
            return self._result[1]


class Together(Generic[T, R]):
    """Calls a blocking function in one worker thread for everybody who asks at the same moment.

    A change of threads costs more than most of what is asked for: a thousand databases are looked at once a second.
    """

    def __init__(self, work: Callable[[T], R], group: Callable[[T], Hashable]) -> None:
        """Only questions of the same `group` wait for each other, such as those about files of one directory."""
        self._work = work
        self._group = group
        self._waiting: dict[Hashable, list[_Question[T, R]]] = {}

    async def __call__(self, about: T) -> R:
        """What `work` returns, or raises."""
        asked, group = _Question[T, R](about), self._group(about)
        together = self._waiting.setdefault(group, [])
        together.append(asked)
        if together[0] is asked:
            with anyio.CancelScope(shield=True):  # the others depend on it
                await anyio.lowlevel.checkpoint()  # everybody who has woken up with us asks now
                del self._waiting[group]
                try:
                    await to_thread.run_sync(self._answer, together)
                finally:
                    for each in together:
                        each.answered.set()
        await asked.answered.wait()
        return asked.answer()

    def _answer(self, together: "list[_Question[T, R]]") -> None:
        for each in together:
            try:
                result = self._work(each.about)
            except Exception as error:  # noqa: BLE001 - raised again where it was asked
                each.answer = partial(_raise, error)
            else:
                each.answer = partial(_identity, result)


@dataclass(eq=False)
class _Question(Generic[T, R]):
    about: T
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: Callable[[], R] = field(init=False, default_factory=lambda: _unanswered)


def _unanswered() -> NoReturn:
    raise RuntimeError("no thread could be started")


def _identity(value: R) -> R:
    return value


def _raise(error: Exception) -> NoReturn:
    raise error


async def run_all(*workers: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run all concurrently. The first failure cancels the others and is raised as it is, not in a group."""
    try:
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(worker)
    except BaseExceptionGroup as failures:
        failure = first_failure(failures)
        raise failure from failure.__cause__


def in_own_task(
    function: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Run an asynchronous function in a task of its own, for callers that cancel by `asyncio.timeout` or `Task.cancel`.

    Such a cancellation passes by anyio's scopes: an await of a worker thread would end while the thread still works. Here
    it reaches the scope of the task group, so that the thread notices it and is waited for.
    """

    @wraps(function)
    async def run(*arguments: P.args, **named: P.kwargs) -> R:
        results: list[R] = []

        async def work() -> None:
            results.append(await function(*arguments, **named))

        await run_all(work)
        return results[0]

    return run


async def ordered(
    inputs: Iterable[T], work: Callable[[T], R], emit: Callable[[R], Awaitable[None]], *, threads: int
) -> None:
    """Call `work` on each input in up to `threads` worker threads, and `emit` each result in the order of the inputs.

    At most `threads + 1` results exist at any time, so a slow `emit` slows the work down.
    """
    room = anyio.Semaphore(threads + 1)
    limiter = anyio.CapacityLimiter(threads)

    async def one(item: T, before: anyio.Event, after: anyio.Event) -> None:
        result = await to_thread.run_sync(work, item, limiter=limiter)
        await before.wait()
        await emit(result)
        after.set()
        room.release()

    try:
        async with anyio.create_task_group() as group:
            before = anyio.Event()
            before.set()
            for item in inputs:
                await room.acquire()
                after = anyio.Event()
                group.start_soon(one, item, before, after)
                before = after
    except BaseExceptionGroup as failures:
        failure = first_failure(failures)
        raise failure from failure.__cause__


async def gathered(inputs: Iterable[T], work: Callable[[T], Awaitable[R]], *, at_once: int) -> list[R]:
    """The results of `work` on each input, in order, at most `at_once` at a time. The first failure is raised as it is."""
    items = list(inputs)
    if len(items) < 2:  # needs no tasks
        return [await work(item) for item in items]
    waiting = enumerate(items)
    results: dict[int, R] = {}

    async def worker() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    await run_all(*[worker] * min(at_once, len(items)))
    return [results[number] for number in sorted(results)]


async def hedged(request: Callable[[], Awaitable[T]], after: float) -> T:
    """The result of a request; if it takes longer than `after` seconds, it is made again, and the first result counts.

    So a connection that stalls is replaced instead of waited for (Dean and Barroso, The Tail at Scale, CACM 2013).
    Raises the first failure when neither succeeds.
    """
    results: list[T] = []
    failures: list[SidecarError] = []
    settled = anyio.Event()
    under_way = 0

    async def attempt() -> None:
        nonlocal under_way
        under_way += 1
        try:
            results.append(await request())
        except SidecarError as error:
            failures.append(error)
        under_way -= 1
        if results or not under_way:
            settled.set()

    async with anyio.create_task_group() as group:
        group.start_soon(attempt)
        with anyio.move_on_after(after):
            await settled.wait()
        if not settled.is_set():
            group.start_soon(attempt)
            await settled.wait()
        group.cancel_scope.cancel()
    if not results:
        raise failures[0]
    return results[0]


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure behind a group: one of ours if there is one, because the others are its consequences."""
    leaves = list(_leaves(failures))
    return next((leaf for leaf in leaves if isinstance(leaf, SidecarError)), leaves[0])


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _leaves(each)
    else:
        yield failure
