"""The lease with `lease=off`: the user guarantees that no other machine writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import anyio

from sidecar.errors import DamagedLease, UnsupportedLease
from sidecar.lease.document import read_lease
from sidecar.lease.record import StoredLease, StreamRecord
from sidecar.storage import ObjectStore


class NoLease:
    """Implements `WriterLease` without a lease: every answer is that of the only machine."""

    exclusive = False
    unfinished = None
    asked_by = None
    handed_over = False

    def __init__(self, store: ObjectStore, lease: Callable[[], Awaitable[StoredLease | None]] | None = None) -> None:
        """`lease` reads the lease object of an earlier run; by default that in `store`."""
        self._store = store
        self._lease = lease or partial(read_lease, store)
        self.epoch = 0
        self.lost = self.asked = anyio.Event()  # never set
        self.retain = False
        self.handing_over = False

    async def acquire(self, _patience: timedelta, *, ask: bool = False) -> None:
        """Read the epoch of an earlier lease, so that our restore points are not taken for those of a fenced machine.

        Raises `UnsupportedLease`.
        """
        try:
            stored = await self._lease()
        except UnsupportedLease:
            raise
        except DamagedLease:  # it fences nobody
            return
        self.epoch = stored.record.epoch if stored else 0

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """There is nothing to renew."""
        yield

    def require_held(self) -> None:
        """There is nothing to lose."""

    async def ensure_held(self) -> datetime:
        """See `Fence`."""
        return await self._store.now()

    async def record_start(
        self, latest: Mapping[str, str], streams: Mapping[str, StreamRecord] | None = None, *, running: bool = False
    ) -> None:
        """There is nothing to record."""

    def streamed(self, database: str, record: StreamRecord) -> None:
        """There is nothing to record."""

    async def require_covered(self, instant: datetime) -> datetime:
        """There is no term that could have ended."""
        return instant

    async def confirm(self, database: str, key: str) -> None:
        """There is nothing to record."""

    def acknowledge_unfinished(self) -> None:
        """There is nothing to clear."""

    async def release(self) -> None:
        """There is nothing to release."""

    async def until_doubted(self) -> None:
        """Without renewals, nothing is learned about the store between publishes."""
        await anyio.sleep_forever()

    async def is_handoff_abandoned(self) -> bool:
        """There was no handoff."""
        return False
