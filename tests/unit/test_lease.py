"""The protocol of the lease: conditional writes only, in the store's time, also when requests or replies are lost."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import anyio.lowlevel
import pytest

from sidecar.errors import (
    AccessDenied,
    DamagedLease,
    LeaseHeld,
    LeaseLost,
    OutcomeUnknown,
    PreconditionFailed,
    StoreUnavailable,
    StoreUnsuitable,
)
from sidecar.lease.disabled import NoLease
from sidecar.lease.lease import Lease
from sidecar.lease.record import KEY, Record, StreamRecord
from sidecar.model import Bytes, Condition, ObjectInfo, Position
from sidecar.repository.catalog import Catalog
from sidecar.status.model import LeaseStatus
from tests.fakes import START, MemoryStore
from tests.leases import TTL, SharedClock, lease_of, record_in

pytestmark = pytest.mark.anyio

AT_ONCE = timedelta(0)
HOUR = timedelta(hours=1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def pass_time(store: MemoryStore, seconds: float) -> None:
    store.time += timedelta(seconds=seconds)


async def test_the_first_holder_has_epoch_one_and_the_next_one_two(store: MemoryStore) -> None:
    first = lease_of(store, "a")
    await first.acquire(AT_ONCE)
    await first.term.release()
    second = lease_of(store, "b")
    await second.acquire(AT_ONCE)
    assert (first.epoch, second.epoch, record_in(store).epoch) == (1, 2, 2)


async def test_another_machine_is_named_when_waiting_ends(store: MemoryStore) -> None:
    await lease_of(store, "a").acquire(AT_ONCE)
    with pytest.raises(LeaseHeld, match="held by a, for up to 61 s"):
        await lease_of(store, "b").acquire(AT_ONCE)
    assert record_in(store).holder == "a"


@pytest.mark.parametrize("skew", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_wrong_clock_neither_takes_early_nor_waits_longer(store: MemoryStore, skew: timedelta) -> None:
    """Age is the store's `Date` minus `Last-Modified`; the machines' own clocks are an hour off."""
    await lease_of(store, "a", clock=SharedClock(store, -skew)).acquire(AT_ONCE)
    began = store.time
    other = lease_of(store, "b", clock=SharedClock(store, skew))
    await other.acquire(timedelta(minutes=5))
    waited = (store.time - began).total_seconds()
    assert TTL.total_seconds() + 1 <= waited <= TTL.total_seconds() + 4


async def test_the_same_machine_takes_over_at_once_and_its_predecessor_is_fenced(store: MemoryStore) -> None:
    before = lease_of(store, "a")
    await before.acquire(AT_ONCE)
    after = lease_of(store, "a")
    await after.acquire(AT_ONCE)
    assert after.epoch == 2
    with pytest.raises(LeaseLost, match=r"taken over by a \(epoch 2\)"):
        await before.term.renew()
    assert before.lost.is_set()


async def test_a_lost_lease_stays_lost(store: MemoryStore) -> None:
    """Even after the other machine has released it: our later writes do not descend from its restore points."""
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    other = lease_of(store, "a")
    await other.acquire(AT_ONCE)
    with pytest.raises(LeaseLost):
        await lease.term.renew()
    await other.term.release()
    for ask in (lease.term.renew, lease.ensure_held):
        with pytest.raises(LeaseLost):
            await ask()
    await lease.release()
    assert record_in(store).epoch == 2


async def test_an_outage_longer_than_the_ttl_is_survived_when_nobody_took_over(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    pass_time(store, 3600)
    assert await lease.ensure_held() >= START + HOUR
    assert (lease.epoch, lease.term.held) == (1, True)


async def test_nothing_is_stamped_after_the_term_without_a_renewal(store: MemoryStore) -> None:
    """Another machine may have taken over by then: the store has to agree first."""
    lease = lease_of(store, "a", patience=0.1)
    await lease.acquire(AT_ONCE)
    pass_time(store, 57)
    store.fail("put", times=20)
    assert await lease.ensure_held() == store.time
    pass_time(store, 2)
    with pytest.raises(StoreUnavailable):
        await lease.ensure_held()
    assert lease.term.held


async def test_a_renewal_whose_reply_was_lost_is_recognized(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    store.lose_reply("put")
    await lease.term.renew()
    await lease.term.renew()
    assert not lease.lost.is_set()


async def test_a_renewal_whose_reply_never_came_is_recognized_at_the_next_one(store: MemoryStore) -> None:
    """Even when the attempts ended before the outcome was known: the object is ours, in a version we never saw."""
    lease = lease_of(store, "a", patience=0.0)
    await lease.acquire(AT_ONCE)
    store.lose_reply("put")
    with pytest.raises(OutcomeUnknown):
        await lease.term.renew()
    await lease.term.renew()
    assert (lease.term.held, record_in(store).epoch) == (True, 1)


async def test_an_acquisition_whose_reply_was_lost_is_ours(store: MemoryStore) -> None:
    lease = lease_of(store, "a", boot="mine")
    store.lose_reply("put")
    await lease.acquire(AT_ONCE)
    assert (lease.epoch, record_in(store).boot) == (1, "mine")


async def test_of_several_machines_that_start_at_once_one_is_the_holder(store: MemoryStore) -> None:
    held: list[str] = []

    async def come(name: str) -> None:
        try:
            await lease_of(store, name).acquire(AT_ONCE)
        except LeaseHeld:
            return
        held.append(name)

    async with anyio.create_task_group() as group:
        for name in "abcdef":
            group.start_soon(come, name)
    assert held == [record_in(store).holder]


@pytest.mark.parametrize("ignored", ["IfAbsent", "IfMatch"])
async def test_a_store_that_ignores_conditions_is_refused(store: MemoryStore, ignored: str) -> None:
    honest = store.write

    def write(key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        return honest(key, data, None if type(condition).__name__ == ignored else condition, metadata)

    store.write = write  # type: ignore[method-assign]
    with pytest.raises(StoreUnsuitable, match="does not obey conditional writes"):
        await lease_of(store, "a").acquire(AT_ONCE)


async def test_a_start_that_is_cancelled_while_it_proves_the_store_releases_its_lease(store: MemoryStore) -> None:
    """The lease is ours from the first write on: the next machine must not wait for the ttl."""
    lease = lease_of(store, "a")

    def script(operation: str, _key: str) -> None:
        if operation == "put" and KEY in store.objects:
            scope.cancel()

    store.hook = script
    with anyio.CancelScope() as scope:
        await lease.acquire(AT_ONCE)
    assert lease.term.held
    await lease.release()
    assert record_in(store).released


async def test_a_lease_object_that_was_deleted_is_written_anew_with_its_epoch(store: MemoryStore) -> None:
    for _ in range(3):
        lease = lease_of(store, "a")
        await lease.acquire(AT_ONCE)
    del store.objects[KEY]
    await lease.term.renew()
    assert record_in(store).epoch == 3


async def test_a_malformed_lease_object_is_refused_and_left_as_it_is(store: MemoryStore) -> None:
    store.add(KEY, b"{}")
    with pytest.raises(DamagedLease):
        await lease_of(store, "a").acquire(timedelta(minutes=5))
    assert store.objects[KEY].data == b"{}"


async def test_a_lease_write_that_was_cut_off_is_known_by_its_metadata(store: MemoryStore) -> None:
    """Whichever write it was: the epoch continues, and `settled` and `latest` are kept."""
    before = lease_of(store, "a")
    store.cut_off()
    await before.acquire(AT_ONCE)
    await before.record_start({"app.db": "k1"})
    store.cut_off()
    await before.confirm("app.db", "k2")
    kept = record_in(store)
    assert (kept.holder, kept.epoch, kept.latest) == ("a", before.epoch, {"app.db": "k2"})
    killed = lease_of(store, "a", patience=0.0)
    store.cut_off()
    with pytest.raises(OutcomeUnknown):
        await killed.acquire(AT_ONCE)
    assert store.objects[KEY].data == b""
    with pytest.raises(LeaseLost, match=f"epoch {before.epoch + 1}"):
        await before.term.renew()
    after = lease_of(store, "b")
    await after.acquire(2 * TTL)
    record = record_in(store)
    assert (record.epoch, record.latest, record.settled) == (before.epoch + 2, kept.latest, kept.settled)


async def test_a_request_that_was_cut_off_leaves_the_holder_its_lease(store: MemoryStore) -> None:
    holder = lease_of(store, "a")
    await holder.acquire(AT_ONCE)
    await holder.record_start({"app.db": "k1"})
    store.cut_off()
    with pytest.raises(OutcomeUnknown):
        await lease_of(store, "b", patience=0.0).acquire(timedelta(seconds=3), ask=True)
    await holder.term.renew()
    assert (holder.epoch, record_in(store).settled) == (1, {"app.db": 1})


async def test_renewals_repeat_how_far_streams_have_got(store: MemoryStore) -> None:
    """The next boot reads there what it must find, even when the holder was killed."""
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    begun = StreamRecord("s2", Position("s1", 4))
    await lease.record_start({"app.db": "k1"}, {"app.db": begun}, running=True)
    assert record_in(store).streams == {"app.db": begun}
    lease.streamed("app.db", replace(begun, commit=9, time=5))
    assert record_in(store).streams == {"app.db": begun}
    await lease.term.renew()
    assert record_in(store).streams == {"app.db": StreamRecord("s2", Position("s1", 4), 9, 5)}


async def test_an_instant_is_covered_while_the_term_lasts(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    ends, writes = lease.term.ends, store.count("put")
    assert await lease.require_covered(ends) == ends
    assert store.count("put") == writes
    assert await lease.require_covered(ends + timedelta(milliseconds=1)) > ends
    assert store.count("put") == writes + 1
    await lease.term.release()
    with pytest.raises(LeaseLost):
        await lease.require_covered(ends)


async def test_a_release_is_a_tombstone_that_keeps_what_is_known(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    await lease.record_start({"app.db": "k1"})
    await lease.confirm("app.db", "k2")
    await lease.term.release()
    record = record_in(store)
    assert (record.released, record.epoch, record.settled, record.latest) == (True, 1, {"app.db": 1}, {"app.db": "k2"})
    with pytest.raises(LeaseLost, match="not held"):
        await lease.ensure_held()


async def test_a_machine_whose_disk_may_have_more_than_the_store_keeps_the_lease(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    lease.retain = True
    await lease.release()
    assert not record_in(store).released


async def ask_and_get(store: MemoryStore, holder: Lease, asking: Lease) -> list[Record]:
    """`asking` waits with a request; `holder` renews once it is there, and hands over. Returns the records in between."""
    seen: list[Record] = []

    async def hand_over() -> None:
        while record_in(store).handoff is None:
            await anyio.lowlevel.checkpoint()
        seen.append(record_in(store))
        await holder.term.renew()
        seen.append(record_in(store))
        holder.handing_over = True
        await holder.release()
        seen.append(record_in(store))

    async with anyio.create_task_group() as group:
        group.start_soon(hand_over)
        await asking.acquire(HOUR, ask=True)
    return seen


async def test_a_handoff_reaches_the_holder_and_keeps_its_age(store: MemoryStore) -> None:
    """b asks, which does not make the lease look fresh; a learns of it at its renewal and hands over; b takes it."""
    a, b = lease_of(store, "a"), lease_of(store, "b")
    await a.acquire(AT_ONCE)
    pass_time(store, 30)
    asked, renewed, released = await ask_and_get(store, a, b)
    assert (asked.handoff, asked.aged) == ("b", 30.0)
    assert (a.asked.is_set(), a.asked_by, renewed.aged) == (True, "b", 0.0)
    assert (released.released, released.handoff, a.handed_over) == (True, "b", True)
    assert (b.epoch, record_in(store).retired, record_in(store).handoff) == (2, ("a",), None)


async def test_a_lease_that_was_handed_over_waits_for_the_machine_that_asked(store: MemoryStore) -> None:
    a = lease_of(store, "a")
    await a.acquire(AT_ONCE)
    store.add(KEY, replace(record_in(store), handoff="b").to_bytes())
    await a.term.renew()
    a.handing_over = True
    await a.release()
    for waiting in ("c", "a"):
        with pytest.raises(LeaseHeld, match="held by b"):
            await lease_of(store, waiting).acquire(AT_ONCE)
    assert not await a.is_handoff_abandoned()
    pass_time(store, 62)
    assert await a.is_handoff_abandoned()
    again = lease_of(store, "a")
    await again.acquire(AT_ONCE)
    assert again.epoch == 2


async def test_a_machine_that_handed_over_never_asks_back(store: MemoryStore) -> None:
    """Else two machines that both ask would pass the lease back and forth at each restart."""
    a, b = lease_of(store, "a"), lease_of(store, "b")
    await a.acquire(AT_ONCE)
    await ask_and_get(store, a, b)
    with pytest.raises(LeaseHeld):
        await lease_of(store, "a").acquire(timedelta(seconds=30), ask=True)
    await b.term.renew()
    assert not b.asked.is_set()


async def test_a_machine_that_stops_waiting_withdraws_its_request(store: MemoryStore) -> None:
    """Else the holder would stop its app for nobody. The request leaves the age of the lease as it was."""
    a = lease_of(store, "a")
    await a.acquire(AT_ONCE)
    pass_time(store, 30)
    with pytest.raises(LeaseHeld):
        await lease_of(store, "b").acquire(timedelta(seconds=3), ask=True)
    assert record_in(store).handoff is None
    assert record_in(store).aged >= 33
    await a.term.renew()
    assert not a.asked.is_set()


async def test_a_request_does_not_make_a_dead_holders_lease_look_fresh(store: MemoryStore) -> None:
    await lease_of(store, "a").acquire(AT_ONCE)
    pass_time(store, 40)
    began = store.time
    await lease_of(store, "b").acquire(timedelta(minutes=5), ask=True)
    assert (store.time - began).total_seconds() <= 25


async def test_renewals_come_every_third_of_the_ttl_and_sooner_after_a_failure(store: MemoryStore) -> None:
    clock, status = SharedClock(store), LeaseStatus()
    lease = lease_of(store, "a", clock=clock, status=status, patience=0.0)
    await lease.acquire(AT_ONCE)

    def script(operation: str, _key: str) -> None:
        if operation == "put" and len(clock.sleeps) == 2:
            store.fail("put", times=2)
        if len(clock.sleeps) == 6:
            scope.cancel()

    store.hook = script
    with anyio.CancelScope() as scope:
        async with lease.renewing():
            await anyio.sleep_forever()
    assert clock.sleeps[:2] == [20.0, 20.0]
    assert max(clock.sleeps[2:4]) < 5
    assert clock.sleeps[4] == 20.0
    assert status.renewals["failed"] == 2


async def test_renewals_end_when_the_lease_is_lost(store: MemoryStore) -> None:
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    await lease_of(store, "a").acquire(AT_ONCE)
    async with lease.renewing():
        await lease.lost.wait()
    assert (lease.lost.is_set(), lease.term.held) == (True, False)


async def test_without_a_lease_the_epoch_of_an_earlier_one_is_kept(store: MemoryStore) -> None:
    """Restore points published with lease=off must not look like a fenced machine's when the lease is on again."""
    for _ in range(4):
        await lease_of(store, "a").acquire(AT_ONCE)
    fence = NoLease(store)
    await fence.acquire(AT_ONCE)
    assert fence.epoch == 4
    assert await fence.ensure_held() == store.time


async def test_a_deleted_lease_object_does_not_reset_the_epoch(store: MemoryStore) -> None:
    """It continues above the newest restore point's, so that a holder that is still running is fenced, not joined."""
    a = lease_of(store, "a")
    for _ in range(3):
        a = lease_of(store, "a")
        await a.acquire(AT_ONCE)
    store.add("app.db/20261120T140000.000Z.sqlite3.zst", metadata={"epoch": str(a.epoch)})
    del store.objects[KEY]
    b = lease_of(store, "b", highest_epoch=partial(Catalog(store).highest_epoch, ["app.db"]))
    await b.acquire(AT_ONCE)
    assert b.epoch == 4
    with pytest.raises(LeaseLost):
        await a.confirm("app.db", "app.db/another")


async def test_a_command_does_not_take_the_lease_from_its_own_machines_daemon(store: MemoryStore) -> None:
    """With another TMPDIR it does not even see the daemon's lock. The daemon would stop its app."""
    await lease_of(store, "a").acquire(AT_ONCE)
    command = lease_of(store, "a", returning=False)
    with pytest.raises(LeaseHeld, match="held by a"):
        await command.acquire(AT_ONCE)


async def test_recording_the_start_of_some_databases_leaves_the_others_alone(store: MemoryStore) -> None:
    """A machine that protects one of two databases must not make the other one's restore points look fenced."""
    a = lease_of(store, "a")
    await a.acquire(AT_ONCE)
    await a.record_start({"one.db": "1", "two.db": "1"})
    b = lease_of(store, "a")
    await b.acquire(AT_ONCE)
    await b.record_start({"one.db": "2"})
    assert record_in(store).settled == {"one.db": 2, "two.db": 1}


async def test_a_bug_in_a_renewal_does_not_end_the_renewals(store: MemoryStore) -> None:
    clock, status = SharedClock(store), LeaseStatus()
    lease = lease_of(store, "a", clock=clock, status=status)
    await lease.acquire(AT_ONCE)

    def script(operation: str, _key: str) -> None:
        if operation == "put" and len(clock.sleeps) == 1:
            raise KeyError("ETag")
        if len(clock.sleeps) == 3:
            scope.cancel()

    store.hook = script
    with anyio.CancelScope() as scope:
        async with lease.renewing():
            await anyio.sleep_forever()
    assert (status.renewals["failed"], lease.term.held) == (1, True)


async def test_a_store_that_refuses_every_write_does_not_cause_endless_requests(store: MemoryStore) -> None:
    """Such as one whose GET returns another ETag than its conditions compare with."""
    await lease_of(store, "a").acquire(AT_ONCE)
    store.add(KEY, replace(record_in(store), released=True).to_bytes())

    def refuse(key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        raise PreconditionFailed("scripted")

    store.write = refuse  # type: ignore[method-assign]
    with pytest.raises(LeaseHeld):
        await lease_of(store, "b").acquire(timedelta(seconds=10))
    assert store.count("put") < 20


async def test_another_process_of_the_same_machine_is_not_us(store: MemoryStore) -> None:
    """A process is identified by its boot, not by the machine's name alone."""
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    store.add(KEY, replace(record_in(store), boot="another").to_bytes())
    with pytest.raises(LeaseLost):
        await lease.term.renew()


def die(store: MemoryStore, lease: Lease) -> None:
    """Its process is gone, and its term has ended."""
    lease.retain = True
    pass_time(store, 3600)


async def test_a_machine_that_ran_an_app_and_did_not_release_is_known_until_another_app_runs(
    store: MemoryStore,
) -> None:
    """A start that fails and a command pass it on; the first machine that starts its app clears it."""
    first = lease_of(store, "a")
    await first.acquire(AT_ONCE)
    await first.record_start({}, running=True)
    first.acknowledge_unfinished()
    die(store, first)
    failed = lease_of(store, "b")
    await failed.acquire(AT_ONCE)
    assert failed.unfinished == "a"
    await failed.record_start({}, running=True)
    await failed.term.release()
    command = lease_of(store, "c")
    await command.acquire(AT_ONCE)
    assert command.unfinished == "a"
    await command.record_start({})
    await command.term.release()
    second = lease_of(store, "d")
    await second.acquire(AT_ONCE)
    assert second.unfinished == "a"
    await second.record_start({}, running=True)
    second.acknowledge_unfinished()
    await second.term.renew()
    await second.term.release()
    third = lease_of(store, "e")
    await third.acquire(AT_ONCE)
    assert third.unfinished is None


async def test_a_command_that_was_killed_ran_no_app(store: MemoryStore) -> None:
    command = lease_of(store, "a")
    await command.acquire(AT_ONCE)
    await command.record_start({})
    die(store, command)
    lease = lease_of(store, "b")
    await lease.acquire(AT_ONCE)
    assert lease.unfinished is None


async def test_an_older_version_that_did_not_release_may_have_run_an_app(store: MemoryStore) -> None:
    """Its record does not tell whether it ran an app. A released one is fine."""
    for released, told in ((False, "a"), (True, None)):
        older = lease_of(store, "a")
        await older.acquire(AT_ONCE)
        values = json.loads(store.objects[KEY].data)
        del values["running"], values["unfinished"]
        store.add(KEY, json.dumps({**values, "released": released}).encode())
        pass_time(store, 3600)
        lease = lease_of(store, "b")
        await lease.acquire(AT_ONCE)
        assert lease.unfinished == told
        await lease.term.release()


async def test_a_request_of_an_older_version_does_not_erase_newer_fields(store: MemoryStore) -> None:
    """It writes the record with the fields that it knows."""
    lease = lease_of(store, "a")
    await lease.acquire(AT_ONCE)
    await lease.record_start({}, running=True)
    values = json.loads(store.objects[KEY].data)
    del values["unfinished"]
    store.add(KEY, json.dumps({**values, "running": False, "handoff": "b"}).encode())
    await lease.term.renew()
    assert (record_in(store).running, record_in(store).handoff) == (True, "b")


class Misdated(MemoryStore):
    """Behind a proxy whose clock is ahead: the `Date` of replies is the proxy's, the times of objects are the store's."""

    ahead = timedelta(0)

    async def now(self) -> datetime:
        """See `base.ObjectStore`."""
        return await super().now() + self.ahead


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_holder_is_not_displaced_by_the_clock_of_a_proxy(hours: int) -> None:
    """Every lease looks expired to a machine whose replies are dated an hour ahead; it must not take one that is renewed."""
    store = Misdated()
    await lease_of(store, "a").acquire(AT_ONCE)
    before = store.objects[KEY]
    store.ahead = timedelta(hours=hours)
    with pytest.raises(StoreUnsuitable if hours > 0 else LeaseHeld):
        await lease_of(store, "b").acquire(AT_ONCE)
    assert store.objects[KEY] == before


async def test_an_expired_lease_is_taken_over_where_nothing_but_the_lease_may_be_written(store: MemoryStore) -> None:
    await lease_of(store, "a").acquire(AT_ONCE)
    store.time += timedelta(hours=1)
    store.fail("put", AccessDenied("no"))
    await lease_of(store, "b").acquire(AT_ONCE)
    assert record_in(store).holder == "b"


@pytest.mark.parametrize("ignored", ["IfAbsent", "IfMatch"])
async def test_a_store_that_no_longer_obeys_conditions_is_told_within_an_hour(store: MemoryStore, ignored: str) -> None:
    """A proxy was put in front of it, and is taken away again. The lease is held all the time."""
    clock, status = SharedClock(store), LeaseStatus()
    lease = lease_of(store, "a", clock=clock, status=status, patience=0.0)
    await lease.acquire(AT_ONCE)
    honest, began, seen = store.write, clock.monotonic(), dict[float, str]()

    def write(key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        passed = clock.monotonic() - began
        seen[passed] = status.unsuitable
        if passed > 10_900:
            scope.cancel()
        dishonest = 1800 < passed < 5400 and type(condition).__name__ == ignored
        return honest(key, data, None if dishonest else condition, metadata)

    store.write = write  # type: ignore[method-assign]
    with anyio.CancelScope() as scope:
        async with lease.renewing():
            await anyio.sleep_forever()
    told = [passed for passed, unsuitable in seen.items() if unsuitable]
    assert 3600 < min(told) < 3660
    assert 7200 <= max(told) < 7260
    assert (lease.term.held, status.renewals["failed"]) == (True, 0)
