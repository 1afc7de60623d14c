"""What somebody acknowledges is off every page, and nothing else is; a mistyped store stays amber until then."""

import json
from datetime import timedelta

import pytest

from sidecar.errors import AccessDenied, ExitCode, StoreUnavailable, UsageError
from sidecar.model import IfMatch
from sidecar.monitoring.acknowledgement import KINDS, Acknowledged, acknowledge, require_kind
from sidecar.monitoring.incident_store import close_incidents, read_incidents
from sidecar.repository.catalog import Catalog
from sidecar.status.health import Level, overall
from sidecar.status.model import Status
from sidecar.status.problems import SHOWN, Kind, Problem
from tests.fakes import START, FakeClock, MemoryStore
from tests.unit.test_incidents import KEY, NAME, Process

pytestmark = pytest.mark.anyio

EMPTY = Problem(START, NAME, "it started empty", "look", Kind.EMPTY, lasting=True)
DIVERGED = "diverged/app.db/20261120T115503.123Z-m1.sqlite3.zst"


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(time=clock.now())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def ack(store: MemoryStore, clock: FakeClock, *kinds: Kind, note: str = "") -> Acknowledged:
    """As the command does, on any machine."""
    store.time = clock.now()
    return await acknowledge(Catalog(store), NAME, kinds or KINDS, note, clock.now())


def messages(status: Status) -> list[str]:
    return [each.message for each in status.problems]


async def test_a_mistyped_store_stays_amber_over_days_and_restarts_until_it_is_acknowledged(
    store: MemoryStore, clock: FakeClock
) -> None:
    """On the running machine, on the next ones, and whatever else happens meanwhile."""
    first = Process(store, clock)
    first.status.report_problem(EMPTY)
    await first.incidents.store_new()
    for _ in range(3):
        clock.advance(40 * 3600)
        process = Process(store, clock)
        for number in range(2 * SHOWN):
            process.status.report(NAME, f"other {number}", "", Kind.DIVERGENCE)
            assert await process.incidents.store_new()
            clock.advance(1)
        assert process.level is Level.ATTENTION
        assert EMPTY in list(process.status.problems)
    await ack(store, clock)
    clock.advance(5)
    await process.incidents.refresh(NAME)
    assert process.level is Level.GOOD
    assert Process(store, clock).level is Level.GOOD


async def test_only_the_kind_that_is_named_is_acknowledged_and_its_note_is_kept(
    store: MemoryStore, clock: FakeClock
) -> None:
    process = Process(store, clock)
    process.status.report(NAME, "it looks lost", "", Kind.SUSPICION)
    process.status.report(NAME, "it has grown", "", Kind.GROWTH)
    await process.incidents.store_new()
    done = await ack(store, clock, Kind.SUSPICION, note="meant")
    assert [each.message for each in done.acknowledged] == ["it looks lost"]
    assert [each.message for each in done.open] == ["it has grown"]
    kept = json.loads(store.objects[KEY].data)["acknowledged"]
    assert [(each["kind"], each["message"], each["note"]) for each in kept] == [("suspicion", "it looks lost", "meant")]
    await process.incidents.refresh(NAME)
    assert messages(process.status) == ["it has grown"]


async def test_receivers_are_told_once_that_it_was_acknowledged(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    process.status.report(NAME, "m1 did not shut down cleanly: look", "", Kind.DIVERGENCE)
    process.status.unfinished = "m1"
    await process.incidents.store_new()
    await ack(store, clock, note="its disk is gone")
    for _ in range(3):
        await process.incidents.refresh(NAME)
        await process.incidents.store_new()
    told = [(each.kind, each.message, each.hint) for each in process.told if each.kind is not Kind.DIVERGENCE]
    assert told == [(Kind.ACKNOWLEDGED, "acknowledged: m1 did not shut down cleanly: look", "its disk is gone")]
    assert process.status.unfinished is None, "its alert ends too"


async def test_an_incident_that_arises_after_the_listing_is_not_acknowledged(
    store: MemoryStore, clock: FakeClock
) -> None:
    """A daemon stores another one of the same kind between the read and the write."""
    process = Process(store, clock)
    process.status.report(NAME, "seen", "", Kind.SUSPICION)
    await process.incidents.store_new()
    put = store.put

    async def put_late(*args: object, **options: object) -> object:
        store.put = put  # type: ignore[method-assign]
        process.status.report(NAME, "unseen", "", Kind.SUSPICION)
        assert await process.incidents.store_new()
        return await put(*args, **options)  # type: ignore[arg-type]

    store.put = put_late  # type: ignore[method-assign, assignment]
    done = await ack(store, clock)
    assert [each.message for each in done.acknowledged] == ["seen"]
    assert [each.message for each in done.open] == ["unseen"]
    await process.incidents.refresh(NAME)
    assert messages(process.status) == ["unseen"]


async def test_what_happens_again_is_shown_again(store: MemoryStore, clock: FakeClock) -> None:
    """A drill that fails tomorrow with the same words was not acknowledged today."""
    process = Process(store, clock)
    process.status.report(NAME, "drill: failed", "", Kind.DRILL)
    await process.incidents.store_new()
    await ack(store, clock)
    await process.incidents.refresh(NAME)
    before = process.level
    clock.advance(7 * 3600)
    process.status.report(NAME, "drill: failed", "", Kind.DRILL)
    await process.incidents.store_new()
    assert (before, process.level, Process(store, clock).told) == (Level.GOOD, Level.ATTENTION, [])
    assert len((await read_incidents(store, NAME, clock.now())).incidents) == 1


async def test_a_finding_stays_acknowledged_as_long_as_it_is_the_same(store: MemoryStore, clock: FakeClock) -> None:
    """Each machine's check finds it again; receivers are not told at each start that it was acknowledged."""
    first = Process(store, clock)
    first.status.report(NAME, "NULL value in t.v", "", Kind.FINDING)
    await first.incidents.store_new()
    await ack(store, clock)
    clock.advance(40 * 3600)
    second = Process(store, clock)
    second.status.report(NAME, "NULL value in t.v", "", Kind.FINDING)
    await second.incidents.store_new()
    levels = [second.level]
    assert Kind.ACKNOWLEDGED not in {each.kind for each in second.told}
    second.status.report(NAME, "NULL value in t.w", "", Kind.FINDING)
    await second.incidents.store_new()
    assert [*levels, second.level] == [Level.GOOD, Level.ATTENTION]


async def test_diverged_data_is_acknowledged_without_any_daemon(store: MemoryStore, clock: FakeClock) -> None:
    """It is found in the store's listing; a later state of that machine is another incident."""
    store.add(DIVERGED)
    done = await ack(store, clock, Kind.DIVERGENCE)
    assert len(done.acknowledged) == 1
    assert await ack(store, clock) == Acknowledged((), ())
    process = Process(store, clock)
    await process.incidents.look_for_diverged()
    before = process.level
    store.add("diverged/app.db/20261120T145504.123Z-m1.sqlite3.zst")
    await process.incidents.look_for_diverged()
    assert (before, process.level) == (Level.GOOD, Level.ATTENTION)


async def test_a_daemon_writes_nothing_back_that_was_acknowledged(store: MemoryStore, clock: FakeClock) -> None:
    """Its next write meets the acknowledgement; the note stays in the store."""
    process = Process(store, clock)
    process.status.report(NAME, "old", "", Kind.SUSPICION)
    await process.incidents.store_new()
    clock.advance(5)
    await ack(store, clock, note="meant")
    clock.advance(5)
    process.status.report(NAME, "new", "", Kind.SUSPICION)
    assert await process.incidents.store_new()
    kept = await read_incidents(store, NAME, clock.now())
    assert [each.message for each in kept.incidents] == messages(process.status) == ["new"]
    assert [each.note for each in kept.acknowledged] == ["meant"]


async def test_going_back_by_hand_leaves_nothing_to_acknowledge(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    process.status.report_problem(EMPTY)
    await process.incidents.store_new()
    await close_incidents(store, NAME)
    assert await ack(store, clock) == Acknowledged((), ())
    assert Process(store, clock).level is Level.GOOD


async def test_a_first_start_is_a_question_below_a_green_heading_until_it_is_answered(
    store: MemoryStore, clock: FakeClock
) -> None:
    """Over restarts; no receiver is told."""
    first = Process(store, clock)
    first.status.problems.add(
        Problem(START, NAME, "s3://bucket had none", "`sidecar ack first_start`", Kind.FIRST_START, lasting=True)
    )
    await first.incidents.store_new()
    clock.advance(40 * 3600)
    second = Process(store, clock)
    await second.incidents.store_new()
    assert second.level is Level.GOOD
    assert overall(second.status).reason == "it started empty at 2026-11-20 14:55 UTC: s3://bucket had none"
    await ack(store, clock, Kind.FIRST_START)
    await second.incidents.refresh(NAME)
    assert overall(second.status).reason == ""
    assert {each.kind for each in second.told} <= {Kind.PROTECTED}


async def test_without_open_incidents_no_request_is_sent_to_look_for_acknowledgements(
    store: MemoryStore, clock: FakeClock
) -> None:
    process = Process(store, clock)
    await process.incidents.store_new()
    before = list(store.requests)
    await process.incidents.refresh(NAME)
    assert store.requests == before


async def test_a_store_that_denies_the_write_says_so(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    process.status.report(NAME, "it looks lost", "", Kind.SUSPICION)
    await process.incidents.store_new()
    store.fail("put", AccessDenied("no"))
    with pytest.raises(AccessDenied) as caught:
        await ack(store, clock)
    assert caught.value.exit_code is ExitCode.ACCESS_DENIED


async def test_an_object_that_changes_at_each_attempt_is_given_up(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    process.status.report(NAME, "it looks lost", "", Kind.SUSPICION)
    await process.incidents.store_new()
    get = store.get

    async def get_stale(key: str, **options: object) -> object:
        blob = await get(key, **options)  # type: ignore[arg-type]
        await store.put(key, bytes(blob.data), condition=IfMatch(blob.info.etag))
        return blob

    store.get = get_stale  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreUnavailable):
        await ack(store, clock)


def test_a_kind_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nope"):
        require_kind("nope")
    assert require_kind("drill") == (Kind.DRILL,)


@pytest.mark.parametrize("behind", [timedelta(0), timedelta(minutes=5)])
async def test_a_clock_that_is_ahead_does_not_undo_an_acknowledgement(
    store: MemoryStore, clock: FakeClock, behind: timedelta
) -> None:
    """The incident is dated by one machine, the acknowledgement by the store or by another, whose clocks may be behind."""
    process = Process(store, clock)
    process.status.report(NAME, "it looks lost", "", Kind.SUSPICION)
    await process.incidents.store_new()
    store.time = clock.now() - timedelta(minutes=5)
    await acknowledge(Catalog(store), NAME, KINDS, "", clock.now() - behind)
    for _ in range(2):
        await process.incidents.refresh(NAME)
        await process.incidents.store_new()
    assert process.level is Level.GOOD
    assert await ack(store, clock) == Acknowledged((), ())
