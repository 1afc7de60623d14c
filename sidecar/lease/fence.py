"""The contracts of the lease: what everything that publishes needs of it, and what the daemon needs beyond that."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

import anyio

from sidecar.lease.record import StreamRecord


class Fence(Protocol):
    """The guard that lets one machine publish and no other; `exclusive` is False where nothing is guarded."""

    exclusive: bool

    @property
    def lost(self) -> anyio.Event:
        """Set once another machine has taken over. It is never unset: a lost lease stays lost."""
        ...

    @property
    def unfinished(self) -> str | None:
        """The last machine that ran an app and did not release its lease, until `acknowledge_unfinished`."""
        ...

    @property
    def epoch(self) -> int:
        """The number of our term, written into everything that we publish."""
        ...

    def require_held(self) -> None:
        """Raise `LeaseLost` unless we are the holder as far as we know. Sends no request."""
        ...

    async def ensure_held(self) -> datetime:
        """Renew our term if it has ended. Returns the instant, in the store's clock, to stamp a restore point with.

        Raises `LeaseLost`, or `Transient` when the store is unreachable.
        """
        ...

    async def record_start(
        self, latest: Mapping[str, str], streams: Mapping[str, StreamRecord] | None = None, *, running: bool = False
    ) -> None:
        """Write down the restore point and the stream, by database, that this term starts from, and whether an app is next.

        Raises what `ensure_held` raises.
        """
        ...

    def streamed(self, database: str, record: StreamRecord) -> None:
        """Have the next renewal write down how far a stream has got."""
        ...

    def covers(self, instant: datetime) -> bool:
        """Whether this instant, of the store's clock, lies inside our term as far as it is known. Sends no request."""
        ...

    async def confirm(self, database: str, key: str) -> None:
        """Write down a restore point that has just become visible, which proves that nobody had taken over before.

        Raises `LeaseLost` when somebody had, and may have started from an older one; `Transient` when that is unknown.
        """
        ...


class WriterLease(Fence, Protocol):
    """A `Fence` with its life cycle: acquired before the databases are touched, renewed, handed over, released."""

    retain: bool
    """Whether to keep the lease at the end: this machine's disk may have changes that no restore point has."""

    handing_over: bool
    """Whether the release is for the machine that asked for the lease."""

    @property
    def asked(self) -> anyio.Event:
        """Set once another machine asks us to hand over."""
        ...

    @property
    def asked_by(self) -> str | None:
        """The machine that asks us to hand over, as of the last renewal."""
        ...

    @property
    def handed_over(self) -> bool:
        """Whether the lease was released for the machine that asked for it."""
        ...

    async def acquire(self, patience: timedelta, *, ask: bool = False) -> None:
        """Become the holder, waiting at most `patience`. With `ask` the current holder is asked to hand over.

        Raises `LeaseHeld`, naming the holder; `StoreUnsuitable` when the store ignores conditions.
        """
        ...

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Renew the lease in the background for as long as the block lasts."""
        ...

    def acknowledge_unfinished(self) -> None:
        """Our app has started and `unfinished` was reported; the next renewal clears it."""
        ...

    async def release(self) -> None:
        """Release the lease if it is held and not to be retained. Failures are logged: the ttl ends the lease then."""
        ...

    async def until_doubted(self) -> None:
        """Return when something is wrong with the store other than that it does not answer, each time anew."""
        ...

    async def is_handoff_abandoned(self) -> bool:
        """Whether, after a handoff, the machine that asked has not taken the lease within the ttl."""
        ...
