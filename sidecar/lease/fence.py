"""The contracts of the lease: `Fence` for everything that publishes, `WriterLease` for the daemon."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

import anyio

from sidecar.lease.record import StreamRecord


class Fence(Protocol):
    """Lets one machine publish and no other. `exclusive` is False if that is not enforced."""

    exclusive: bool

    @property
    def lost(self) -> anyio.Event:
        """Set once another machine has taken over. It is never cleared: a lost lease stays lost."""
        ...

    @property
    def unfinished(self) -> str | None:
        """The last machine that ran an app and did not release its lease, until `acknowledge_unfinished`."""
        ...

    @property
    def epoch(self) -> int:
        """The number of our term, which is written into everything that we publish."""
        ...

    def require_held(self) -> None:
        """Raise `LeaseLost` unless we are the holder as far as we know. Sends no request."""
        ...

    async def ensure_held(self) -> datetime:
        """Renew our term if it has ended. Returns the time, by the store's clock, for the timestamp of a restore point.

        Raises `LeaseLost`, or `Transient` if the store is unreachable.
        """
        ...

    async def record_start(
        self, latest: Mapping[str, str], streams: Mapping[str, StreamRecord] | None = None, *, running: bool = False
    ) -> None:
        """Record what this term starts from, restore point and stream by database, and whether an app is about to start.

        Raises what `ensure_held` raises.
        """
        ...

    def streamed(self, database: str, record: StreamRecord) -> None:
        """Have the next renewal record how far a stream has got."""
        ...

    async def require_covered(self, instant: datetime) -> datetime:
        """Ensure that what was written at this instant, by the clock of the store with the restore points, was within our term.

        Sends a request only if that is not known. Returns the same instant by the clock of timestamps, see `ensure_held`.
        Raises what `ensure_held` raises.
        """
        ...

    async def confirm(self, database: str, key: str) -> None:
        """Record a restore point that has just become visible, which proves that no machine had taken over before.

        Raises `LeaseLost` if one had, which may have started from an older one; `Transient` if that is unknown.
        """
        ...


class WriterLease(Fence, Protocol):
    """A `Fence` with its life cycle: acquired before the databases are touched, renewed, handed over, released."""

    retain: bool
    """Whether to keep the lease at the end, because this disk may have changes that are in no restore point."""

    handing_over: bool
    """Whether the release is for the machine that asked for the lease."""

    @property
    def asked(self) -> anyio.Event:
        """Set once another machine requests a handoff."""
        ...

    @property
    def asked_by(self) -> str | None:
        """The machine that requests a handoff, as of the last renewal."""
        ...

    @property
    def handed_over(self) -> bool:
        """Whether the lease was released for the machine that asked for it."""
        ...

    async def acquire(self, patience: timedelta, *, ask: bool = False) -> None:
        """Become the holder, waiting at most `patience`. With `ask`, request a handoff from the current holder.

        Raises `LeaseHeld`, naming the holder; `StoreUnsuitable` if the store does not obey conditions.
        """
        ...

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Renew the lease in the background for as long as the block lasts."""
        ...

    def acknowledge_unfinished(self) -> None:
        """Have the next renewal clear `unfinished`: our app has started and it was reported."""
        ...

    async def release(self) -> None:
        """Release the lease if it is held and not retained. Failures are logged: the lease then ends with its ttl."""
        ...

    async def until_doubted(self) -> None:
        """Wait until the store shows a problem other than being unreachable. Can be called again for the next one."""
        ...

    async def is_handoff_abandoned(self) -> bool:
        """Whether, after a handoff, the requesting machine has failed to take the lease within the ttl."""
        ...
