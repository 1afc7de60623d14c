"""A machine that streams: `wiring.Machine` with a capture, its stream, and the boot sequence of the daemon.

Nothing runs in the background but the thread that follows: a test says when segments are published.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio

from sidecar.backup import FinalBackup
from sidecar.backup.pace import Pace
from sidecar.backup.stream import Stream
from sidecar.backup.stream_gate import Gate
from sidecar.backup.stream_writer import StreamOptions, StreamWriter
from sidecar.daemon.booting import BootSequence
from sidecar.database import WalOrigins
from sidecar.database.driver import default_driver
from sidecar.database.lineage import Lineage
from sidecar.database.wal import Capture, CutCause, Glance, NotStreamable, StreamCut, glance
from sidecar.host.clock import SystemClock
from sidecar.model import Database
from sidecar.repository.increments import Increments
from sidecar.status import StreamStatus
from sidecar.storage.base import ObjectStore
from tests.integration.wiring import Machine


class HastyClock(SystemClock):
    """Nobody waits for a pause between streams."""

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.sleep(min(seconds, 0.01))


class StreamingMachine(Machine):
    """Make it with `streaming`. `stream` is that of its one database.

    With `late` it is followed once the app has it open, as with `stream=auto`; the app, in this process, says so in `used`.
    """

    late = used = False
    stream: Stream
    final: FinalBackup
    holder: str

    def begin_with(self, capture: Capture) -> None:
        """Let this capture follow the database."""
        feed = self.feeds[self.database.path] = capture.feed(self.database.path)
        pace = Pace(0.0, self.clock)
        hour = timedelta(hours=1)
        clock = HastyClock()
        options = StreamOptions(self.holder, capture.driver.version, hour, pace)
        increments = Increments(self.store)
        interval = timedelta(0) if self.late else hour
        gate = Gate(self.database.path, WalOrigins(), interval, clock, always=not self.late, look=self._look)
        self.stream = Stream(
            self.database,
            feed,
            gate,
            lambda start: StreamWriter(
                self.database, start, increments, self.lineage, self.fence, options, self.status, clock
            ),
            options,
            self.status,
            clock,
            self.fence,
        )
        self.backup.cycle.source.stream = self.stream
        self.final = FinalBackup([self.backup], self.diverged_line, self.fence, self.status)

    async def start(self, *, alone: bool = True) -> None:
        """Acquire the lease and boot, as the daemon does before it starts the app; not `alone`, where others start theirs."""
        if self.lease:
            await self.lease.acquire(timedelta(seconds=5))
        lineage, line = self.lineage, self.diverged_line

        def lineage_of(_database: Database) -> Lineage:
            return lineage

        backups = [self.backup]
        boots = BootSequence(self.booter(), backups, lineage_of, self.final, line, self.fence, self.status, alone=alone)
        await boots.run()

    async def publish_segments(self) -> None:
        """Publish all that was committed, as the stream does about every second. Raises as the stream's own loop."""
        writer = self.stream._writer
        if writer is None:
            try:
                writer = await self.stream._follow_late()
            except NotStreamable:
                return
        await writer.named()
        await self.stream._feed.flush()
        await self.stream._collect(writer, 0.0)
        await writer.publish()
        if self.streams.protects:
            self.backup.cycle.source.streamed(self.clock.monotonic())

    async def _look(self, path: Path) -> Glance | None:
        seen = glance(path)
        return replace(seen, used=self.used) if seen else None

    async def cut(self) -> None:
        """Lose the continuity, and begin anew."""
        await self.stream._cut(StreamCut(CutCause.ERROR, "by the test"), self.backup.demand)

    @property
    def streams(self) -> StreamStatus:
        """What the status says of the stream."""
        return self.status.databases[self.database.name].stream


@asynccontextmanager
async def streaming(
    store: ObjectStore, path: Path, holder: str | None = None, *, late: bool = False
) -> AsyncIterator[StreamingMachine]:
    """A machine whose database at `path` can be followed."""
    capture = Capture(default_driver())
    async with capture.running():
        machine = StreamingMachine(store, path, staging=path.parent, holder=holder, checked=False)
        machine.holder, machine.late = holder or "machine", late
        machine.begin_with(capture)
        yield machine
