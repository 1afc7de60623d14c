"""With `lease=off`: nobody else writes, by the user's word."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import anyio

from sidecar.errors import DamagedLease
from sidecar.lease.record import read
from sidecar.storage.base import ObjectStore


class NoLease:
    """Implements `ports.Fence` with `lease=off`: nobody else writes, by the user's word."""

    exclusive = False
    unfinished = None

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.epoch = 0
        self.lost = self.asked = anyio.Event()  # never set
        self.asked_by: str | None = None
        self.retain = self.handing_over = self.handed_over = False

    async def acquire(self, _patience: timedelta, *, ask: bool = False) -> None:
        """Learn the epoch of an earlier lease, so that what is published now is not taken for a fenced machine's."""
        with suppress(DamagedLease):  # nobody reads it then
            seen = await read(self._store)
            self.epoch = seen.record.epoch if seen else 0

    def started(self) -> None:
        """There is nothing to write down."""

    async def settle(self, latest: Mapping[str, str], *, running: bool = False) -> None:
        """There is nothing to write down."""

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """There is nothing to keep."""
        yield

    async def give_back(self) -> None:
        """There is nothing to give back."""

    async def ensure(self) -> datetime:
        """See `ports.Fence`."""
        return await self._store.now()

    def require(self) -> None:
        """See `ports.Fence`."""

    async def confirm(self, database: str, key: str) -> None:
        """See `ports.Fence`."""

    async def doubted(self) -> None:
        """Nothing is known of the store between publishes."""
        await anyio.sleep_forever()

    async def abandoned(self) -> bool:
        """Nobody asked for it."""
        return False
