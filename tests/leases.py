"""Machines that share a store and a lease, in virtual time, each with a wall clock of its own.

The restore points may be in another store than the lease (`lease_store`), whose clock is off.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import count

from sidecar.lease.document import parse_lease
from sidecar.lease.former import FormerLease
from sidecar.lease.lease import Lease
from sidecar.lease.record import KEY, Record
from sidecar.lease.rules import Identity
from sidecar.status.model import LeaseStatus
from sidecar.storage.retry import Retrying, RetryPolicy
from tests.fakes import START, FakeClock, MemoryStore

TTL = timedelta(seconds=60)


DATA = "memory://data"
LEASES = "memory://leases"


class Beside(MemoryStore):
    """A store for restore points, whose clock differs by `skew` from that of the store for the lease."""

    def __init__(self, leases: MemoryStore, skew: timedelta = timedelta(0)) -> None:
        self._leases, self._skew = leases, skew
        super().__init__()

    @property
    def time(self) -> datetime:
        """See `MemoryStore`."""
        return self._leases.time + self._skew

    @time.setter
    def time(self, _time: datetime) -> None: ...


class SharedClock(FakeClock):
    """A machine's clock, off by `skew`; sleeping advances the store's time."""

    def __init__(self, store: MemoryStore, skew: timedelta = timedelta(0)) -> None:
        super().__init__(START + skew)
        self.store = store

    def advance(self, seconds: float) -> None:
        """See `FakeClock`."""
        super().advance(seconds)
        self.store.time += timedelta(seconds=seconds)


def lease_of(
    store: MemoryStore,
    holder: str,
    *,
    clock: SharedClock | None = None,
    status: LeaseStatus | None = None,
    boot: str = "",
    patience: float = 5.0,
    returning: bool = True,
    highest_epoch: Callable[[], Awaitable[int]] | None = None,
    data: MemoryStore | None = None,
    name: str = DATA,
    leases: str = LEASES,
) -> Lease:
    """The lease of a process on the machine `holder`; its requests are retried for `patience` seconds.

    With `data`, that is the store with the restore points, called `name`, and the lease is in `store`, called `leases`.
    """
    clock = clock or SharedClock(store)
    policy = RetryPolicy(patience, first=0.1)
    retrying = Retrying(store, clock, policy)
    me = Identity(holder, boot or f"boot-{next(_boots)}", TTL, returning, name if data else "")
    former = FormerLease(Retrying(data, clock, policy), leases) if data else None
    known = {"highest_epoch": highest_epoch} if highest_epoch else {}
    return Lease(retrying, retrying, clock, status or LeaseStatus(True, holder), me, former=former, **known)


_boots = count()


def record_in(store: MemoryStore) -> Record:
    """The record in the lease object."""
    return parse_lease(store.objects[KEY].data, store.url)
