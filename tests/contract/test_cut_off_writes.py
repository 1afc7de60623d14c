"""Writes whose sender leaves between head and body: SeaweedFS keeps an empty object of them, with its metadata."""

from collections.abc import Callable
from datetime import timedelta
from threading import Event, Timer

import anyio
import pytest
from anyio import to_thread

from sidecar.errors import Transient
from sidecar.host.clock import SystemClock
from sidecar.lease.document import read_lease
from sidecar.lease.lease import Lease
from sidecar.lease.record import KEY
from sidecar.lease.rules import Identity
from sidecar.status.model import LeaseStatus
from sidecar.storage.retry import Retrying, RetryPolicy
from sidecar.storage.s3.store import S3Store
from tests.harness.eventually import eventually
from tests.harness.proxy import CloseMidBody, FaultProxy, Stall
from tests.harness.seaweed import Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

TTL = timedelta(seconds=3)
LONG = timedelta(seconds=20)


@pytest.fixture
def lease(through: S3Store) -> Callable[..., Lease]:
    """Makes a machine's lease; without patience it dies with its first request that fails."""

    def make(holder: str, *, patience: float = 5.0) -> Lease:
        clock = SystemClock()
        store = Retrying(through, clock, RetryPolicy(patience, first=0.02))
        return Lease(store, store, clock, LeaseStatus(True, holder), Identity(holder, holder, TTL))

    return make


async def test_every_lease_write_of_a_killed_machine_leaves_a_lease_that_goes_on(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, through: S3Store, lease: Callable[..., Lease]
) -> None:
    """1. Killed while it takes the lease. 2. Another takes it, and is killed in a renewal. 3. And one in its release."""

    def is_empty() -> None:
        eventually(lambda: (seaweed.s3.head(bucket, KEY) or {}).get("ContentLength") == 0, what="an empty lease")

    proxy.rule(CloseMidBody(), method="PUT", path_contains=KEY, times=1)
    with pytest.raises(Transient):
        await lease("one", patience=0).acquire(timedelta(0))
    await to_thread.run_sync(is_empty)

    two = lease("two", patience=0)
    await two.acquire(LONG)
    assert two.epoch == 2
    await two.record_start({"app.db": "k"})
    proxy.rule(CloseMidBody(), method="PUT", path_contains=KEY, times=1)
    with pytest.raises(Transient):
        await two.term.renew()
    await to_thread.run_sync(is_empty)

    three = lease("three", patience=0)
    await three.acquire(LONG)
    assert (three.epoch, three.term.held) == (3, True)
    proxy.rule(CloseMidBody(), method="PUT", path_contains=KEY, times=1)
    with pytest.raises(Transient):
        await three.term.release()
    await to_thread.run_sync(is_empty)
    seen = await read_lease(through)
    assert seen
    assert (seen.record.epoch, seen.record.released, seen.record.settled) == (3, True, {"app.db": 2})
    four = lease("four")
    await four.acquire(timedelta(0))
    assert four.epoch == 4


async def test_a_holder_whose_own_write_was_cut_off_goes_on(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, lease: Callable[..., Lease]
) -> None:
    """Its second attempt is refused because of the first, which is its own, and to be written again."""
    holder = lease("one")
    await holder.acquire(timedelta(0))
    cut = proxy.rule(CloseMidBody(), method="PUT", path_contains=KEY, times=1)
    await holder.confirm("app.db", "k")
    assert (cut.hits, holder.epoch, holder.term.held) == (1, 1, True)
    assert b'"app.db": "k"' in seaweed.s3.get(bucket, KEY)


async def test_the_end_of_a_daemon_does_not_cut_a_renewal_off(proxy: FaultProxy, lease: Callable[..., Lease]) -> None:
    """What is under way when the block of `kept` ends is waited for, some seconds at most."""
    holder, released = lease("one"), Event()
    await holder.acquire(timedelta(0))
    before = len(proxy.seen("PUT", KEY))
    proxy.rule(Stall(60, 1, "request", released), method="PUT", path_contains=KEY, times=1)
    async with holder.renewing():
        await to_thread.run_sync(lambda: proxy.wait_seen("PUT", KEY, count=before + 1))
        Timer(0.3, released.set).start()
    assert [seen.status for seen in proxy.seen("PUT", KEY)[before:]] == [200]
    await holder.term.release()


async def test_a_cancelled_write_that_hangs_is_given_up(proxy: FaultProxy, through: S3Store) -> None:
    """A shutdown does not wait for a store that takes no bytes."""
    proxy.rule(Stall(600, 1, "request"), method="PUT", times=1)
    with anyio.fail_after(60):
        with anyio.move_on_after(0.1) as scope:
            await through.put("hangs", b"data")
        assert scope.cancelled_caught
