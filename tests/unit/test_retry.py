"""Retrying: only what may succeed when tried again, as long as patience lasts, and never a lost reply taken for a loss."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from sidecar.errors import (
    AccessDenied,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    Throttled,
    TokenUnavailable,
)
from sidecar.host.clock import SystemClock
from sidecar.model import IfAbsent, IfMatch, Span
from sidecar.storage.base import ObjectStore
from sidecar.storage.decorator import Decorated
from sidecar.storage.retry import REQUEST_ID, Retrying, RetryPolicy, T
from tests.fakes import FakeClock, MemoryStore

pytestmark = pytest.mark.anyio

TRANSIENT = [StoreUnavailable, Throttled, OutcomeUnknown, TokenUnavailable]
FINAL = [AccessDenied, StoreMissing, NotFound, PreconditionFailed, SidecarError]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore, clock: FakeClock) -> Retrying:
    return Retrying(memory, clock, RetryPolicy(give_up_after=60.0))


async def upload(store: ObjectStore, key: str = "key", data: bytes = b"data") -> str:
    async with store.upload(key, metadata={"size": "4"}) as started:
        await started.put_part(1, 0, data)
        return (await started.complete()).etag


@pytest.mark.parametrize("error", TRANSIENT)
@pytest.mark.parametrize(
    "operation", ["now", "get", "head", "list", "put", "create_upload", "put_part", "complete_upload", "tag", "tags"]
)
async def test_every_operation_is_tried_again_after_a_transient_failure(
    operation: str, error: type[SidecarError], memory: MemoryStore, store: Retrying
) -> None:
    memory.add("there")
    memory.fail(operation, error("down"), times=3)
    await store.now()
    await store.get("there")
    await store.head("there")
    await store.list("")
    await store.put("new", b"x", condition=IfAbsent())
    await store.tag("there", {"a": "b"})
    assert await store.tags("there") == {"a": "b"}
    await upload(store)
    assert memory.count(operation) == 4
    assert memory.open_uploads == []


@pytest.mark.parametrize("error", FINAL)
async def test_what_cannot_succeed_is_not_tried_again(
    error: type[SidecarError], memory: MemoryStore, store: Retrying, clock: FakeClock
) -> None:
    memory.fail("get", error("no"))
    with pytest.raises(error):
        await store.get("key")
    assert (memory.count(), clock.sleeps) == (1, [])


async def test_a_copied_part_is_tried_again(memory: MemoryStore, store: Retrying) -> None:
    source = memory.add("source", b"0123456789")
    memory.fail("copy_part", times=2)
    async with store.upload("copy", metadata={}) as started:
        await started.copy_part(1, 0, source, Span(2, 5))
        await started.complete()
    assert memory.objects["copy"].data == b"234"


@pytest.mark.parametrize("patience", [0.0, 1.0, 60.0, 600.0])
async def test_patience_ends_with_the_last_error_as_it_was(
    memory: MemoryStore, clock: FakeClock, patience: float
) -> None:
    """No time is slept beyond the limit: a wait that would exceed it is not begun."""
    memory.fail("now", Throttled("the last word"), times=10_000)
    with pytest.raises(Throttled, match=r"^the last word$"):
        await Retrying(memory, clock, RetryPolicy(give_up_after=patience)).now()
    assert clock.elapsed <= patience
    assert clock.elapsed >= patience - 10
    assert memory.count() == len(clock.sleeps) + 1


async def test_time_spent_in_requests_counts(memory: MemoryStore, clock: FakeClock) -> None:
    """A store that takes 30 s to fail is not given as many attempts as one that fails at once."""
    memory.fail("now", times=100)
    memory.hook = lambda _operation, _key: clock.advance(30)
    with pytest.raises(StoreUnavailable):
        await Retrying(memory, clock, RetryPolicy(give_up_after=60.0)).now()
    assert memory.count() == 2


@pytest.mark.parametrize("randomness", [0.0, 0.5, 0.999])
async def test_waits_grow_exponentially_to_a_ceiling_with_full_jitter(memory: MemoryStore, randomness: float) -> None:
    clock = FakeClock(randomness=randomness)
    memory.fail("now", times=40)
    await Retrying(memory, clock, RetryPolicy(give_up_after=1e9, first=0.2, longest=10.0)).now()
    expected = [randomness * min(10.0, 0.2 * 2**attempt) for attempt in range(1, 41)]
    assert clock.sleeps == pytest.approx(expected)
    assert max(clock.sleeps) <= 10.0


async def test_an_attempt_that_is_cut_off_ends_with_the_reason_of_the_one_before(memory: MemoryStore) -> None:
    """`restore_timeout` ends in the middle of an attempt: why the earlier ones failed is what there is to say."""
    memory.fail("get", StoreUnavailable("scripted: the reason"))
    store = Retrying(_Slow(memory), SystemClock(), RetryPolicy(give_up_after=0.3, first=0.01, hard_deadline=True))
    with pytest.raises(StoreUnavailable, match="the reason"):
        await store.get("key")
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        await store.get("key")


class _Slow(Decorated):
    """Answers the first request, and no other one."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self._asked = False

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        if self._asked:
            await anyio.sleep_forever()
        self._asked = True
        return await attempt()


async def test_each_operation_has_patience_of_its_own(memory: MemoryStore, store: Retrying, clock: FakeClock) -> None:
    await store.now()
    clock.advance(1_000)
    memory.fail("now")
    await store.now()


async def test_a_wait_can_be_cancelled(memory: MemoryStore, clock: FakeClock) -> None:
    memory.fail("now", times=10_000)
    with anyio.CancelScope() as scope:
        memory.hook = lambda _operation, _key: scope.cancel() if memory.count() == 3 else None
        await Retrying(memory, clock, RetryPolicy(give_up_after=1e9)).now()
    assert scope.cancelled_caught
    assert memory.count() == 3


@pytest.mark.parametrize("error", [OutcomeUnknown, StoreUnavailable])
async def test_a_put_whose_reply_was_lost_succeeds(
    error: type[SidecarError], memory: MemoryStore, store: Retrying
) -> None:
    """The second attempt is told that the key exists: it is our own object. An error 500 may have been a success too."""
    memory.lose_reply("put", error("gone"), times=3)
    info = await store.put("key", b"ours", condition=IfAbsent(), metadata={"size": "4"})
    assert info.etag == memory.objects["key"].info.etag
    assert memory.objects["key"].data == b"ours"
    assert memory.objects["key"].info.metadata["size"] == "4"


async def test_a_put_that_arrived_by_half_is_no_success(memory: MemoryStore, store: Retrying) -> None:
    """The store kept an empty object of the first attempt, with its metadata: what is there is not what we wrote."""
    memory.lose_reply("put")

    def cut_short(operation: str, key: str) -> None:
        if operation == "head":
            memory.add(key, b"", memory.objects[key].info.metadata)

    memory.hook = cut_short
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"ours", condition=IfAbsent())


async def test_an_overwrite_whose_reply_was_lost_succeeds(memory: MemoryStore, store: Retrying) -> None:
    before = memory.add("key", b"old")
    memory.lose_reply("put")
    info = await store.put("key", b"new", condition=IfMatch(before.etag))
    assert (memory.objects["key"].data, info.etag) == (b"new", memory.objects["key"].info.etag)


async def test_an_upload_whose_last_reply_was_lost_succeeds(memory: MemoryStore, store: Retrying) -> None:
    """The second attempt is told that the upload is gone: it has become the object."""
    memory.lose_reply("complete_upload")
    assert await upload(store) == memory.objects["key"].info.etag
    assert memory.open_uploads == []


async def test_an_upload_whose_last_reply_was_lost_succeeds_when_told_that_the_key_exists(
    memory: MemoryStore, store: Retrying
) -> None:
    """Stores differ in which of the two they say first."""
    memory.lose_reply("complete_upload")
    memory.fail("complete_upload", PreconditionFailed("exists"))
    assert await upload(store) == memory.objects["key"].info.etag


async def test_the_question_whose_object_it_is_may_fail_too(memory: MemoryStore, store: Retrying) -> None:
    memory.lose_reply("put")
    memory.fail("head", times=2)
    await store.put("key", b"ours", condition=IfAbsent())
    assert memory.count("put") == 4


async def steal_put(store: Retrying) -> None:
    await store.put("key", b"ours", condition=IfAbsent())


async def steal_upload(store: Retrying) -> None:
    await upload(store)


@pytest.mark.parametrize(("operation", "write"), [("put", steal_put), ("complete_upload", steal_upload)])
async def test_somebody_elses_object_after_a_lost_request_stays_a_refusal(
    operation: str, write: Callable[[Retrying], Awaitable[None]], memory: MemoryStore, store: Retrying
) -> None:
    """Our request never arrived; meanwhile another machine took the key. It must not be taken for ours."""
    memory.fail(operation, OutcomeUnknown("no reply"))

    def take(asked: str, _key: str) -> None:
        if asked == operation and memory.count(operation) == 2:
            memory.add("key", b"theirs", {REQUEST_ID: "0123456789abcdef"})

    memory.hook = take
    with pytest.raises(PreconditionFailed):
        await write(store)
    assert memory.objects["key"].data == b"theirs"
    assert memory.open_uploads == []


async def test_an_object_without_a_request_id_is_not_ours(memory: MemoryStore, store: Retrying) -> None:
    memory.add("key", b"theirs")
    memory.fail("put")
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"ours", condition=IfAbsent())


async def test_a_refusal_of_an_overwrite_of_a_key_that_is_gone_stays_a_refusal(
    memory: MemoryStore, store: Retrying
) -> None:
    memory.fail("put")
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"ours", condition=IfMatch('"1"'))


async def test_a_refusal_without_an_earlier_failure_is_believed_at_once(memory: MemoryStore, store: Retrying) -> None:
    """Not even asked: whoever wrote the object, it was not this request."""
    memory.add("key", b"theirs")
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"ours", condition=IfAbsent())
    assert memory.requests == [("put", "key")]


async def test_every_write_has_a_request_id_of_its_own(memory: MemoryStore, store: Retrying) -> None:
    for key in ("a", "b"):
        await store.put(key, b"x")
    await upload(store, "c")
    ids = {memory.objects[key].info.metadata[REQUEST_ID] for key in "abc"}
    assert len(ids) == 3


async def test_an_upload_that_fails_is_aborted_once_and_leaves_nothing(memory: MemoryStore, store: Retrying) -> None:
    memory.fail("put_part", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await upload(store)
    assert (memory.open_uploads, memory.objects) == ([], {})
