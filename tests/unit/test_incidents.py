"""Open incidents: kept in the store for a day, shown by the next process, written by the holder alone."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.errors import AccessDenied, LeaseLost, StoreUnavailable
from sidecar.lease import StreamRecord
from sidecar.model import Database
from sidecar.monitoring.acknowledgement import acknowledge_all
from sidecar.monitoring.incident_store import StoredIncidents, close_incidents, incidents_key, read_incidents
from sidecar.monitoring.incidents import Incidents
from sidecar.repository.catalog import Catalog
from sidecar.status.findings import record_findings
from sidecar.status.health import LOOK_FOR, Level, overall
from sidecar.status.model import Event, Status
from sidecar.status.problems import SHOWN, Kind, Problem
from tests.fakes import START, FakeClock, MemoryStore

pytestmark = pytest.mark.anyio

NAME = "app.db"
KEY = ".sidecar/notices/app.db.json"


class Fence:
    """Implements what `Incidents` asks of `lease.fence.Fence`."""

    exclusive = True
    unfinished = None
    epoch = 1

    def __init__(self) -> None:
        self.lost = anyio.Event()

    def require_held(self) -> None:
        if self.lost.is_set():
            raise LeaseLost("lost")

    async def ensure_held(self) -> datetime:
        return START

    async def record_start(self, latest: object, streams: object = None, *, running: bool = False) -> None: ...

    def streamed(self, database: str, record: StreamRecord) -> None: ...

    async def require_covered(self, instant: datetime) -> datetime:
        return instant

    async def confirm(self, database: str, key: str) -> None: ...


class Process:
    """The part of a daemon that concerns incidents."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        self.status = Status((Database(NAME, Path("/data/app.db")),), "s3://bucket", "1", clock.now)
        self.told: list[Event] = []
        self.status.listener = self.told.append
        self.fence = Fence()
        self.incidents = Incidents(Catalog(store), self.status, self.fence)

    @property
    def level(self) -> Level:
        """The level that the page shows."""
        self.status.enter("running", ready=True)
        self.status.succeeded(NAME, "published")
        return overall(self.status).level


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("kind", [Kind.SUSPICION, Kind.DIVERGENCE, Kind.DRILL, Kind.DAMAGED, Kind.GROWTH])
async def test_the_next_process_shows_what_the_last_one_left(store: MemoryStore, clock: FakeClock, kind: Kind) -> None:
    """With the same message and time, on any machine; it is not sent to receivers again."""
    first = Process(store, clock)
    first.status.report(NAME, "it looks lost", "look", kind)
    assert await first.incidents.store_new()
    clock.advance(3600)
    second = Process(store, clock)
    assert await second.incidents.store_new()
    assert list(second.status.problems) == [Problem(START, NAME, "it looks lost", "look", kind)]
    assert second.told == []
    assert second.level is Level.ATTENTION


@pytest.mark.parametrize("kind", [Kind.FAILURE, Kind.NOTICE, Kind.RECOVERY])
async def test_problems_that_pass_by_themselves_are_not_stored(
    store: MemoryStore, clock: FakeClock, kind: Kind
) -> None:
    """A failure is over with the process, or is reported again by the next one."""
    first = Process(store, clock)
    first.status.report(NAME, "the store is away", "", kind)
    assert await first.incidents.store_new()
    assert store.objects == {}


async def test_without_news_no_request_is_sent(store: MemoryStore, clock: FakeClock) -> None:
    """One GET for a process without incidents, and one PUT for an incident that is reported again and again."""
    process = Process(store, clock)
    for _ in range(5):
        assert await process.incidents.store_new()
        clock.advance(1)
    assert store.requests == [("get", KEY)]
    for _ in range(5):
        process.status.report(NAME, "it looks lost", "look", Kind.SUSPICION)
        assert await process.incidents.store_new()
        clock.advance(1)
    assert store.requests == [("get", KEY), ("put", KEY)]


async def test_incidents_that_were_read_are_not_written_again(store: MemoryStore, clock: FakeClock) -> None:
    first = Process(store, clock)
    first.status.report(NAME, "it looks lost", "look", Kind.SUSPICION)
    await first.incidents.store_new()
    before = store.count("put")
    second = Process(store, clock)
    await second.incidents.store_new()
    await second.incidents.store_new()
    assert store.count("put") == before


async def test_an_incident_is_gone_after_its_day(store: MemoryStore, clock: FakeClock) -> None:
    first = Process(store, clock)
    first.status.report(NAME, "it looks lost", "look", Kind.SUSPICION)
    await first.incidents.store_new()
    clock.advance(LOOK_FOR.total_seconds() + 1)
    await first.incidents.store_new()
    assert json.loads(store.objects[KEY].data) == {"notices": [], "decided": None}
    second = Process(store, clock)
    await second.incidents.store_new()
    assert second.level is Level.GOOD


async def test_incidents_in_a_silent_store_are_not_overwritten_unread(store: MemoryStore, clock: FakeClock) -> None:
    """The first reads fail while a new incident is reported: in the end both are stored."""
    first = Process(store, clock)
    first.status.report(NAME, "old", "", Kind.DIVERGENCE)
    await first.incidents.store_new()
    second = Process(store, clock)
    second.status.report(NAME, "new", "", Kind.SUSPICION)
    store.fail("get", times=2)
    assert not await second.incidents.store_new()
    assert not await second.incidents.store_new()
    assert await second.incidents.store_new()
    kept = await read_incidents(store, NAME, clock.now())
    assert [each.message for each in kept.incidents] == ["old", "new"]


async def test_an_incident_that_could_not_be_written_is_written_later(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    await process.incidents.store_new()
    process.status.report(NAME, "new", "", Kind.SUSPICION)
    store.fail("put", times=1)
    assert not await process.incidents.store_new()
    assert await process.incidents.store_new()
    assert [each.message for each in (await read_incidents(store, NAME, clock.now())).incidents] == ["new"]


async def test_a_machine_that_lost_the_lease_writes_nothing(store: MemoryStore, clock: FakeClock) -> None:
    """The stored incidents are those of the new holder."""
    fenced = Process(store, clock)
    await fenced.incidents.store_new()
    fenced.fence.lost.set()
    fenced.status.report(NAME, "mine", "", Kind.DIVERGENCE)
    assert not await fenced.incidents.store_new()
    await fenced.incidents.store_last()
    assert store.count("put") == 0


async def test_new_incidents_are_stored_at_the_end_and_otherwise_no_request_is_sent(
    store: MemoryStore, clock: FakeClock
) -> None:
    """A store that does not answer at the end costs time only when there is something to store."""
    process = Process(store, clock)
    await process.incidents.store_last()
    assert store.requests == []
    process.status.report(NAME, "the app deleted all rows", "", Kind.SUSPICION)
    await process.incidents.store_last()
    assert [each.message for each in (await read_incidents(store, NAME, clock.now())).incidents] == [
        "the app deleted all rows"
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"notices": 7}',
        b'{"notices": [7]}',
        b'{"notices": [{"at": "yesterday"}]}',
        b'{"notices": [{"at": "2026-11-20T14:00:00+00:00", "kind": "unheard of", "message": "", "hint": ""}]}',
        b'{"notices": [{"at": 5, "kind": "drill", "message": "", "hint": ""}]}',
    ],
)
async def test_garbage_counts_as_nothing_and_is_replaced(store: MemoryStore, clock: FakeClock, content: bytes) -> None:
    store.add(KEY, content)
    process = Process(store, clock)
    process.status.report(NAME, "new", "", Kind.SUSPICION)
    assert await process.incidents.store_new()
    assert [each.message for each in (await read_incidents(store, NAME, clock.now())).incidents] == ["new"]


async def test_an_incident_from_the_future_is_dated_now(store: MemoryStore, clock: FakeClock) -> None:
    """A clock that was years ahead must not keep the page amber for years."""
    at = START + timedelta(days=4000)
    notice = {"at": at.isoformat(), "kind": "drill", "message": "m", "hint": "h"}
    store.add(KEY, json.dumps({"notices": [notice]}).encode())
    assert [each.at for each in (await read_incidents(store, NAME, clock.now())).incidents] == [START]


async def test_too_many_old_incidents_do_not_push_out_a_new_one(store: MemoryStore, clock: FakeClock) -> None:
    first = Process(store, clock)
    for number in range(SHOWN):
        first.status.report(NAME, f"old {number}", "", Kind.DIVERGENCE)
    await first.incidents.store_new()
    second = Process(store, clock)
    second.status.report(NAME, "new", "", Kind.SUSPICION)
    await second.incidents.store_new()
    assert len(second.status.problems) == SHOWN
    assert second.status.problems[-1].message == "new"


async def test_closed_incidents_are_not_shown_again(store: MemoryStore, clock: FakeClock) -> None:
    """Neither the incidents nor older data under `diverged/`; later ones are shown, and do not undo the decision."""
    first = Process(store, clock)
    first.status.report(NAME, "it looks lost", "", Kind.SUSPICION)
    await first.incidents.store_new()
    store.add("diverged/app.db/20261120T115503.123Z-m1.sqlite3.zst")
    store.fail("put", StoreUnavailable("away"))
    await close_incidents(store, NAME)
    assert len((await read_incidents(store, NAME, clock.now())).incidents) == 1, (
        "it could not be written, and nothing was raised"
    )
    await close_incidents(store, NAME)
    assert await read_incidents(store, NAME, clock.now()) == StoredIncidents(
        (), store.time, store.objects[KEY].info.etag
    )
    second = Process(store, clock)
    await second.incidents.store_new()
    await second.incidents.look_for_diverged()
    assert second.level is Level.GOOD
    second.status.report(NAME, "new", "", Kind.SUSPICION)
    await second.incidents.store_new()
    store.add("diverged/app.db/20261120T145504.123Z-m2.sqlite3.zst")
    await second.incidents.look_for_diverged()
    assert [each.message.split()[0] for each in second.status.problems] == ["m2", "new"]


async def test_diverged_data_of_other_machines_is_shown(store: MemoryStore, clock: FakeClock) -> None:
    """One incident for each machine, for data of the last day; not data that this machine itself moved aside."""
    for text in (
        "20261118T145503.123Z-m0",
        "20261120T105503.123Z-m1",
        "20261120T115503.123Z-m1",
        "20261120T125503.123Z-m2",
    ):
        store.add(f"diverged/app.db/{text}.sqlite3.zst")
    process = Process(store, clock)
    process.status.report(NAME, "it is kept at /data/app.db.diverged-20261120T125503.123Z", "", Kind.DIVERGENCE)
    await process.incidents.look_for_diverged()
    await process.incidents.look_for_diverged()
    assert [each.message.split()[0] for each in process.status.problems] == ["m1", "it"]
    assert process.status.problems[0].at < START
    assert process.level is Level.ATTENTION
    assert [each.kind for each in process.told] == [Kind.DIVERGENCE, Kind.PROTECTED], "others were told by others"


async def test_two_machines_that_write_keep_each_others_incidents(store: MemoryStore, clock: FakeClock) -> None:
    """One is fenced and does not know it yet, or there is no lease: nothing of the other's is lost."""
    first, second = Process(store, clock), Process(store, clock)
    await first.incidents.store_new()
    await second.incidents.store_new()
    second.status.report(NAME, "of the second", "", Kind.SUSPICION)
    await second.incidents.store_new()
    first.status.report(NAME, "of the first", "", Kind.SUSPICION)
    assert await first.incidents.store_new()
    kept = await read_incidents(store, NAME, clock.now())
    assert {each.message for each in kept.incidents} == {"of the first", "of the second"}
    assert {each.message for each in first.status.problems} == {"of the first", "of the second"}


async def test_incidents_closed_meanwhile_are_not_written_back(store: MemoryStore, clock: FakeClock) -> None:
    process = Process(store, clock)
    process.status.report(NAME, "old", "", Kind.SUSPICION)
    await process.incidents.store_new()
    clock.advance(5)
    store.time = clock.now()
    await close_incidents(store, NAME)
    clock.advance(5)
    process.status.report(NAME, "new", "", Kind.SUSPICION)
    await process.incidents.store_new()
    assert [each.message for each in (await read_incidents(store, NAME, clock.now())).incidents] == ["new"]


async def test_an_incident_reported_again_a_day_later_is_kept_for_its_day(store: MemoryStore, clock: FakeClock) -> None:
    """A drill fails every six hours with the same message."""
    first = Process(store, clock)
    for _ in range(8):
        first.status.report(NAME, "drill: failed", "", Kind.DRILL)
        await first.incidents.store_new()
        clock.advance(6 * 3600)
    second = Process(store, clock)
    await second.incidents.store_new()
    assert second.level is Level.ATTENTION


async def test_data_that_diverges_again_is_shown_again(store: MemoryStore, clock: FakeClock) -> None:
    """By the same machine, a day after the first incident."""
    process = Process(store, clock)
    store.add("diverged/app.db/20261120T145503.000Z-m1.sqlite3.zst")
    await process.incidents.look_for_diverged()
    clock.advance(27 * 3600)
    store.time = clock.now()
    await process.incidents.look_for_diverged()
    before = process.level
    store.add("diverged/app.db/20261121T175400.000Z-m1.sqlite3.zst")
    await process.incidents.look_for_diverged()
    assert (before, process.level) == (Level.GOOD, Level.ATTENTION)


@pytest.mark.parametrize(
    "content",
    [
        b'{"notices": [{"at": "0001-01-01T00:00:00+05:00", "kind": "drill", "message": "", "hint": ""}]}',
        b"[" * 100_000,
    ],
    ids=["overflow", "depth"],
)
async def test_no_content_of_the_object_ends_a_daemon(store: MemoryStore, clock: FakeClock, content: bytes) -> None:
    store.add(KEY, content)
    process = Process(store, clock)
    process.status.report(NAME, "new", "", Kind.SUSPICION)
    await process.incidents.store_last()
    assert [each.message for each in (await read_incidents(store, NAME, clock.now())).incidents] == ["new"]


async def test_a_bug_does_not_change_how_a_daemon_ends(store: MemoryStore, clock: FakeClock) -> None:
    """After the final backup nothing may: the exit status is decided, and the lease has to be released."""
    process = Process(store, clock)
    process.status.report(NAME, "new", "", Kind.SUSPICION)

    def fail(_operation: str, _key: str) -> None:
        raise RuntimeError("a bug")

    store.hook = fail
    await process.incidents.store_last()


class Two:
    """A daemon with two databases."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        names = ("a.db", "b.db")
        self.status = Status(tuple(Database(name, Path("/data", name)) for name in names), "s3://b", "1", clock.now)
        self.incidents = Incidents(Catalog(store), self.status, Fence())


async def test_incidents_of_one_database_do_not_push_out_those_of_another(store: MemoryStore, clock: FakeClock) -> None:
    """However many one has, the loss of the other stays visible, here and after a restart."""
    first = Two(store, clock)
    first.status.report("b.db", "changes were lost", "", Kind.DAMAGED)
    for number in range(2 * SHOWN):
        first.status.report("a.db", f"it looks lost {number}", "", Kind.SUSPICION)
        assert await first.incidents.store_new()
    second = Two(store, clock)
    for number in range(2 * SHOWN):
        second.status.report("a.db", f"it looks lost again {number}", "", Kind.SUSPICION)
    assert await second.incidents.store_new()
    for each in (first, second):
        assert [problem.message for problem in each.status.problems if problem.database == "b.db"] == [
            "changes were lost"
        ]


async def test_incidents_without_room_on_the_page_stay_stored(store: MemoryStore, clock: FakeClock) -> None:
    """The page has a limit for all databases together, the store one for each."""
    first = Two(store, clock)
    for number in range(15):
        for name in ("a.db", "b.db"):
            first.status.report(name, f"of {name} {number}", "", Kind.SUSPICION)
        await first.incidents.store_new()
        clock.advance(1)
    second = Two(store, clock)
    second.status.report("a.db", "new", "", Kind.SUSPICION)
    await second.incidents.store_new()
    kept = [len((await read_incidents(store, name, clock.now())).incidents) for name in ("a.db", "b.db")]
    assert kept == [16, 15]


async def test_a_store_that_denies_access_to_incidents_does_not_hide_diverged_data(
    store: MemoryStore, clock: FakeClock
) -> None:
    process = Process(store, clock)
    store.add("diverged/app.db/20261120T115503.123Z-m1.sqlite3.zst")

    def deny(_operation: str, key: str) -> None:
        if "notices" in key:
            raise AccessDenied("no")

    store.hook = deny
    await process.incidents.look_for_diverged()
    assert process.level is Level.ATTENTION


async def test_a_decision_of_this_very_second_counts(store: MemoryStore, clock: FakeClock) -> None:
    """S3 has a resolution of a second: an instant of just now may be ahead of its next answer."""
    now = clock.now()
    assert StoredIncidents((), now + timedelta(seconds=1)).open_since(now) > now
    assert StoredIncidents((), now + timedelta(hours=1)).open_since(now) == now - LOOK_FOR, (
        "one from the future hides nothing"
    )


async def test_incidents_that_cannot_be_read_do_not_delay_those_of_other_databases(
    store: MemoryStore, clock: FakeClock
) -> None:
    process = Two(store, clock)

    def deny(_operation: str, key: str) -> None:
        if "a.db" in key:
            raise AccessDenied("no")

    store.hook = deny
    process.status.report("b.db", "it looks lost", "", Kind.SUSPICION)
    assert not await process.incidents.store_new()
    assert [each.message for each in (await read_incidents(store, "b.db", clock.now())).incidents] == ["it looks lost"]


@pytest.mark.parametrize("name", ["app.db", "a b.db", "ü.db", ".."])
def test_keys_stay_below_the_reserved_name(name: str) -> None:
    assert incidents_key(name).startswith(".sidecar/notices/")
    assert incidents_key(name).count("/") == 2


async def test_a_finding_is_told_once_and_not_at_every_start(store: MemoryStore, clock: FakeClock) -> None:
    """Not while it is open in the store, nor when somebody has acknowledged it; another finding is told."""
    told = []
    for finding in ("a", "a", "a", "b"):
        process = Process(store, clock)
        record_findings(process.status, NAME, "quick", (finding,))
        await process.incidents.tell_held()
        await process.incidents.store_new()
        told.append([each.message for each in process.told if each.kind is Kind.FINDING])
        if len(told) == 2:
            await acknowledge_all(Catalog(store), [NAME], [Kind.FINDING], "", clock.now())
        clock.advance(60)
    assert told == [["SQLite's check has a finding: a"], [], [], ["SQLite's check has a finding: b"]]


async def test_a_finding_is_told_when_the_store_does_not_answer(store: MemoryStore, clock: FakeClock) -> None:
    """Nobody knows then whether it is known."""
    process = Process(store, clock)
    store.fail("get")
    record_findings(process.status, NAME, "quick", ("a",))
    await process.incidents.store_last()
    assert [each.kind for each in process.told] == [Kind.FINDING]


async def test_a_kind_that_only_a_newer_version_knows_hides_no_other(store: MemoryStore, clock: FakeClock) -> None:
    """After an upgrade was undone, for example: what is known stays open, and stays acknowledged."""
    at = clock.now().isoformat()
    entries = [{"at": at, "kind": kind, "message": "m", "hint": "h"} for kind in ("future", "damaged")]
    await store.put(
        KEY, json.dumps({"notices": entries, "acknowledged": [*entries[:1], {**entries[1], "message": "n"}]}).encode()
    )
    stored = await read_incidents(store, NAME, clock.now())
    assert [each.kind for each in stored.incidents] == [Kind.DAMAGED]
    assert [each.message for each in stored.acknowledged] == ["n"]
