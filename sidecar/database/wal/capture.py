"""Follows databases from the event loop: one `Capture` for the process, one `Feed` for each database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.from_thread import BlockingPortal

from sidecar.database.driver import Driver
from sidecar.database.wal.backlog import Batch
from sidecar.database.wal.changed import Changed
from sidecar.database.wal.cuts import CutCause, NotStreamable, StreamCut
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.eligibility import require_streamable
from sidecar.database.wal.follower import Follower
from sidecar.database.wal.habit import Habit
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.limits import Limits
from sidecar.database.wal.reader import NotNow
from sidecar.database.wal.rest import at_rest
from sidecar.database.wal.worker import Track, Worker
from sidecar.log import log
from sidecar.model import LogPosition

_AGAIN = 0.02  # seconds until what is locked is tried again

T = TypeVar("T")


class FeedState(StrEnum):
    """What a feed does."""

    OFF = "off"
    FOLLOWING = "following"
    PARKED = "parked"  # everything is captured and in the database's file, and we block no checkpoint or reset
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """A feed at this moment. `wal_frames` are committed frames in the log, after a cut those that were in it; `oldest` is
    when the oldest commit that waits to be taken was captured, in monotonic seconds. `leaves_log`, of a cut: a log that
    belongs to the file that was followed has, or may get, commits."""

    state: FeedState
    commits: int = 0
    wal_frames: int = 0
    oldest: float | None = None
    cut: StreamCut | None = None
    leaves_log: bool = False


class Capture:
    """All databases of a process, followed in one thread. `driver` is the SQLite library of this process."""

    def __init__(self, driver: Driver, limits: Limits | None = None) -> None:
        self.driver, self.limits = driver, limits or Limits()
        self._worker: Worker | None = None
        self._portal: BlockingPortal | None = None
        self._feeds: dict[Path, Feed] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Databases are followed inside this context; leaving it closes them all."""
        async with BlockingPortal() as portal, anyio.create_task_group() as group:
            self._portal, self._worker = portal, Worker()
            group.start_soon(self._follow, self._worker)
            try:
                yield
            finally:
                self._worker.stop()
                self._worker = None

    @staticmethod
    async def _follow(worker: Worker) -> None:
        try:
            await to_thread.run_sync(worker.run, limiter=CapacityLimiter(1))
        except Exception:  # a bug here must stop neither the app nor the backups; every stream is cut
            log.exception("following failed: nothing is streamed until the next start")

    def feed(self, path: Path) -> "Feed":
        """The feed of a database: always the same one for a path."""
        return self._feeds.setdefault(path, Feed(self, path))

    @property
    def worker(self) -> Worker:
        """The thread's work. Raises RuntimeError outside `running`."""
        if self._worker is None:
            raise RuntimeError("nothing is followed outside of Capture.running()")
        return self._worker

    async def call(self, work: Callable[[Worker], T]) -> T:
        """Do something in the thread that follows. Raises what it raises, and `StreamCut` when a bug has ended the thread."""
        done, outcome = anyio.Event(), list[tuple[T | None, BaseException | None]]()
        worker = self.worker

        def order() -> None:
            try:
                outcome.append((work(worker), None))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the caller
                outcome.append((None, error))
            self.tell(done.set)

        try:
            worker.put(order)
        except RuntimeError as ended:
            raise StreamCut(CutCause.ERROR, str(ended)) from ended
        await done.wait()
        result, error = outcome[0]
        if error:
            raise error
        return result  # type: ignore[return-value]

    def tell(self, news: Callable[[], None]) -> None:
        """Have something done in the event loop, from the thread, which does not wait for it."""
        if self._portal:
            self._portal.start_task_soon(news)


class Feed:
    """The commits of one database, as they are captured."""

    def __init__(self, capture: Capture, path: Path) -> None:
        self.path = path
        self._capture = capture
        self.run = 0  # counts how often it was begun
        self._habit = Habit()
        self._track: Track | None = None
        self._news: anyio.Event | None = None

    async def begin(self, since: Stamps | None = None) -> LogPosition:
        """Follow from now on, or from when the database was at rest with these stamps; commits are counted from 1.

        Raises `NotStreamable` where that is not possible, `StreamCut` when it failed.
        """
        await to_thread.run_sync(require_streamable, self.path, self._capture.driver)
        return await self._open(0, lambda follower: follower.start(since))

    async def at_rest(self) -> Stamps | None:
        """The stamps of the database, from which it can be followed later; None where its log has commits, say."""
        return await to_thread.run_sync(at_rest, self.path)

    async def resume(self, log: LogPosition, commits: int) -> LogPosition:
        """Go on after `log`, where commit `commits` was the last one. Raises `StreamCut` unless the log proves it."""
        await to_thread.run_sync(require_streamable, self.path, self._capture.driver)
        return await self._open(commits, lambda follower: follower.resume(log))

    async def take(self, timeout: float) -> Batch:
        """What was captured since the last time, as soon as there is something; nothing after `timeout` seconds.

        Raises `StreamCut` when the stream has ended, once all that was captured before has been taken.
        """
        track = self._require_track()
        news = self._news = anyio.Event()
        if not track.has_news:  # checked after the event exists, so that none can be missed
            # Not a cancel scope: its end costs several times as much, and there may be a hundred idle databases.
            timer = asyncio.get_running_loop().call_later(timeout, news.set)
            try:
                await news.wait()
            finally:
                timer.cancel()
        self._news = None
        looked = self.looked  # before: what a look captures meanwhile may be too late for this batch
        batch = replace(track.follower.backlog.take(), looked=looked)
        if not batch.commits and track.cut:
            raise StreamCut(track.cut.cause, str(track.cut)) from track.cut
        return batch

    async def flush(self) -> None:
        """Return when all that was committed before this call is captured. Raises `StreamCut`."""
        await self._hopped(lambda _follower: None)

    async def locate(self, index: WalIndex) -> int | None:
        """The number of the commit that a snapshot shows if `index` was read beside it; None if that is not known.

        Raises `StreamCut`.
        """
        return await self._hopped(lambda follower: follower.commit_at(index))

    def index(self) -> WalIndex:
        """The header of the wal-index at this moment; within `present`, so that the database is open.

        Raises `StreamCut` while nothing is followed, and `NotNow` while the header is being written.
        """
        return self._require_track().follower.index()

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """Keep the database open, even if no other process has it open. Raises `StreamCut`."""
        track = self._require_track()
        with anyio.CancelScope(shield=True):  # the thread does it whether or not somebody still waits for that
            await self._stay(track, 1)
        try:
            await self.flush()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._stay(track, -1)

    async def stop(self) -> None:
        """Close the database. What was captured before can still be taken; call `flush` first to have it all."""
        with suppress(StreamCut):  # then it is closed already
            await self._capture.call(lambda worker: worker.remove(self.path))
        if self._track and self._track.cut is None:
            self._track.cut = StreamCut(CutCause.STOPPED, f"{self.path} is not followed any more")

    @property
    def changed(self) -> Changed:
        """What the captured commits have written. Raises `StreamCut` where nothing was ever followed."""
        return self._require_track().follower.changed

    @property
    def looked(self) -> float:
        """When the log was last looked at, in monotonic seconds: what was committed before that is captured."""
        return self._track.looked if self._track else 0.0

    @property
    def status(self) -> FeedStatus:
        """What it does at this moment."""
        track = self._track
        if track is None:
            return FeedStatus(FeedState.OFF)
        follower = track.follower
        commits, oldest, frames = follower.commits, follower.backlog.oldest, follower.position.frame
        if track.cut:
            off = track.cut.cause is CutCause.STOPPED
            state = FeedState.OFF if off else FeedState.CUT
            return FeedStatus(state, commits, frames, oldest, None if off else track.cut, track.leaves_log)
        return FeedStatus(FeedState.PARKED if follower.parked else FeedState.FOLLOWING, commits, frames, oldest)

    async def _open(self, commits: int, begin: Callable[[Follower], object]) -> LogPosition:
        follower = Follower(self.path, self._capture.driver, self._capture.limits, self._habit)
        track = Track(self.path, follower, self._on_news)

        def open_and_begin(worker: Worker) -> LogPosition:
            worker.remove(self.path)
            try:
                track.follower.open(commits)
                begin(track.follower)
            except BaseException:
                track.follower.close()
                raise
            worker.add(track)
            return track.follower.position

        try:
            position = await self._capture.call(open_and_begin)
        except NotNow:
            raise NotStreamable(f"{self.path} is locked exclusively by a program") from None
        except StreamCut as cut:
            if cut.cause is CutCause.MODE:
                raise NotStreamable(str(cut)) from cut
            raise
        self._track, self.run = track, self.run + 1
        return position

    async def _hopped(self, then: Callable[[Follower], T]) -> T:
        """Hop, then call `then`, retrying while the database is locked."""
        track = self._require_track()
        while True:
            if track.cut:
                raise StreamCut(track.cut.cause, str(track.cut)) from track.cut
            try:
                return await self._capture.call(lambda _worker: self._hop(track, then))
            except NotNow:
                await anyio.sleep(_AGAIN)

    @staticmethod
    def _hop(track: Track, then: Callable[[Follower], T]) -> T:
        try:
            track.attempt(track.follower.hop)
        finally:
            if track.has_news:
                track.on_news()
        return then(track.follower)

    async def _stay(self, track: Track, change: int) -> None:
        def stay(_worker: Worker) -> None:
            track.follower.staying += change
            if not track.follower.staying:  # who closed the database meanwhile was not the last one
                track.touched, track.due = True, 0.0

        await self._capture.call(stay)

    def _require_track(self) -> Track:
        if self._track is None:
            raise StreamCut(CutCause.STOPPED, f"{self.path} is not followed")
        return self._track

    def _on_news(self) -> None:
        """Wake the waiting task once. Called in the worker's thread."""
        if news := self._news:
            self._news = None
            self._capture.tell(news.set)
