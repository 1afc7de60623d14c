"""Bounded concurrency: order, a bound on what is in flight, plain errors, prompt cancellation."""

import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from sidecar.concurrency import Together, first_failure, ordered, run_all
from sidecar.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


async def test_results_come_in_the_order_of_inputs_whatever_ends_first() -> None:
    """The first input's work ends only after the second's did."""
    second_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_done.wait(10)
        if number == 1:
            second_done.set()
        return number

    results: list[int] = []

    async def emit(result: int) -> None:
        results.append(result)

    await ordered(range(20), work, emit, threads=2)
    assert results == list(range(20))


@pytest.mark.parametrize("threads", [1, 2, 4])
async def test_a_slow_consumer_slows_the_work_down(threads: int) -> None:
    """At most `threads + 1` inputs are taken before the first result is consumed: memory is bounded."""
    taken = consumed = most = 0

    def inputs() -> Iterator[int]:
        nonlocal taken, most
        for number in range(30):
            taken += 1
            most = max(most, taken - consumed)
            yield number

    async def emit(_result: int) -> None:
        nonlocal consumed
        for _ in range(20):  # enough for every task that could take an input
            await anyio.lowlevel.checkpoint()
        consumed += 1

    await ordered(inputs(), lambda number: number, emit, threads=threads)
    assert consumed == 30
    assert most <= threads + 2  # one input is taken before there is room for it


async def test_no_more_threads_work_than_asked_for() -> None:
    lock = threading.Lock()
    running = most = 0

    def work(_number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1

    async def emit(_result: None) -> None:
        pass

    await ordered(range(30), work, emit, threads=2)
    assert most <= 2


async def test_a_failure_of_the_work_is_raised_plain_and_ends_it() -> None:
    emitted: list[int] = []

    def work(number: int) -> int:
        if number == 3:
            raise StoreUnavailable("no")
        return number

    async def emit(result: int) -> None:
        emitted.append(result)

    with pytest.raises(StoreUnavailable):
        await ordered(range(1000), work, emit, threads=2)
    assert emitted == [0, 1, 2][: len(emitted)]


async def test_a_failure_of_the_consumer_is_raised_plain_and_nothing_more_is_emitted() -> None:
    emitted: list[int] = []

    async def emit(result: int) -> None:
        emitted.append(result)
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        await ordered(range(1000), lambda number: number, emit, threads=3)
    assert emitted == [0]


async def test_no_inputs_are_no_work() -> None:
    async def emit(_result: int) -> None:
        raise AssertionError

    await ordered([], int, emit, threads=2)


async def test_cancellation_passes_through_ordered() -> None:
    async def emit(_result: int) -> None:
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await ordered(range(1000), lambda number: number, emit, threads=2)
    assert scope.cancelled_caught


async def test_the_first_failure_cancels_the_others_and_is_raised_plain() -> None:
    cancelled = False

    async def patient() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise

    async def failing() -> None:
        await anyio.lowlevel.checkpoint()
        raise StoreUnavailable("no")

    with pytest.raises(StoreUnavailable, match="no"):
        await run_all(patient, failing)
    assert cancelled


async def test_a_failure_keeps_its_cause() -> None:
    """`raise … from error` at the edge must still be seen in the log after the group was opened."""

    async def failing() -> None:
        try:
            raise OSError("connection reset")
        except OSError as error:
            raise StoreUnavailable("no") from error

    with pytest.raises(StoreUnavailable) as caught:
        await run_all(failing)
    assert isinstance(caught.value.__cause__, OSError)


async def test_one_of_our_errors_is_preferred_to_its_consequences() -> None:
    """When the producer fails because the consumer did, the consumer's error says why."""
    group = BaseExceptionGroup(
        "", [ValueError("a consequence"), BaseExceptionGroup("", [StoreUnavailable("the cause")])]
    )
    assert isinstance(first_failure(group), StoreUnavailable)


async def test_cancellation_passes_through_together() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_all(anyio.sleep_forever, anyio.sleep_forever)
    assert scope.cancelled_caught


async def test_those_who_ask_at_the_same_moment_are_answered_by_one_thread() -> None:
    threads: list[tuple[int, int]] = []

    def work(number: int) -> int:
        threads.append((threading.get_ident(), len(answers)))
        if number == 3:
            raise StoreUnavailable("three")
        return number * 10

    together = Together(work, lambda number: number >= 5)
    answers: dict[int, int | str] = {}

    async def ask(number: int) -> None:
        try:
            answers[number] = await together(number)
        except StoreUnavailable as error:
            answers[number] = error.message

    for _ in range(2):
        answers.clear()
        threads.clear()
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(ask, number)
        assert answers == {number: "three" if number == 3 else number * 10 for number in range(10)}
        assert len(threads) == 10
    assert not together._waiting


async def test_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.set()
        assert go_on.wait(10)
        return number

    together = Together(work, lambda _number: "")
    answers: list[int] = []

    async def ask(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            answers.append(await together(number))

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for number, scope in enumerate(scopes):
            group.start_soon(ask, number, scope)
        await to_thread.run_sync(begun.wait)
        scopes[0].cancel()  # who has the others' questions answered
        scopes[1].cancel()
        go_on.set()
    assert answers == [2]
    with anyio.move_on_after(0) as gone:
        await together(4)  # gives up before the thread begins
    assert gone.cancelled_caught
    assert await together(5) == 5
