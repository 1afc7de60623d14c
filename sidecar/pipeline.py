"""Two shapes of bounded concurrency, raising plain errors instead of groups."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from sidecar.errors import SidecarError

T = TypeVar("T")
R = TypeVar("R")


async def together(*workers: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first failure cancels the others and is raised as it is."""
    try:
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(worker)
    except BaseExceptionGroup as failures:
        failure = first_failure(failures)
        raise failure from failure.__cause__


async def ordered(
    inputs: Iterable[T], work: Callable[[T], R], emit: Callable[[R], Awaitable[None]], *, threads: int
) -> None:
    """`work` on each input in worker threads, `threads` at once; `emit` the results one by one in the order of inputs.

    At most `threads + 1` results exist at any time: a slow `emit` slows the work down.
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


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure behind a group: one of ours where there is one, for the others are its consequences."""
    leaves = list(_leaves(failures))
    return next((leaf for leaf in leaves if isinstance(leaf, SidecarError)), leaves[0])


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _leaves(each)
    else:
        yield failure
