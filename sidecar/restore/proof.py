"""Proves that a restore point can be restored: all of it is restored to a scratch file and checked.

The prover must not see the live database: it has only the store and a scratch file. A drill must not affect the app: ranges
are fetched one at a time and at a limited rate, SQLite's check works a quarter of the time, and both pause during a backup.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import CheckReport
from sidecar.database.base import Staging
from sidecar.errors import DamagedSegment
from sidecar.host import Clock
from sidecar.model import Database, RestorePoint
from sidecar.progress import Progress
from sidecar.repository import DownloadOptions, Reader, Restored
from sidecar.restore.reached import format_reached
from sidecar.restore.roll_forward import RollForward
from sidecar.restore.stream_proof import StreamProof

MEMORY_RATE = 16 << 20  # bytes of database per second: a tenth of a core
DISK_RATE = 2 << 20  # a quarter of the throughput of fly.io's root disk (https://fly.io/docs/volumes/overview/)
DUTY = 0.25
PRIVATE = 0o600


class Throttle:
    """Limits provers: one at a time, at a limited rate, only part of the time, and never during a backup."""

    def __init__(self, turns: ConcurrencyLimit, clock: Clock, alone: anyio.Lock) -> None:
        """`alone` is shared by all provers that must not work at the same time."""
        self._turns = turns
        self._clock = clock
        self._alone = alone
        self._rate = MEMORY_RATE
        self._free = clock.monotonic()
        self._rested = time.monotonic()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only prover at work. Waits until no backup is in progress."""
        async with self._alone:
            await self._turns.idle()
            self._rested = time.monotonic()
            yield

    def options(self, rate: int) -> DownloadOptions:
        """Options for one download, at `rate` bytes of the database per second."""
        self._rate = rate
        return DownloadOptions(self._limit_rate, self._yield_to_app, PRIVATE)

    async def _limit_rate(self, size: int) -> None:
        now = self._clock.monotonic()
        begin = max(now, self._free)
        self._free = begin + size / self._rate
        if begin > now:
            await self._clock.sleep(begin - now)
        await self._turns.idle()

    def _yield_to_app(self, sleep: Callable[[float], bool]) -> None:
        """Pause in SQLite's thread; `sleep` returns True if the drill is cancelled (`database.base.YieldToApp`)."""
        worked = time.monotonic() - self._rested
        cancelled = sleep(min(0.1, max(0.0, worked * (1 / DUTY - 1))))
        while self._turns.under_way and not cancelled:
            cancelled = sleep(0.05)
        self._rested = time.monotonic()


class Prover:
    """Restores to a scratch file, checks every digest, and runs SQLite's check.

    With a `stream`, it also proves the stream that leads to the restore point.
    `name` distinguishes the scratch files of provers that work at the same time; `share` of them need room. The files are
    where the database's snapshots would be.
    """

    def __init__(
        self,
        reader: Reader,
        staging: Staging,
        database: Database,
        name: str,
        share: int = 1,
        forward: RollForward | None = None,
    ) -> None:
        """With `forward`, the tail of the stream is also proved: what a boot would restore."""
        self.stream: StreamProof | None = None
        self._reader = reader
        self._forward = forward
        self._staging = staging
        self._share = share
        self._scratch = database.path.with_name(f"{database.name}.{name}")

    async def prove(
        self, point: RestorePoint, progress: Progress | None = None, throttle: Throttle | None = None
    ) -> CheckReport:
        """Prove a restore point. Returns the report of SQLite's check: a good one may have findings.

        Raises `DamagedRestorePoint`; `DamagedSegment` and `DamagedDatabase` for its stream; another `SidecarError` if the
        proof was not possible.
        """
        _, contents = await self._reader.contents(point)
        with self._staging.reserve(self._scratch, contents.index.database_size * self._share) as (file, on_tmpfs):
            rate = MEMORY_RATE if on_tmpfs else DISK_RATE
            options = throttle.options(rate) if throttle else DownloadOptions(mode=PRIVATE)
            restored = await self._reader.download(point, file, progress, options)
            check = await self._with_tail(restored, file, options) if self._forward else restored.check
        if self.stream:
            await self.stream.prove(restored, options)
        return check

    async def _with_tail(self, restored: Restored, file: Path, options: DownloadOptions) -> CheckReport:
        assert self._forward  # noqa: S101 - checked by the caller
        history = await self._forward.look(restored.point, restored.contents.index.position)
        rolled = await self._forward.apply(restored, file, history, yield_to_app=options.yield_to_app)
        if rolled.reached.stopped:
            raise DamagedSegment(
                f"{restored.point.key} can be restored, but its stream only up to {format_reached(rolled.reached)}: "
                f"{rolled.reached.stopped}"
            )
        return rolled.restored.check
