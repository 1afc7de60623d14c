"""Findings as incidents: the whole set is what is acknowledged, and what was repaired is gone, over restarts."""

import json

import pytest

from sidecar.status.findings import record_findings
from sidecar.status.health import Level
from sidecar.status.problems import Kind
from tests.fakes import FakeClock, MemoryStore
from tests.unit.test_acknowledgement import ack, messages
from tests.unit.test_incidents import KEY, NAME, Process

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(time=clock.now())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def found(process: Process, clock: FakeClock, *findings: str, mode: str = "quick") -> None:
    """A check with this result, and what the daemon does in the seconds after it."""
    clock.advance(60)
    record_findings(process.status, NAME, mode, findings)
    for _ in range(2):
        await process.incidents.tell_held()
        assert await process.incidents.store_new()


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        (("a", "b"), Level.GOOD),
        (("b", "a"), Level.GOOD),
        (("b",), Level.GOOD),
        (("a", "c"), Level.ATTENTION),
        (("c", "b"), Level.ATTENTION),
        (("a", "b", "c"), Level.ATTENTION),
        (("c",), Level.ATTENTION),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_acknowledged_findings_hide_no_others(
    store: MemoryStore, clock: FakeClock, changed: tuple[str, ...], level: Level, restarted: bool
) -> None:
    """However similar the line that people see is; fewer findings, or another order, is nothing that nobody has seen."""
    process = Process(store, clock)
    await found(process, clock, "a", "b")
    told = [each.kind for each in process.told]
    assert told.count(Kind.FINDING) == 1
    await ack(store, clock)
    await process.incidents.refresh(NAME)
    assert process.level is Level.GOOD
    process = Process(store, clock) if restarted else process
    process.told.clear()
    await found(process, clock, *changed)
    assert process.level is level
    assert (Kind.FINDING in {each.kind for each in process.told}) is (level is Level.ATTENTION)


async def test_repaired_finding_is_gone_from_the_store_and_news_when_it_is_back(
    store: MemoryStore, clock: FakeClock
) -> None:
    """Open or acknowledged, and over restarts."""
    first = Process(store, clock)
    await found(first, clock, "a", "b")
    await found(first, clock, "a")
    assert [each["message"] for each in json.loads(store.objects[KEY].data)["incidents"]] == [
        "SQLite's check has a finding: a"
    ]
    await ack(store, clock)
    await found(first, clock)
    assert json.loads(store.objects[KEY].data) == {"notices": [], "decided": None}
    second = Process(store, clock)
    await second.incidents.store_new()
    assert second.level is Level.GOOD
    await found(second, clock, "a")
    assert (second.level, [each.kind for each in second.told].count(Kind.FINDING)) == (Level.ATTENTION, 1)


@pytest.mark.parametrize("read_first", [True, False])
async def test_finding_that_was_repaired_before_a_crash_goes_with_the_next_check(
    store: MemoryStore, clock: FakeClock, read_first: bool
) -> None:
    """The store still has it: whether it is read before the check or after it."""
    await found(Process(store, clock), clock, "a", "b")
    second = Process(store, clock)
    if read_first:
        await second.incidents.store_new()
        assert second.level is Level.ATTENTION
    await found(second, clock)
    assert second.level is Level.GOOD
    assert json.loads(store.objects[KEY].data) == {"notices": [], "decided": None}
    third = Process(store, clock)
    await third.incidents.store_new()
    assert third.level is Level.GOOD


async def test_what_only_a_full_check_finds_survives_the_quick_checks_of_the_next_process(
    store: MemoryStore, clock: FakeClock
) -> None:
    """A drill has found it: it is neither told again nor taken off by a check that does not look for it."""
    first = Process(store, clock)
    await found(first, clock, "a")
    await found(first, clock, "a", "index", mode="full")
    second = Process(store, clock)
    for findings in ((), ("a",)):
        await found(second, clock, *findings)
        assert messages(second.status) == ["SQLite's check has a finding: a (and 1 more)"]
    await ack(store, clock)
    third = Process(store, clock)
    await found(third, clock, "a")
    await found(third, clock, "a", "index", mode="full")
    assert third.level is Level.GOOD
    assert Kind.FINDING not in {each.kind for each in (*second.told, *third.told)}


async def test_acknowledgement_of_findings_ends_with_each_that_is_repaired(
    store: MemoryStore, clock: FakeClock
) -> None:
    process = Process(store, clock)
    await found(process, clock, "a", "b")
    await ack(store, clock)
    await process.incidents.refresh(NAME)
    await found(process, clock, "a")
    before = process.level
    await found(process, clock, "a", "b")
    assert (before, process.level) == (Level.GOOD, Level.ATTENTION)
