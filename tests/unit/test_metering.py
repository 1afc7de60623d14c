"""Metering: every attempt is counted and timed, whatever comes of it."""

from dataclasses import replace

import anyio
import pytest

from sidecar.errors import AccessDenied, NotFound, PreconditionFailed, SidecarError, StoreUnavailable, Throttled
from sidecar.model import IfAbsent
from sidecar.status.model import Status
from sidecar.storage.metering import Metered
from sidecar.storage.retry import Retrying, RetryPolicy
from tests.fakes import MEMORY, FakeClock, MemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStore:
    store = MemoryStore()
    store.hook = lambda _operation, _key: clock.advance(0.5)
    return store


@pytest.fixture
def status(clock: FakeClock) -> Status:
    return Status((), "memory://test", "1.0", clock.now)


@pytest.fixture
def metered(memory: MemoryStore, clock: FakeClock, status: Status) -> Metered:
    return Metered(memory, clock, status)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFound, "not_found"),
        (PreconditionFailed, "precondition_failed"),
        (Throttled, "throttled"),
        (StoreUnavailable, "failed"),
        (AccessDenied, "failed"),
    ],
)
async def test_a_failure_is_counted_by_its_kind(
    error: type[SidecarError], outcome: str, memory: MemoryStore, metered: Metered, status: Status
) -> None:
    memory.fail("get", error("no"))
    with pytest.raises(error):
        await metered.get("key")
    assert status.requests == {("get", outcome): 1}
    assert status.request_seconds["get"].total == 0.5


async def test_every_attempt_is_counted_not_every_operation(
    memory: MemoryStore, metered: Metered, clock: FakeClock, status: Status
) -> None:
    memory.fail("now", times=3)
    memory.fail("now", Throttled("slow down"), times=2)
    await Retrying(metered, clock, RetryPolicy(give_up_after=1e9)).now()
    assert status.requests == {("now", "failed"): 3, ("now", "throttled"): 2, ("now", "ok"): 1}
    assert sum(status.request_seconds["now"].counts) == 6
    assert status.request_seconds["now"].total == 3.0  # the waits between attempts are not part of them


async def test_the_question_after_a_lost_reply_is_counted_too(
    memory: MemoryStore, metered: Metered, clock: FakeClock, status: Status
) -> None:
    memory.lose_reply("put")
    await Retrying(metered, clock, RetryPolicy(give_up_after=1e9)).put("key", b"x", condition=IfAbsent())
    assert status.requests == {("put", "failed"): 1, ("put", "precondition_failed"): 1, ("head", "ok"): 1}


async def test_every_request_of_an_upload_is_counted(memory: MemoryStore, metered: Metered, status: Status) -> None:
    async with metered.upload("key", metadata={}) as upload:
        await upload.put_part(1, 0, b"a")
        await upload.put_part(2, 1, b"b")
        await upload.complete()
    assert status.requests == {("create_upload", "ok"): 1, ("put_part", "ok"): 2, ("complete_upload", "ok"): 1}
    assert memory.objects["key"].data == b"ab"


async def test_a_cancelled_request_is_counted_as_such(memory: MemoryStore, metered: Metered, status: Status) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await metered.now()
    assert status.requests == {("now", "cancelled"): 1}


async def test_decorators_tell_what_the_store_behind_them_can_do(clock: FakeClock, status: Status) -> None:
    inner = MemoryStore(traits=replace(MEMORY, minimum_part=5, maximum_parts=7))
    outer = Retrying(Metered(inner, clock, status), clock, RetryPolicy(1.0))
    assert (outer.url, outer.traits) == ("memory://test", inner.traits)
    inner.traits = replace(inner.traits, tags=False)  # a refused request has corrected it
    assert not outer.traits.tags
