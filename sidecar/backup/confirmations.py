"""Confirms that commits are in the store: many waiters share one look at the log, one segment, and one look at the lease."""

from dataclasses import dataclass, field

import anyio

from sidecar.concurrency import Shared
from sidecar.database import Feed
from sidecar.database.wal import StreamCut
from sidecar.errors import DatabaseBusy, NotDurable
from sidecar.lease import Fence
from sidecar.status import StreamStatus

NOT_STREAMED = "every interval a restore point is published; `sidecar status` says why nothing is streamed"
CUT = "ask again: what was committed is in the restore point that begins the next stream"
AGAIN_SECONDS = 1.0  # until the next attempt may succeed


@dataclass(frozen=True, slots=True)
class Confirmed:
    """All commits of a database up to `commit` of `stream` are in the store; 0 is where the stream begins, which has no name yet."""

    stream: str
    commit: int


@dataclass(frozen=True, slots=True)
class _Found:
    """The last commit that was captured in this run of the feed."""

    run: int
    commit: int


@dataclass(eq=False, slots=True)
class _Waiter:
    """Waits for a commit of the current stream. `done` without `stored`: the stream has ended before."""

    commit: int
    done: anyio.Event = field(default_factory=anyio.Event)
    stored: Confirmed | None = None


class Confirmations:
    """What the store has of the current stream of one database.

    Its publisher says when a stream has `begun` and `ended`, and when there is `news` in the status.
    """

    def __init__(self, feed: Feed, fence: Fence, status: StreamStatus) -> None:
        self._feed = feed
        self._fence = fence
        self._status = status
        self._run: int | None = None  # of the feed: the stream that is published now
        self._over = ""
        self._told = self._told_before = (
            0  # who has heard that something is stored: until now, and until the last copy began
        )
        self._paused_until = 0.0
        # In order: who asks again after each answer then waits as long as the others, and not for their answers, too.
        self._waiters: dict[_Waiter, None] = {}
        self._look = Shared(self._captured)
        self._check = Shared(fence.ensure_held)

    def begun(self) -> None:
        """A stream begins with what the feed captures from now on."""
        self.ended()
        self._run = self._feed.run

    def ended(self) -> None:
        """What is captured from now on is in no stream, and what waits comes into none."""
        self._run = None
        for each in self._waiters:
            each.done.set()
        self._waiters.clear()

    def paused(self, seconds: float) -> None:
        """No stream begins sooner."""
        self._paused_until = anyio.current_time() + seconds

    def close(self, reason: str) -> None:
        """Nothing is published any more, and nobody needs to wait."""
        self._over = reason
        self.ended()

    def copying(self) -> None:
        """A copy for a restore point is begun."""
        self._told_before = self._told

    def leave(self) -> None:
        """A restore point of that copy will not lead on to a stream, whether that goes on or was cut meanwhile.

        Raises `DatabaseBusy` where somebody was told since then that it is stored: the copy has to be made again.
        """
        if self._told != self._told_before:
            raise DatabaseBusy(
                "the copy's place in the stream is not known, and somebody waited for what came after it",
                "it is tried again, and the stream goes on meanwhile",
            )
        self._status.protects = False

    def news(self) -> None:
        """The status has changed: that may be what somebody waits for."""
        for each in [each for each in self._waiters if self._has(each.commit)]:
            each.stored = self._confirm(each.commit)
            each.done.set()
            self._waiters.pop(each, None)

    async def confirmed(self) -> Confirmed:
        """Return once everything that was committed before this call is in the store, under a lease that is ours.

        It may be cancelled at any time. Raises `NotDurable` where nothing is streamed, or where the stream ends before that,
        `LeaseLost`, and what renewing the lease raises.
        """
        began, waits = anyio.current_time(), self._status.waits
        waits.waiting += 1
        try:
            found = await self._confirmed()
        except BaseException:
            waits.failed += 1
            raise
        finally:
            waits.waiting -= 1
        waits.seconds.observe(anyio.current_time() - began)
        return found

    async def _confirmed(self) -> Confirmed:
        run = self._require_run()
        found = await self._look()
        if found.run != run or self._require_run() != run:
            raise NotDurable("the stream was cut meanwhile", CUT, retry_after=AGAIN_SECONDS)
        stored = await self._stored(found.commit)
        if self._fence.exclusive:  # this process may have been suspended until now
            await self._check()
        return stored

    async def _stored(self, commit: int) -> Confirmed:
        if self._has(commit):
            return self._confirm(commit)
        waiter = _Waiter(commit)
        self._waiters[waiter] = None
        try:
            await waiter.done.wait()
        finally:
            self._waiters.pop(waiter, None)
        if waiter.stored is None:
            self._require_run()
            raise NotDurable("the stream was cut meanwhile, and another one begins", CUT, retry_after=AGAIN_SECONDS)
        return waiter.stored

    def _has(self, commit: int) -> bool:
        return self._status.protects and self._status.confirmed >= commit

    def _confirm(self, commit: int) -> Confirmed:
        self._told += 1
        return Confirmed(self._status.name or "", commit)

    def _require_run(self) -> int:
        self._fence.require_held()
        if self._run is None:
            reason = self._over or self._status.reason or "the stream begins"
            again = max(AGAIN_SECONDS, self._paused_until - anyio.current_time())
            raise NotDurable(f"nothing is streamed now: {reason}", NOT_STREAMED, retry_after=again)
        return self._run

    async def _captured(self) -> _Found:
        try:
            await self._feed.flush()
        except StreamCut as cut:
            raise NotDurable(f"the stream is cut: {cut}", CUT, retry_after=AGAIN_SECONDS) from cut
        return _Found(self._feed.run, self._feed.status.commits)
