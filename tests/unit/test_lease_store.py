"""The lease in another store than the restore points: whose it is, where it was before, and whose clock decides."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.errors import (
    ConfigurationError,
    LeaseHeld,
    LeaseLost,
    LeaseMoved,
    StoreMissing,
    StoreUnavailable,
    StoreUnsuitable,
)
from sidecar.lease.record import KEY, StreamRecord
from sidecar.lease.site import Place, require_separate
from sidecar.model import AtRestorePoint
from sidecar.monitoring.incident_store import close_incidents, incidents_key, read_open
from sidecar.repository.catalog import Catalog
from sidecar.storage.file.location import DirectoryLocation
from sidecar.storage.s3.location import BucketLocation
from tests.fakes import MEMORY, START, MemoryStore
from tests.leases import DATA, TTL, Beside, lease_of, record_in

AT_ONCE = timedelta(0)
pytestmark = pytest.mark.anyio


@pytest.fixture
def leases() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def data(leases: MemoryStore) -> MemoryStore:
    return Beside(leases)


async def test_the_lease_and_the_notices_are_there_and_nothing_else(leases: MemoryStore, data: MemoryStore) -> None:
    await lease_of(leases, "a", data=data).acquire(AT_ONCE)
    await close_incidents(Catalog(data, leases, DATA).lease_store, "app.db")
    assert sorted(leases.objects) == [incidents_key("app.db"), KEY]
    assert record_in(leases).store == DATA
    assert (await read_open(Catalog(data, leases, DATA), "app.db", START))[0].decided == START


async def test_two_apps_with_one_lease_are_refused_instead_of_fencing_each_other(
    leases: MemoryStore, data: MemoryStore
) -> None:
    """Also where nothing is written: the other app's latest keys say nothing about our restore points."""
    first = lease_of(leases, "a", data=data)
    await first.acquire(AT_ONCE)
    await first.record_start({"app.db": "app.db/20261120T145503.123Z.sqlite3.zst"})
    await first.release()
    other = Beside(leases)
    words = (
        r"lease\.json is the lease of memory://data, not of memory://other: .*|give each app a lease_store of its own"
    )
    with pytest.raises(ConfigurationError, match=words):
        await lease_of(leases, "a", data=other, name="memory://other").acquire(AT_ONCE)
    with pytest.raises(ConfigurationError, match=words):
        await Catalog(other, leases, "memory://other").newest("app.db")
    with pytest.raises(ConfigurationError, match="not of the restore points beside it"):
        await lease_of(leases, "a").acquire(AT_ONCE)
    assert (record_in(leases).epoch, other.objects) == (1, {})


async def test_two_stores_with_one_url_are_told_apart(leases: MemoryStore, data: MemoryStore) -> None:
    """Servers may have buckets of the same name. A crash before the stores were paired is not taken for that."""
    first = lease_of(leases, "a", data=data)
    await first.acquire(AT_ONCE)
    await first.record_start({})
    await first.release()
    with pytest.raises(ConfigurationError, match="has the lease of another store that is also called"):
        await lease_of(leases, "a", data=Beside(leases)).acquire(AT_ONCE)
    await lease_of(leases, "a", data=data).acquire(AT_ONCE)
    leases.add(KEY, replace(record_in(leases), pair="", released=True).to_bytes())
    again = lease_of(leases, "a", data=data)
    await again.acquire(AT_ONCE)
    await again.term.renew()
    assert record_in(leases).pair == json.loads(data.objects[KEY].data)["pair"]


async def test_a_lease_beside_the_restore_points_is_not_that_of_other_ones(
    leases: MemoryStore, data: MemoryStore
) -> None:
    await lease_of(leases, "a").acquire(AT_ONCE)
    with pytest.raises(ConfigurationError, match="is the lease of the restore points beside it, not of memory://data"):
        await lease_of(leases, "b", data=data).acquire(AT_ONCE)


async def test_a_machine_without_the_setting_is_not_overtaken_while_it_holds_the_lease(
    leases: MemoryStore, data: MemoryStore
) -> None:
    before = lease_of(data, "a")
    await before.acquire(AT_ONCE)
    began = StreamRecord("s1", AtRestorePoint("k1"), 7, 9)
    await before.record_start({"app.db": "k1"}, {"app.db": began}, running=True)
    with pytest.raises(LeaseHeld, match="held by a"):
        await lease_of(leases, "b", data=data).acquire(AT_ONCE)
    assert leases.objects == {}
    await before.release()
    after = lease_of(leases, "b", data=data)
    await after.acquire(AT_ONCE)
    record = record_in(leases)
    assert (record.epoch, record.latest, record.settled) == (2, {"app.db": "k1"}, {"app.db": 1})
    assert (record.streams, record.store) == ({"app.db": began}, DATA)


async def test_a_machine_without_the_setting_is_refused_from_then_on(leases: MemoryStore, data: MemoryStore) -> None:
    first = lease_of(leases, "a", data=data)
    await first.acquire(AT_ONCE)
    await first.release()
    with pytest.raises(LeaseMoved, match=r"is kept in memory://leases") as refusal:
        await lease_of(data, "b").acquire(AT_ONCE)
    assert "set lease_store to that store" in refusal.value.hint
    with pytest.raises(LeaseMoved):
        await Catalog(data).newest("app.db")
    with pytest.raises(StoreUnsuitable, match="two machines could write at once"):
        await lease_of(MemoryStore(), "b", data=data, leases="memory://third").acquire(AT_ONCE)
    await lease_of(leases, "b", data=data).acquire(AT_ONCE)


async def test_a_holder_without_the_setting_that_expired_is_fenced(leases: MemoryStore, data: MemoryStore) -> None:
    before = lease_of(data, "a")
    await before.acquire(AT_ONCE)
    leases.time += 2 * TTL
    await lease_of(leases, "b", data=data).acquire(AT_ONCE)
    with pytest.raises(LeaseLost, match="is kept in"):
        await before.term.renew()
    assert before.lost.is_set()


async def test_a_machine_without_the_setting_that_is_faster_wins(leases: MemoryStore, data: MemoryStore) -> None:
    """It takes the lease beside the restore points after we saw it free, and before we could say that it has moved."""
    other, lease = lease_of(data, "a"), lease_of(leases, "b", data=data)
    await other.acquire(AT_ONCE)
    free = replace(record_in(data), released=True).to_bytes()
    data.objects[KEY] = replace(data.objects[KEY], data=free)

    def take(operation: str, _key: str) -> None:
        if operation == "put":
            leases.hook = None
            data.add(KEY, replace(record_in(data), released=False, holder="a", epoch=2).to_bytes())

    leases.hook = take
    with pytest.raises(LeaseHeld, match="without our lease_store"):
        await lease.acquire(AT_ONCE)
    await lease.release()
    assert record_in(leases).released


async def test_a_lease_that_is_gone_is_not_taken_for_none(leases: MemoryStore, data: MemoryStore) -> None:
    """A directory may not be mounted: another machine may hold the lease that is kept there."""
    await lease_of(leases, "a", data=data).acquire(AT_ONCE)
    with pytest.raises(StoreMissing, match="has no lease, although"):
        await lease_of(MemoryStore(), "b", data=data).acquire(AT_ONCE)


@pytest.mark.parametrize("down", ["leases", "data"])
async def test_a_store_that_does_not_answer_is_not_one_without_a_lease(
    down: str, leases: MemoryStore, data: MemoryStore
) -> None:
    (leases if down == "leases" else data).fail("get", times=1000)
    with pytest.raises(StoreUnavailable):
        await lease_of(leases, "a", data=data).acquire(AT_ONCE)
    assert (leases.objects, data.objects) == ({}, {})


@pytest.mark.parametrize("skew", [-timedelta(hours=1), timedelta(0), timedelta(hours=1)], ids=str)
async def test_keys_are_stamped_by_the_clock_of_the_lease(skew: timedelta, leases: MemoryStore) -> None:
    data = Beside(leases, skew)
    lease = lease_of(leases, "a", data=data)
    await lease.acquire(AT_ONCE)
    assert await lease.ensure_held() == START
    assert await lease.require_covered(data.time) == START


class Suspended(MemoryStore):
    """Its clock as a client of S3 knows it: the last reply's, and a monotonic clock that stops while the machine does."""

    seen = START

    async def now(self) -> datetime:
        """See `base.ObjectStore`."""
        return self.seen

    def reply(self, operation: str, _key: str) -> None:
        """Any reply shows the time."""
        self.seen = self.time


@pytest.mark.parametrize("skew", [-timedelta(hours=1), timedelta(0), timedelta(hours=1)], ids=str)
@pytest.mark.parametrize("taken", [False, True], ids=["nobody there", "taken over"])
async def test_what_was_written_after_a_suspension_counts_only_if_nobody_took_over(
    *, taken: bool, skew: timedelta
) -> None:
    """The other store's clock is the only one that shows how long the machine was away, and it may be wrong."""
    leases = Suspended()
    leases.hook = leases.reply
    data = Beside(leases, skew)
    lease = lease_of(leases, "a", data=data)
    await lease.acquire(AT_ONCE)
    await lease.require_covered(data.time)  # the first one of a term is compared with nothing
    writes = leases.count("put")
    leases.time += TTL / 2
    await lease.require_covered(data.time)
    assert leases.count("put") == writes
    seen = leases.seen
    leases.time += 3 * TTL
    if taken:
        await lease_of(leases, "b", data=data).acquire(AT_ONCE)
    leases.seen = seen
    assert await lease.ensure_held() == seen  # nothing has shown it that time has passed
    if taken:
        with pytest.raises(LeaseLost):
            await lease.require_covered(data.time)
    else:
        assert await lease.require_covered(data.time) == leases.time


@pytest.mark.parametrize(
    ("lease", "data", "endpoint", "refusal"),
    [
        ("b/app", "b/app", "https://s3.example.com", "is the store itself"),
        ("b/lease", "b/app", "https://s3.b2.example.com", "in the same bucket as the store"),
        ("c/lease", "b/app", "https://s3.b2.example.com", "in Backblaze B2"),
        ("c/lease", "b/app", "https://s3.example.com", ""),
        ("b/lease", "b/app", "https://s3.example.com", "in the same bucket as the store"),
    ],
)
def test_places_that_add_nothing_are_refused(lease: str, data: str, endpoint: str, refusal: str) -> None:
    def place(path: str) -> Place:
        store = MemoryStore(traits=replace(MEMORY, store="Backblaze B2", conditional_put="b2" not in endpoint))
        store.url = f"s3://{path}"
        return Place(BucketLocation(*path.split("/")), endpoint, store)

    if refusal:
        with pytest.raises(ConfigurationError, match=refusal):
            require_separate(place(lease), place(data))
    else:
        require_separate(place(lease), place(data))


def test_a_directory_is_a_place_of_its_own() -> None:
    store = MemoryStore()
    store.url = "file:///mnt/locks"
    require_separate(
        Place(DirectoryLocation(Path("/mnt/locks")), "", store), Place(BucketLocation("b", ""), "x", MemoryStore())
    )
    with pytest.raises(ConfigurationError, match="is the store itself"):
        require_separate(*[Place(DirectoryLocation(Path("/mnt/locks")), "", store)] * 2)
    for directory, separate in (("/mnt/locks/app", False), ("/mnt", False), ("/mnt/locks-of-app", True)):
        data = Place(DirectoryLocation(Path(directory)), "", MemoryStore())
        with (
            nullcontext() if separate else pytest.raises(ConfigurationError, match="in the same directory as the store")
        ):
            require_separate(Place(DirectoryLocation(Path("/mnt/locks")), "", store), data)
