"""Who is told that commits are stored, and when: never by a look, a stream, a lease or a number that was not theirs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import anyio
import pytest

from sidecar.backup.confirmations import Confirmations, Confirmed
from sidecar.database.wal import CutCause, StreamCut
from sidecar.database.wal.capture import FeedState, FeedStatus
from sidecar.errors import DatabaseBusy, LeaseLost, NotDurable, SidecarError, StoreUnavailable
from sidecar.status import StreamStatus
from tests.fakes import START

pytestmark = pytest.mark.anyio


@dataclass
class Log:
    """What a `Feed` shows of a log with `commits`. While `held`, a look has seen them and does not return yet."""

    run: int = 1
    commits: int = 0
    captured: int = 0
    looks: int = 0
    held: bool = False
    cut: StreamCut | None = None
    _let_go: anyio.Event = field(default_factory=anyio.Event)

    @property
    def status(self) -> FeedStatus:
        return FeedStatus(FeedState.FOLLOWING, self.captured)

    async def flush(self) -> None:
        self.looks += 1
        run, seen = self.run, self.commits
        await anyio.lowlevel.checkpoint()
        if self.held:
            await self._let_go.wait()
        if self.cut:
            raise self.cut
        if run == self.run:
            self.captured = max(seen, self.captured)

    def let_go(self) -> None:
        self.held = False
        self._let_go.set()
        self._let_go = anyio.Event()


@dataclass
class Keeper:
    """A `Fence`. `failure` is what it raises."""

    exclusive: bool = True
    failure: SidecarError | None = None
    asked: int = 0

    def require_held(self) -> None:
        if isinstance(self.failure, LeaseLost):
            raise self.failure

    async def ensure_held(self) -> datetime:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if self.failure:
            raise self.failure
        return START


class Streaming:
    """A stream that protects, of a log in which nothing is committed yet."""

    def __init__(self) -> None:
        self.log, self.fence, self.status = Log(), Keeper(), StreamStatus()
        self.confirmations = Confirmations(self.log, self.fence, self.status)  # type: ignore[arg-type]
        self.begin("one")
        self.status.protects = True

    def begin(self, name: str) -> None:
        self.status.name, self.status.confirmed, self.status.protects, self.status.reason = name, 0, False, ""
        self.confirmations.begun()

    def end(self, reason: str) -> None:
        self.status.protects, self.status.reason = False, reason
        self.confirmations.ended()

    def next_stream(self) -> None:
        """Cut, and begun anew; commits are numbered from 1 again, and a restore point enters it."""
        self.end("cut: by the test")
        self.log.run, self.log.commits, self.log.captured = self.log.run + 1, 0, 0
        self.begin("two")
        self.status.protects = True

    def store(self, commit: int) -> None:
        self.status.confirmed = commit
        self.confirmations.news()


@dataclass
class Asked:
    """What a waiter was told."""

    answer: Confirmed | None = None
    error: SidecarError | None = None

    @property
    def done(self) -> bool:
        return bool(self.answer or self.error)


@dataclass
class Crowd:
    """Starts waiters. `told` are those who were answered, in that order."""

    group: anyio.abc.TaskGroup
    streaming: Streaming
    told: list[Asked] = field(default_factory=list)

    async def wait(self) -> Asked:
        """One that has come as far as it can."""
        (one,) = await self.many(1)
        return one

    async def many(self, count: int) -> list[Asked]:
        asked = [Asked() for _ in range(count)]
        for each in asked:
            self.group.start_soon(self._ask, each)
        await anyio.wait_all_tasks_blocked()
        return asked

    async def _ask(self, asked: Asked) -> None:
        try:
            asked.answer = await self.streaming.confirmations.confirmed()
        except SidecarError as error:
            asked.error = error
        self.told.append(asked)


@pytest.fixture
def streaming() -> Streaming:
    return Streaming()


@asynccontextmanager
async def crowd(streaming: Streaming) -> AsyncIterator[Crowd]:
    async with anyio.create_task_group() as group:
        yield Crowd(group, streaming)
        group.cancel_scope.cancel()


settled: Callable[[], Awaitable[None]] = anyio.wait_all_tasks_blocked


async def test_yes_comes_with_the_segment_and_the_restore_point_before_it(streaming: Streaming) -> None:
    streaming.log.commits, streaming.status.protects = 3, False
    async with crowd(streaming) as waiters:
        one = await waiters.wait()
        for commit in (2, 3):
            streaming.store(commit)
            await settled()
            assert not one.done, "there is no restore point that the stream begins with"
        streaming.status.protects = True
        streaming.log.commits = 4
        other = await waiters.wait()
        streaming.confirmations.news()
        await settled()
        assert one.answer == Confirmed("one", 3)
        assert not other.done
        streaming.store(4)
        await settled()
        assert other.answer == Confirmed("one", 4)


async def test_nothing_new_is_answered_at_once(streaming: Streaming) -> None:
    async with crowd(streaming) as waiters:
        assert (await waiters.wait()).answer == Confirmed("one", 0)


async def test_a_look_that_began_before_the_call_does_not_count(streaming: Streaming) -> None:
    """It may have passed the place of the log at which the commit came."""
    log = streaming.log
    log.commits, log.held = 1, True
    async with crowd(streaming) as waiters:
        early = await waiters.wait()
        log.commits = 2
        late = await waiters.many(50)
        streaming.store(1)
        log.let_go()
        await settled()
        assert early.answer == Confirmed("one", 1)
        assert not any(each.done for each in late)
        assert log.looks == 2, "the others share one"
        streaming.store(2)
        await settled()
        assert {each.answer for each in late} == {Confirmed("one", 2)}


async def test_a_look_that_is_cancelled_serves_nobody(streaming: Streaming) -> None:
    """Two wait for the end of a look that began before they came; the one whose look comes next hangs up in its middle."""
    log, gone = streaming.log, anyio.CancelScope()
    log.held = True

    async def leave() -> None:
        with gone:
            await streaming.confirmations.confirmed()

    async with crowd(streaming) as waiters:
        first = await waiters.wait()
        log.commits = 1
        waiters.group.start_soon(leave)
        await settled()
        other = await waiters.wait()
        log.let_go()
        log.held = True
        await settled()
        gone.cancel()
        await settled()
        log.let_go()
        await settled()
        assert first.answer == Confirmed("one", 0)
        assert not other.done
        streaming.store(1)
        await settled()
        assert other.answer == Confirmed("one", 1)


async def test_a_cut_ends_every_wait_and_no_number_of_the_next_stream_counts(streaming: Streaming) -> None:
    streaming.log.commits = 3
    async with crowd(streaming) as waiters:
        waiting = await waiters.many(3)
        streaming.next_stream()
        streaming.store(9)
        await settled()
        assert all(isinstance(each.error, NotDurable) for each in waiting)
        assert "cut" in str(waiting[0].error)
        streaming.log.commits = 10
        later = await waiters.wait()
        assert not later.done
        streaming.store(10)
        await settled()
        assert later.answer == Confirmed("two", 10)


async def test_a_look_during_which_the_stream_was_cut_counts_for_neither(streaming: Streaming) -> None:
    """The feed follows the next stream already, where commits have other numbers: those of this one are not among them."""
    log = streaming.log
    log.commits, log.held = 7, True
    async with crowd(streaming) as waiters:
        one = await waiters.wait()
        streaming.next_stream()
        streaming.store(9)
        other = await waiters.wait()
        log.let_go()
        await settled()
        assert isinstance(one.error, NotDurable)
        assert other.answer == Confirmed("two", 0)


async def test_what_is_stored_with_the_last_segment_before_a_cut_is_stored(streaming: Streaming) -> None:
    streaming.log.commits = 2
    async with crowd(streaming) as waiters:
        one = await waiters.wait()
        streaming.store(2)
        streaming.next_stream()
        await settled()
        assert one.answer == Confirmed("one", 2)


async def test_a_stream_that_is_damaged_confirms_nothing(streaming: Streaming) -> None:
    streaming.log.commits = 2
    async with crowd(streaming) as waiters:
        one = await waiters.wait()
        streaming.status.protects = False  # see `Stream.distrust`
        streaming.store(2)
        await settled()
        assert not one.done
        streaming.end("cut: damaged")
        await settled()
        assert isinstance(one.error, NotDurable)


async def test_a_copy_without_a_place_in_the_stream_takes_nothing_away_that_somebody_relies_on(
    streaming: Streaming,
) -> None:
    """A restore from it would not go on with the stream: what was committed after the copy began would be gone."""
    streaming.log.commits = 1
    confirmations = streaming.confirmations
    async with crowd(streaming) as waiters:
        confirmations.copying()
        one = await waiters.wait()
        streaming.store(1)
        await settled()
        assert one.answer
        with pytest.raises(DatabaseBusy):
            confirmations.leave()
        streaming.next_stream()
        with pytest.raises(DatabaseBusy):  # nor where the stream was cut meanwhile, and its end is not known to be ours
            confirmations.leave()
        confirmations.copying()
        confirmations.leave()
        streaming.log.commits = 2
        other = await waiters.wait()
        streaming.store(2)
        await settled()
        assert not other.done, "the restore point that is published now may be the newest at any moment"


@pytest.mark.parametrize("failure", [LeaseLost("taken over"), StoreUnavailable("down")])
async def test_without_a_lease_that_is_ours_nobody_is_told_yes(streaming: Streaming, failure: SidecarError) -> None:
    """Also where this process was suspended just when the segment was stored."""
    streaming.log.commits = 1
    async with crowd(streaming) as waiters:
        one = await waiters.wait()
        streaming.fence.failure = failure
        streaming.store(1)
        await settled()
        assert one.error is failure
        assert (await waiters.wait()).error is failure


async def test_many_share_one_look_at_the_lease(streaming: Streaming) -> None:
    """A term that has ended is renewed by a request: not by one for each of them."""
    streaming.log.commits = 1
    async with crowd(streaming) as waiters:
        waiting = await waiters.many(100)
        streaming.store(1)
        await settled()
        assert all(each.answer for each in waiting)
    assert streaming.log.looks <= 2
    assert streaming.fence.asked <= 2


async def test_who_asks_first_is_answered_first(streaming: Streaming) -> None:
    """Else somebody who asks again at once, each time, also waits for the answers of the others."""
    streaming.log.commits = 1
    async with crowd(streaming) as waiters:
        waiting = await waiters.many(100)
        streaming.store(1)
        await settled()
        assert [id(each) for each in waiters.told] == [id(each) for each in waiting]


async def test_without_leases_nobody_is_asked_for_one(streaming: Streaming) -> None:
    """The store would be asked for its time."""
    streaming.fence.exclusive = False
    async with crowd(streaming) as waiters:
        assert (await waiters.wait()).answer
    assert streaming.fence.asked == 0


async def test_where_nothing_is_streamed_it_says_why_and_when_to_ask_again(streaming: Streaming) -> None:
    streaming.end("its journal mode is delete")
    async with crowd(streaming) as waiters:
        refused = (await waiters.wait()).error
        assert isinstance(refused, NotDurable)
        assert refused.message == "nothing is streamed now: its journal mode is delete"
        assert refused.retry_after == 1.0
        streaming.confirmations.paused(50.0)
        resting = (await waiters.wait()).error
        assert isinstance(resting, NotDurable)
        assert resting.retry_after == pytest.approx(50.0, abs=5.0)


async def test_a_cut_that_the_look_finds_is_told(streaming: Streaming) -> None:
    streaming.log.cut = StreamCut(CutCause.REPLACED, "the file was replaced")
    async with crowd(streaming) as waiters:
        refused = (await waiters.wait()).error
    assert isinstance(refused, NotDurable)
    assert "the file was replaced" in refused.message


async def test_after_the_end_nobody_waits(streaming: Streaming) -> None:
    streaming.log.commits = 1
    async with crowd(streaming) as waiters:
        last = await waiters.wait()
        streaming.store(1)
        streaming.log.commits = 2
        lost = await waiters.wait()
        streaming.confirmations.close("the daemon stops")
        streaming.store(2)
        await settled()
        assert last.answer == Confirmed("one", 1)
        assert lost.error
        assert (await waiters.wait()).error
        assert "the daemon stops" in str(lost.error)


async def test_waits_are_counted(streaming: Streaming) -> None:
    waits = streaming.status.waits
    streaming.log.commits = 1
    async with crowd(streaming) as waiters:
        await waiters.many(3)
        assert (waits.waiting, waits.stored, waits.failed) == (3, 0, 0)
        streaming.store(1)
        streaming.log.commits = 2
        await waiters.many(2)
        assert (waits.waiting, waits.stored, waits.failed) == (2, 3, 0)
    assert (waits.waiting, waits.stored, waits.failed) == (0, 3, 2)
