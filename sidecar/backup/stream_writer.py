"""Writes one stream to the store: names it, and publishes its segments one at a time and in order."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio
from anyio import to_thread

from sidecar.backup.pace import Pace
from sidecar.backup.previous_images import ImageCache, PreviousImages
from sidecar.backup.segmenter import Outgoing, Segmenter, StoreTime, StreamIdentity
from sidecar.database import Lineage
from sidecar.database.wal import Batch, CutCause, StreamCut
from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    DamagedSegment,
    LeaseLost,
    OutcomeUnknown,
    SidecarError,
    StoreMissing,
    Transient,
    UnsupportedSegment,
)
from sidecar.host import Clock
from sidecar.lease import Fence, StreamRecord
from sidecar.log import log
from sidecar.model import Database, ObjectInfo, Origin, Position, Timestamp
from sidecar.repository.increments import Increments
from sidecar.repository.keys import StreamName
from sidecar.status import Status

FIRST_RETRY, LONGEST_RETRY = 0.5, 10.0
_REFUSALS = (AccessDenied, ConfigurationError, StoreMissing)  # a request that ends so has had no effect


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The holder, the version of SQLite that captures, how long to pause after repeated cuts, the pace, and memory for images."""

    holder: str
    sqlite: str
    rest: timedelta
    pace: Pace
    cache: ImageCache = field(default_factory=ImageCache)


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where streams begin: `term` is what this term's boot continued from, `above` the newest timestamp in the store.

    `after` is what the first commit of the stream continues; None if that is not proved.
    """

    term: Origin | None
    above: Timestamp | None
    after: Origin | None


class StreamWriter:
    """Writes one stream of one database until it is cut."""

    def __init__(
        self,
        database: Database,
        start: StreamStart,
        increments: Increments,
        lineage: Lineage,
        fence: Fence,
        options: StreamOptions,
        status: Status,
        clock: Clock,
    ) -> None:
        self.name: StreamName | None = None
        self.images = PreviousImages(options.cache)
        self._database = database
        self._start = start
        self._increments = increments
        self._lineage = lineage
        self._fence = fence
        self._options = options
        self._status = status.databases[database.name].stream
        self._clock = clock
        self._segmenter: Segmenter | None = None
        self._naming = anyio.Lock()
        self._outgoing: Outgoing | None = None
        self._uncertain = False  # an attempt to publish it was abandoned or got no reply

    async def named(self) -> Segmenter:
        """Name the stream, which needs the store: its timestamp is chosen like that of a restore point. Raises `SidecarError`."""
        if self._segmenter:  # called every second for every database
            return self._segmenter
        async with self._naming:
            if self._segmenter is None:
                now = await self._fence.ensure_held()
                clock = StoreTime(now, self._clock.now(), self._clock.monotonic())
                start = await self._stamp(now)
                self.name = name = StreamName(start, self._fence.epoch, self._options.holder)
                self._lineage.stream(str(name))
                self._fence.streamed(self._database.name, StreamRecord(str(name), self._start.term))
                self._segmenter = Segmenter(self._identity(str(name)), clock, self.images)
                self._status.name = str(name)
                log.info(
                    "stream begun", database=self._database.name, stream=str(name), after=_named(self._start.after)
                )
            return self._segmenter

    async def named_eventually(self) -> None:
        """Name the stream, retrying while the store is unreachable; captured commits wait meanwhile.

        Raises `LeaseLost`, and `StreamCut` if the store refuses a request, or has what this version cannot read.
        """
        delay = FIRST_RETRY
        while True:
            try:
                await self.named()
            except LeaseLost:
                raise
            except _REFUSALS as error:
                raise _refused(error) from error
            except UnsupportedSegment as error:
                raise StreamCut(CutCause.ERROR, str(error)) from error
            except SidecarError as error:
                log.debug("stream not named yet", database=self._database.name, error=error.message)
                await self._clock.sleep(delay * (0.5 + 0.5 * self._clock.random()))
                delay = min(LONGEST_RETRY, 2 * delay)
            else:
                return

    @property
    def waiting(self) -> bool:
        """Whether there are commits that are in no segment yet."""
        return self._segmenter is not None and self._segmenter.oldest is not None

    @property
    def unsettled(self) -> bool:
        """Whether the store may have stored a segment, or may still do so, without our knowing."""
        return self._uncertain

    def add(self, batch: Batch) -> None:
        """Append captured commits to the named stream. Raises `StreamCut` if something is missing in between.

        Await nothing between taking the batch and this call: a cancellation there would lose it.
        """
        if self._segmenter is None:
            raise StreamCut(CutCause.ERROR, "a stream without a name has no segments")
        self._segmenter.add(batch)
        self._status.commits += sum(each.number - each.first + 1 for each in batch.commits)
        self._note_pending()

    async def publish(self) -> None:
        """Publish everything that is waiting.

        Raises `LeaseLost`, `StreamCut` if the store refuses a segment or the lease, or another object has its key, and what
        `named` raises.
        """
        segmenter = await self.named()
        while self._outgoing or segmenter.oldest is not None:
            self._outgoing = self._outgoing or await to_thread.run_sync(segmenter.next)
            if self._outgoing:
                self._report_mistake(self._outgoing)
                self._confirm(self._outgoing, await self._until_known(self._outgoing), segmenter)

    def _identity(self, name: str) -> StreamIdentity:
        holder, sqlite = self._options.holder, self._options.sqlite
        return StreamIdentity(self._database.name, name, holder, self._fence.epoch, sqlite, self._start.after)

    async def _stamp(self, now: datetime) -> Timestamp:
        """When the stream begins: now by the store's clock, and later than all existing restore points and streams."""
        stamp = Timestamp.of(now)
        beyond = await self._increments.latest_beyond(self._database.name, stamp)
        above = max((each for each in (beyond, self._start.above) if each), default=None)
        return max(stamp, above.next()) if above else stamp

    async def _until_known(self, outgoing: Outgoing) -> datetime:
        """Publish a segment, retrying with the same key and bytes until its outcome is known. Returns when it was written."""
        delay, failures = FIRST_RETRY, 0
        while True:
            try:
                await self._fence.ensure_held()
                info = await self._attempt(outgoing)
                # If the machine was suspended meanwhile, another one may have taken over.
                at = await self._fence.require_covered(info.last_modified)
            except LeaseLost:
                raise
            except _REFUSALS as error:  # of the lease: an earlier attempt may have stored the segment
                raise _refused(error) from error
            except DamagedSegment as error:
                raise StreamCut(CutCause.ERROR, error.message) from error
            except SidecarError as error:
                failures += 1
                self._report_failure(error, failures)
                await self._clock.sleep(delay * (0.5 + 0.5 * self._clock.random()))
                delay = min(LONGEST_RETRY, 2 * delay)
            else:
                return at

    async def _attempt(self, outgoing: Outgoing) -> ObjectInfo:
        """Publish a segment. Raises `StreamCut` if the store refuses it, so that this attempt certainly had no effect."""
        before, self._uncertain = self._uncertain, True
        try:
            return await self._increments.publish(outgoing.key, outgoing.data)
        except OutcomeUnknown:
            raise
        except Transient:
            self._uncertain = before
            raise
        except _REFUSALS as error:
            self._uncertain = before
            raise _refused(error) from error

    def _report_failure(self, error: SidecarError, failures: int) -> None:
        """Log a transient failure once, when it begins: the backup cycles report a lasting one, and the lag shows it."""
        self._note_pending()
        if failures == 1 or (failures % 60 == 0 and not isinstance(error, Transient)):
            log.warning("segment not published", database=self._database.name, error=error.message, hint=error.hint)

    def _report_mistake(self, outgoing: Outgoing) -> None:
        if outgoing.mistake:
            hint = "the segment has whole pages instead, so nothing is lost; please report this, and check the memory of the machine"
            log.error("segment encoded wrongly", database=self._database.name, error=outgoing.mistake, hint=hint)

    def _confirm(self, outgoing: Outgoing, at: datetime, segmenter: Segmenter) -> None:
        """Record that the store has the segment and no machine had taken over. A transaction counts with its last segment."""
        status = self._status
        status.segments += 1
        status.uploaded += len(outgoing.data)
        status.whole_pages += outgoing.whole_pages
        segmenter.time.correct(at, self._clock.now(), self._clock.monotonic())
        if outgoing.whole:
            status.confirmed = outgoing.last
            record = StreamRecord(str(self.name), self._start.term, outgoing.last, outgoing.time)
            self._fence.streamed(self._database.name, record)
        self._outgoing, self._uncertain, status.refused = None, False, ""
        self._note_pending()

    def _note_pending(self) -> None:
        waiting = [self._outgoing.since] if self._outgoing else []
        if self._segmenter and self._segmenter.oldest is not None:
            waiting.append(self._segmenter.oldest)
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._status.pending_since = now - timedelta(seconds=monotonic - min(waiting)) if waiting else None


def _refused(error: SidecarError) -> StreamCut:
    return StreamCut(CutCause.REFUSED, f"the store refuses what a stream needs: {error}")


def _named(origin: Origin | None) -> str | None:
    if isinstance(origin, Position):
        return f"{origin.stream}/{origin.commit}"
    return origin.key if origin else None
