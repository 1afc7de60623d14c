"""Machines that share a store and a lease, in virtual time, each with a wall clock of its own."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count

from sidecar.lease.document import parse_lease
from sidecar.lease.lease import Lease
from sidecar.lease.record import KEY, Record
from sidecar.lease.rules import Identity
from sidecar.status.model import LeaseStatus
from sidecar.storage.retry import Retrying, RetryPolicy
from tests.fakes import START, FakeClock, MemoryStore

TTL = timedelta(seconds=60)


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
) -> Lease:
    """The lease of a process on the machine `holder`; its requests are retried for `patience` seconds."""
    clock = clock or SharedClock(store)
    retrying = Retrying(store, clock, RetryPolicy(patience, first=0.1))
    me = Identity(holder, boot or f"boot-{next(_boots)}", TTL, returning)
    known = {"highest_epoch": highest_epoch} if highest_epoch else {}
    return Lease(retrying, retrying, clock, status or LeaseStatus(True, holder), me, **known)


_boots = count()


def record_in(store: MemoryStore) -> Record:
    """The record in the lease object."""
    return parse_lease(store.objects[KEY].data, store.url)
