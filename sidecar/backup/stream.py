"""One idea: the stream of one database, which is captured from the boot on, cut if continuity is lost, and then restarted."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sidecar.backup.confirmations import Confirmations
from sidecar.backup.mixing import Mixing
from sidecar.backup.pace import LOOK_SECONDS, Cuts, until_next_look
from sidecar.backup.previous_images import Copies
from sidecar.backup.stream_gate import Gate
from sidecar.backup.stream_writer import StreamOptions, StreamStart, StreamWriter
from sidecar.database import Feed
from sidecar.database.wal import CutCause, NotStreamable, Stamps, StreamCut
from sidecar.errors import LeaseLost, SidecarError, Transient, UnsupportedSegment
from sidecar.host import Clock
from sidecar.lease import Fence, StreamRecord
from sidecar.log import log
from sidecar.model import Database, Origin, Position, Snapshot, Timestamp
from sidecar.repository.guard import REPLACING
from sidecar.status import Kind, Status

ENDED_KEPT = 100  # streams in which a snapshot may have begun
BEGUN = "a stream has begun, which needs a restore point as its entry"
BUG = "a bug has stopped streaming until the next start; the log has the details"
ENDED = "a stream was cut, and the next one has not begun yet"
_UNWELCOME = {CutCause.EXCLUSIVE, CutCause.MODE}  # the app does something that conflicts with our open database
_DOUBTFUL = {CutCause.REPLACED, CutCause.MODE}  # a snapshot may be of another file, whose journal mode was another one


class Stream:
    """Streams the commits of one database. `run` is one task; the cycle calls `locate` and `entered` concurrently."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        gate: Gate,
        write: Callable[[StreamStart], StreamWriter],
        options: StreamOptions,
        status: Status,
        clock: Clock,
        fence: Fence,
    ) -> None:
        """`gate` decides whether to stream; `write` creates the writer of a new stream."""
        self.database = database
        self._gate = gate
        self._unsettled = False  # whether a previous stream ended while the outcome of a segment was unknown
        self._owed = False  # a restore point is due after a cut
        self.mixing = Mixing(feed)
        self._feed = feed
        self._write = write
        self._options = options
        self._report = status
        self._status = status.databases[database.name].stream
        self._clock = clock
        self._cuts = Cuts(options.rest.total_seconds())
        self._start = StreamStart(None, None, None)
        self._boot: _Boot | None = None
        self._writer: StreamWriter | None = None
        self._ended: dict[int, str] = {}  # the names of previous streams, by the run of the feed
        self._distrusted: StreamCut | None = None
        self._looked = self._used = clock.monotonic()  # when the log was looked at; when something was taken from it
        self.copies = Copies()
        self.confirmations = Confirmations(feed, fence, self._status)

    async def begin(self, origin: Origin | None, end: Origin | None, above: Timestamp | None) -> StreamRecord:
        """Start following, before the app starts. `origin` is the proved position of the database, or None.

        `end` is where the main line ends in the store, from which this term continues. `above` is the timestamp of the
        newest restore point. Returns the record for the lease, without a stream if there is nothing to follow yet, or if
        the store is unreachable and the stream gets its name later. Raises `LeaseLost`, and `UnsupportedSegment`.
        """
        self._start = StreamStart(end, above, None)
        try:
            writer = await self._follow(origin)
        except (NotStreamable, StreamCut) as reason:
            self._inactive(str(reason))
            if origin and (stamps := await self._feed.at_rest()):
                self._boot = _Boot(origin, stamps)
            return StreamRecord(None, end)
        try:
            await writer.named()
        except (LeaseLost, UnsupportedSegment):
            raise
        except SidecarError as error:  # commits are captured meanwhile and wait
            log.warning("stream not named yet", database=self.database.name, error=error.message, hint=error.hint)
        return StreamRecord(str(writer.name) if writer.name else None, end)

    async def run(self, demand: Callable[[str], None], streamed: Callable[[float], None]) -> None:
        """Stream as long as we have the lease. `demand` requests a restore point; `streamed` is called with what is protected."""
        try:
            while True:
                try:
                    writer = self._writer or await self._follow_when_possible(demand)
                    if not self._status.protects:
                        demand(BEGUN)
                    await self._publish_until_cut(writer, streamed)
                except StreamCut as cut:
                    await self._cut(cut, demand)
        except LeaseLost:
            self._inactive("another machine has taken over")
            await self._feed.stop()
        except Exception:
            self._inactive(BUG)
            demand(ENDED)
            await self._feed.stop()
            raise

    async def locate(self, snapshot: Snapshot) -> Position | None:
        """The position of a snapshot in its stream, if any. Raises the `Transient` family while the store is unreachable.

        If the stream was cut while the snapshot was copied, everything that it has after the snapshot is in the store.
        Raises `DatabaseBusy` if a caller of wait relies on commits that a restore from this snapshot alone would lack.
        """
        name, followed = None, snapshot.followed
        if followed:
            name = self._ended.get(followed.run)
            if (writer := self._writer) and followed.run == self._feed.run:
                name = await _name_of(writer)
        if name and followed:
            return Position(name, followed.commit)
        self.confirmations.leave()
        return None

    def entered(self, position: Position | None) -> None:
        """Record that a restore point names this position, so that what follows in the stream can be restored; None if it names none."""
        if position is None:
            self._status.protects = False
        elif self._writer and position.stream == str(self._writer.name) and self._distrusted is None:
            self._status.protects = True
            self.confirmations.news()

    def copying(self) -> None:
        """Note that a copy for a restore point begins. If nothing is followed, no later stream continues what it contains.

        Call `copies.place` once it is known where.
        """
        self.copies.begin()
        self.confirmations.copying()
        if self._writer is None:
            self._boot = None

    def distrust(self, reason: str, cause: CutCause = CutCause.DAMAGED) -> None:
        """Cut the stream, because it or what it continues differs from the database: it protects nothing any more."""
        self._status.protects = False
        if self._writer:
            self._distrusted = StreamCut(cause, reason)

    async def finish(self) -> None:
        """Publish the rest after the app has stopped. If that fails, the final restore point still has it."""
        try:
            if writer := self._writer:
                with suppress(StreamCut):  # what was captured before the cut is still published
                    await self._feed.flush()
                with suppress(StreamCut):
                    await self._collect(writer, 0.0)
                await writer.publish()
                self.confirmations.news()
        except (SidecarError, StreamCut) as error:
            log.warning("end of the stream not published", database=self.database.name, error=str(error))
        finally:
            self.confirmations.close("the daemon is stopping, with a final backup")

    async def settle(self) -> None:
        """Publish again the segment at which `finish` was cancelled, until its outcome is known."""
        if self._writer and self._writer.unsettled:
            with suppress(SidecarError, StreamCut):
                await self._writer.publish()

    @property
    def unsettled(self) -> bool:
        """Whether the outcome of a segment is unknown, so that no other machine may start writing yet."""
        return self._unsettled or (self._writer is not None and self._writer.unsettled)

    async def _follow_late(self) -> StreamWriter:
        """Follow a database that the app already uses: from the boot on if nothing can have been missed, else from now on."""
        if boot := self._boot:
            try:
                return await self._follow(boot.origin, boot)
            except StreamCut as cut:
                self._boot = None
                log.debug("stream restarted", database=self.database.name, reason=str(cut))
        return await self._follow(None)

    async def _follow(self, after: Origin | None, boot: "_Boot | None" = None) -> StreamWriter:
        """Start following, with `boot` from then on. Raises `NotStreamable` and `StreamCut`."""
        if reason := await self._gate.why_not():
            raise NotStreamable(reason)
        self._cuts.began(self._clock.monotonic())  # a failed attempt counts, or the next one would follow at once
        await self._feed.begin(boot.stamps if boot else None)
        if self._boot is not boot:  # a restore point was copied meanwhile
            after = None
        self._boot = None
        start, self._distrusted = self._start, None
        self._owed = False
        self._writer = self._write(StreamStart(start.term, start.above, after))
        self.copies.follow(self._feed.run, self._writer.images)
        status = self._status
        status.active, status.reason, status.since = True, "", self._clock.now()
        status.name, status.protects, status.confirmed = None, after is not None, 0
        self.confirmations.begun()
        return self._writer

    async def _follow_when_possible(self, demand: Callable[[str], None]) -> StreamWriter:
        while True:
            try:
                return await self._follow_late()
            except NotStreamable as reason:
                self._inactive(reason.reason)
                if self._owed:
                    self._owed = False
                    demand(ENDED)
                await self._clock.sleep(LOOK_SECONDS)

    def _inactive(self, reason: str) -> None:
        """Record that nothing is streamed now. The reason is logged when it changes."""
        self._unsettled = self.unsettled
        if self._writer and self._writer.name:
            self._start = StreamStart(self._start.term, self._writer.name.start, None)
        self.copies.leave()
        self._writer = None
        status = self._status
        if status.active or status.since is None:
            status.since = self._clock.now()
        status.active = status.protects = False
        status.pending_since = None
        if reason != status.reason:
            status.reason = reason
            log.info("not streaming", database=self.database.name, reason=reason)
        self.confirmations.ended()

    async def _publish_until_cut(self, writer: StreamWriter, streamed: Callable[[float], None]) -> None:
        await writer.named_eventually()
        self._used = self._clock.monotonic()
        while True:
            await self._collect(writer, until_next_look(self._clock.monotonic(), self._used))
            if self._distrusted:
                raise self._distrusted
            if writer.waiting:
                await self._options.pace.turn()
                with suppress(StreamCut):  # raised again once everything before it is published
                    await self._collect(writer, 0.0)
            looked = self._looked
            await writer.publish()
            self.confirmations.news()
            if self._status.protects:
                streamed(looked)

    async def _collect(self, writer: StreamWriter, timeout: float) -> None:
        """Take what was captured, waiting up to `timeout` seconds if there is nothing yet."""
        await writer.named()
        batch = await self._feed.take(timeout)
        writer.add(batch)
        self._looked = batch.looked
        if batch.commits:
            self._used = self._clock.monotonic()
        self._status.wal_frames = self._feed.status.wal_frames

    async def _cut(self, cut: StreamCut, demand: Callable[[str], None]) -> None:
        """Publish what was captured before the cut, and pause. The next stream needs a restore point as its entry."""
        mixed = bool(self.mixing.suspicion)
        expected = self._status.setting != "on" and cut.cause in _UNWELCOME
        if cut.cause in _UNWELCOME:
            self._gate.refuse(str(cut))
        self._status.cuts[cut.cause] += 1
        self._status.last_cut, self._status.last_cut_at = f"{cut.cause}: {cut}", self._clock.now()
        hint = "a restore point follows within a minute, then a new stream; no commit is lost unless this machine is lost first"
        if mixed:
            hint = f"{REPLACING}; {hint}"
        refused = cut.cause is CutCause.REFUSED
        again = refused and self._status.refused == str(cut)
        tell = log.debug if again else log.info if expected else log.warning
        tell("stream cut", database=self.database.name, cause=str(cut.cause), error=str(cut), hint=hint)
        self._status.refused = str(cut) if refused else ""
        if self._writer:
            with suppress(StreamCut):
                if not refused and self._writer.name:  # a stream that was not let begin has no segments
                    await self._writer.publish()
            self.confirmations.news()
            if self._writer.name and cut.cause not in _DOUBTFUL:
                self._ended = dict([*self._ended.items(), (self._feed.run, str(self._writer.name))][-ENDED_KEPT:])
        wait, rest = self._cuts.pause(self._clock.monotonic())
        if refused:
            wait, rest = 0.0, self._options.rest.total_seconds()
        self.confirmations.paused(wait + rest)
        self._inactive(f"cut: {cut}")
        await self._feed.stop()
        self._owed = True
        await self._clock.sleep(wait)
        if rest:
            self._owed = False
            demand(ENDED)
            self._rest(rest, again=again)
            await self._clock.sleep(rest)

    def _rest(self, seconds: float, *, again: bool) -> None:
        """Record a pause. `again`: the reason is known, and was logged."""
        until = self._clock.now() + timedelta(seconds=seconds)
        self._status.resting_until = until
        after = "after a refusal" if self._status.refused else "after repeated cuts"
        message = (
            f"{self.database.name}: streaming is paused until {until:%H:%M:%S} UTC {after}; "
            f"the last cut: {self._status.last_cut}"
        )
        hint = "restore points are still published; remove the cause of the last cut, or set stream=off"
        asked_for = self._status.setting == "on" or bool(self._status.refused)
        if asked_for:
            self._report.report(self.database.name, message, hint, Kind.NOTICE)
        error = self._status.last_cut
        tell = log.debug if again else log.warning if asked_for else log.info
        tell("streaming paused", database=self.database.name, seconds=round(seconds), error=error, hint=hint)


@dataclass(frozen=True, slots=True)
class _Boot:
    """The state in which a boot left a database: its position, and the stamps of its file, to which the log added nothing."""

    origin: Origin
    stamps: Stamps


async def _name_of(writer: StreamWriter) -> str | None:
    """None if the store refuses to let the stream begin: the restore point is still needed, and more than ever."""
    try:
        await writer.named()
    except (LeaseLost, Transient):
        raise
    except SidecarError as error:
        log.debug("stream not named", error=error.message)
    return str(writer.name) if writer.name else None
