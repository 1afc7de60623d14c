"""One idea: the stream of one database is followed from the boot on, cut where continuity is lost, and begun anew."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sidecar.backup.confirmations import Confirmations
from sidecar.backup.pace import Cuts
from sidecar.backup.stream_gate import Gate
from sidecar.backup.stream_writer import StreamOptions, StreamStart, StreamWriter
from sidecar.database import Feed
from sidecar.database.wal import CutCause, NotStreamable, Stamps, StreamCut
from sidecar.errors import LeaseLost, SidecarError, UnsupportedSegment
from sidecar.host import Clock
from sidecar.lease import Fence, StreamRecord
from sidecar.log import log
from sidecar.model import Database, Origin, Position, Snapshot, Timestamp
from sidecar.repository.guard import REPLACING
from sidecar.status import Kind, Status

ENDED_KEPT = 100  # streams that a snapshot may have begun in
LOOK_SECONDS = 1.0  # between looks whether a database can be streamed by now, and while nothing is committed
BEGUN = "a stream has begun, which is entered through a restore point"
BUG = "a bug has ended it until the next start; the log has the details"
ENDED = "a stream was cut, and the next one does not begin yet"
_UNWELCOME = {CutCause.EXCLUSIVE, CutCause.MODE}  # the app does what it can hardly do beside us
MIXED = "its file was replaced while its log had changes, which SQLite may have read over the new file"


class Stream:
    """Streams the commits of one database. `run` is one task; `locate` and `entered` are for the cycle beside it."""

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
        """`gate` says whether to stream; `write` makes the writer of a new stream."""
        self.database = database
        self._gate = gate
        self._unsettled = False  # whether a segment of a former stream had no outcome when that ended
        self._owed = self._mixed = False  # a restore point after a cut; a file that was replaced under its log
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
        self._ended: dict[int, str] = {}  # the names of former streams, by the run of the feed
        self._distrusted: StreamCut | None = None
        self._looked = clock.monotonic()
        self.confirmations = Confirmations(feed, fence, self._status)

    async def begin(self, origin: Origin | None, end: Origin | None, above: Timestamp | None) -> StreamRecord:
        """Before the app starts: follow from here. `origin` is where the database stands, None where that is not proved.

        `end` is where the main line ends in the store, from which this term goes on. `above` is the timestamp of the newest
        restore point. Returns what the lease is to say; without a stream where there is nothing to follow yet, or where
        the store does not answer: it is named later. Raises `LeaseLost`, and `UnsupportedSegment`.
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
        except SidecarError as error:  # what is committed until then is captured, and waits
            log.warning("stream not named yet", database=self.database.name, error=error.message, hint=error.hint)
        return StreamRecord(str(writer.name) if writer.name else None, end)

    async def run(self, demand: Callable[[str], None], streamed: Callable[[float], None]) -> None:
        """Stream for as long as we have the lease. `demand` asks for a restore point; `streamed` is told what is protected."""
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
        """The place of a snapshot in its stream; None where it is in none. Raises what asking the store raises.

        A stream may have been cut while the snapshot was copied: what it has beyond the snapshot is in the store. Raises
        `DatabaseBusy` if somebody relies on what a restore from this snapshot alone would not have.
        """
        name, followed = None, snapshot.followed
        if followed:
            name = self._ended.get(followed.run)
            if (writer := self._writer) and followed.run == self._feed.run:
                await writer.named()
                name = str(writer.name)
        if name and followed:
            return Position(name, followed.commit)
        self.confirmations.leave()
        return None

    def entered(self, position: Position | None) -> None:
        """A restore point names this place: what the stream has after it can be restored. None: nothing leads on from there."""
        if position is None:
            self._status.protects = False
        elif self._writer and position.stream == str(self._writer.name):
            self._status.protects = True
            self.confirmations.news()

    @property
    def suspicion(self) -> str:
        """Why a copy that was taken just now may have wrong content, or empty. See `copied`."""
        found = self._feed.status
        self._mixed = self._mixed or (found.cut is not None and _is_mixed(found.cut, found.wal_frames))
        return MIXED if self._mixed else ""

    def copying(self) -> None:
        """A copy for a restore point is begun. If nothing is followed, a later stream does not continue what it contains."""
        self.confirmations.copying()
        if self._writer is None:
            self._boot = None

    def copied(self) -> None:
        """A restore point has that copy."""
        self._mixed = False

    def distrust(self, reason: str, cause: CutCause = CutCause.DAMAGED) -> None:
        """What this stream has, or what is before it, is not what the database was: it is cut, and nothing of it counts any more."""
        self._status.protects = False
        if self._writer:
            self._distrusted = StreamCut(cause, reason)

    async def finish(self) -> None:
        """After the app has ended: publish the rest. Without success the final restore point has it all the same."""
        try:
            if writer := self._writer:
                with suppress(StreamCut):  # what was captured before it is published all the same
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
        """After `finish`: publish again what it was cancelled at, until the outcome is known."""
        if self._writer and self._writer.unsettled:
            with suppress(SidecarError, StreamCut):
                await self._writer.publish()

    @property
    def unsettled(self) -> bool:
        """Whether a segment is under way whose outcome is not known: nobody else may begin to write yet."""
        return self._unsettled or (self._writer is not None and self._writer.unsettled)

    async def _follow_late(self) -> StreamWriter:
        """Follow what the app uses already: from the boot on where nothing can have been missed, else from now on."""
        if boot := self._boot:
            try:
                return await self._follow(boot.origin, boot)
            except StreamCut as cut:
                self._boot = None
                log.debug("stream begins anew", database=self.database.name, reason=str(cut))
        return await self._follow(None)

    async def _follow(self, after: Origin | None, boot: "_Boot | None" = None) -> StreamWriter:
        """With `boot`: from then on. Raises `NotStreamable` and `StreamCut`."""
        if reason := await self._gate.why_not():
            raise NotStreamable(reason)
        self._cuts.began(self._clock.monotonic())  # an attempt that is cut counts, or the next would follow at once
        await self._feed.begin(boot.stamps if boot else None)
        if self._boot is not boot:  # a restore point comes in between
            after = None
        self._boot = None
        start, self._distrusted = self._start, None
        self._owed = False
        self._writer = self._write(StreamStart(start.term, start.above, after))
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
        """Nothing is streamed now. Logged when the reason changes."""
        self._unsettled = self.unsettled
        if self._writer and self._writer.name:
            self._start = StreamStart(self._start.term, self._writer.name.start, None)
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
        while True:
            await self._collect(writer, LOOK_SECONDS)
            if self._distrusted:
                raise self._distrusted
            if writer.waiting:
                await self._options.pace.turn()
                with suppress(StreamCut):  # told again, once what came before it is published
                    await self._collect(writer, 0.0)
            looked = self._looked
            await writer.publish()
            self.confirmations.news()
            if self._status.protects:
                streamed(looked)

    async def _collect(self, writer: StreamWriter, timeout: float) -> None:
        """Take what was captured, at once if there is something, else what comes within the timeout."""
        await writer.named()
        batch = await self._feed.take(timeout)
        writer.add(batch)
        self._looked = batch.looked
        self._status.wal_frames = self._feed.status.wal_frames

    async def _cut(self, cut: StreamCut, demand: Callable[[str], None]) -> None:
        """Publish what came before, and pause. What follows is a new stream, entered through a restore point."""
        mixed = bool(self.suspicion)
        expected = self._status.setting != "on" and cut.cause in _UNWELCOME
        if cut.cause in _UNWELCOME:
            self._gate.refuse(str(cut))
        self._status.cuts[cut.cause] += 1
        self._status.last_cut, self._status.last_cut_at = f"{cut.cause}: {cut}", self._clock.now()
        hint = "a restore point follows, and a new stream; nothing that was committed is lost while this machine lives"
        if mixed:
            hint = f"{REPLACING}; {hint}"
        tell = log.info if expected else log.warning
        tell("stream cut", database=self.database.name, cause=str(cut.cause), error=str(cut), hint=hint)
        refused = cut.cause is CutCause.REFUSED
        self._status.refused = str(cut) if refused else ""
        if self._writer:
            with suppress(StreamCut):
                if not refused:
                    await self._writer.publish()
            self.confirmations.news()
            if self._writer.name and cut.cause is not CutCause.REPLACED:  # else a snapshot may be of another file
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
            self._rest(rest)
            await self._clock.sleep(rest)

    def _rest(self, seconds: float) -> None:
        until = self._clock.now() + timedelta(seconds=seconds)
        self._status.resting_until = until
        after = "after a refusal" if self._status.refused else "after repeated cuts"
        message = (
            f"{self.database.name}: streaming rests until {until:%H:%M:%S} UTC {after}; "
            f"the last cut: {self._status.last_cut}"
        )
        hint = "restore points are published as ever; find out what the last cut says, or set stream=off"
        asked_for = self._status.setting == "on" or bool(self._status.refused)
        if asked_for:
            self._report.report(self.database.name, message, hint, Kind.NOTICE)
        error = self._status.last_cut
        tell = log.warning if asked_for else log.info
        tell("streaming rests", database=self.database.name, seconds=round(seconds), error=error, hint=hint)


@dataclass(frozen=True, slots=True)
class _Boot:
    """Where a boot has left a database: what it contained then, and its file, whose log had nothing more."""

    origin: Origin
    stamps: Stamps


def _is_mixed(cut: StreamCut, frames: int) -> bool:
    return cut.cause is CutCause.REPLACED and frames > 0
