"""The stream of one database, put together as `run` does, over a store and a lease of the test."""

from datetime import timedelta
from pathlib import Path

from sidecar.backup import Pace, Stream, StreamOptions, StreamWriter
from sidecar.backup.stream_gate import Gate
from sidecar.backup.stream_writer import StreamStart
from sidecar.database import WalOrigins
from sidecar.database.lineage import Lineage
from sidecar.database.wal import Capture, Limits
from sidecar.host import SystemClock
from sidecar.lease.disabled import NoLease
from sidecar.lease.fence import Fence
from sidecar.model import Database, Position
from sidecar.repository.history import StreamInfo
from sidecar.repository.increments import Increments
from sidecar.status import Status
from sidecar.storage.base import ObjectStore
from tests.integration.wal.replica import DRIVER

INTERVAL = timedelta(seconds=0.1)


class Streaming:
    """Inside `capture.running()` its commits can be captured."""

    def __init__(
        self,
        store: ObjectStore,
        path: Path,
        *,
        fence: Fence | None = None,
        holder: str = "web",
        limits: Limits | None = None,
        always: bool = True,
        rest: timedelta = timedelta(minutes=1),
    ) -> None:
        """`always` is `stream=on`, else `auto`; `rest` is how long a refusal, or repeated cuts, pause it."""
        clock, self.fence = SystemClock(), fence or NoLease(store)
        self.database = Database("app.db", path)
        self.report = Status((self.database,), "", "0", clock.now)
        self.status = self.report.databases["app.db"].stream
        self.increments = Increments(store)
        self.capture = Capture(DRIVER, limits)
        self.feed = self.capture.feed(path)
        self._options = StreamOptions(holder, DRIVER.version, rest, Pace(0.1, clock))
        self._lineage = Lineage(path, "", durable=False)
        self._clock = clock
        gate = Gate(path, WalOrigins(), INTERVAL, clock, always=always)
        self.stream = Stream(self.database, self.feed, gate, self.writer, self._options, self.report, clock, self.fence)

    def writer(self, start: StreamStart) -> StreamWriter:
        """What writes one stream."""
        lineage, options, clock = self._lineage, self._options, self._clock
        return StreamWriter(self.database, start, self.increments, lineage, self.fence, options, self.report, clock)

    async def published(self) -> list[StreamInfo]:
        """The streams in the store, whole."""
        found = await self.increments.streams("app.db")
        return [
            StreamInfo(
                each.name,
                each.start,
                each.epoch,
                each.holder,
                each.after,
                tuple(await self.increments.segments("app.db", each.name)),
            )
            for each in found
        ]

    @property
    def here(self) -> Position:
        """The last confirmed commit."""
        return Position(str(self.status.name), self.status.confirmed)
