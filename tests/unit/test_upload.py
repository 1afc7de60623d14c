"""Uploading an object: all of it or nothing, in parts that the store accepts."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    LeaseLost,
    NoRoom,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    ReuseFailed,
    SidecarError,
    StoreUnavailable,
)
from sidecar.model import ObjectInfo, Span
from sidecar.repository.parts import PartAssembler, PartSizes, fetch_from, part_size_for
from sidecar.repository.upload import ObjectUpload
from sidecar.repository.writer import write_through
from sidecar.storage.base import ObjectStore
from sidecar.storage.retry import Retrying, RetryPolicy
from tests.fakes import MEMORY, FakeClock, MemoryStore

pytestmark = pytest.mark.anyio

KEY = "app.db/20261120T145503.123Z.sqlite3.zst"
METADATA = {"size": "1"}
PART = 100
Produce = Callable[[PartAssembler], Awaitable[None]]


def data(size: int) -> bytes:
    return bytes(number * 7 % 256 for number in range(size))


def written(whole: bytes, step: int = 37) -> Produce:
    """A producer of these bytes, in pieces that fit no part."""

    async def produce(assembler: PartAssembler) -> None:
        for start in range(0, len(whole), step):
            await assembler.write(whole[start : start + step])

    return produce


def failing(whole: bytes, error: BaseException) -> Produce:
    """A producer that writes all of these bytes, and then fails."""

    async def produce(assembler: PartAssembler) -> None:
        await written(whole)(assembler)
        raise error

    return produce


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(traits=replace(MEMORY, minimum_part=PART))


def was_not_asked_to_publish(store: MemoryStore) -> bool:
    """No request was even started that makes an object visible: one under way cannot be called back."""
    return is_untouched(store) and store.count("put", "complete_upload") == 0


async def upload(store: ObjectStore, sizes: PartSizes, produce: Produce, *, concurrency: int = 4) -> ObjectInfo:
    """Upload what `produce` writes, as a publish does."""
    written = await write_through(produce, sizes, ObjectUpload(store, KEY, METADATA, concurrency=concurrency))
    return written.info


@pytest.mark.parametrize("size", [10, 10 * PART])
async def test_the_permit_is_asked_last_and_its_refusal_publishes_nothing(store: MemoryStore, size: int) -> None:
    """A machine that lost the lease while it uploaded must not make the object visible."""
    before: list[tuple[str, str]] = []

    async def refuse() -> None:
        before.extend(store.requests)
        raise LeaseLost("another machine took over")

    with pytest.raises(LeaseLost):
        await write_through(written(data(size)), PartSizes(PART), ObjectUpload(store, KEY, METADATA, permit=refuse))
    assert was_not_asked_to_publish(store)
    assert [operation for operation, _ in before].count("put_part") == (size // PART if size > PART else 0)


async def publish(store: MemoryStore, produce: Produce, *, concurrency: int = 4, part_size: int = PART) -> None:
    await upload(store, PartSizes(part_size), produce, concurrency=concurrency)


def is_untouched(store: MemoryStore) -> bool:
    """Nothing is visible, and no open upload is left that would cost money."""
    return not store.objects and not store.open_uploads


@pytest.mark.parametrize("size", [1, PART - 1, PART])
async def test_a_small_object_is_one_write_and_one_head(store: MemoryStore, size: int) -> None:
    await publish(store, written(data(size)))
    assert store.requests == [("put", KEY), ("head", KEY)]
    assert store.objects[KEY].data == data(size)
    assert store.objects[KEY].info.metadata == METADATA


@pytest.mark.parametrize("concurrency", [1, 2, 4, 16])
@pytest.mark.parametrize("size", [PART + 1, 2 * PART, 2 * PART + 1, 10 * PART, 33 * PART + 7])
@pytest.mark.parametrize("step", [1, 37, PART, 5 * PART + 3])
async def test_a_large_object_is_uploaded_in_equal_parts(
    store: MemoryStore, size: int, step: int, concurrency: int
) -> None:
    """All but the last have exactly the part size, which some stores (R2) demand; none is below the minimum."""
    await publish(store, written(data(size), step), concurrency=concurrency)
    assert store.objects[KEY].data == data(size)
    assert store.objects[KEY].info.metadata == METADATA
    *most, last = store.part_sizes[KEY]
    assert set(most) == {PART}
    assert 0 < last <= PART
    assert store.open_uploads == []


@pytest.mark.parametrize("concurrency", [1, 2, 4])
async def test_memory_of_a_part_is_not_used_again_before_it_was_sent(store: MemoryStore, concurrency: int) -> None:
    """Else another part's bytes would be published in its place, and no digest would reveal it."""
    request = store.request

    async def slow(operation: str, key: str, work: Callable[[], object]) -> object:
        for _ in range(50 if operation == "put_part" else 0):  # enough for the producer to fill many parts
            await anyio.lowlevel.checkpoint()
        return await request(operation, key, work)

    store.request = slow  # type: ignore[method-assign, assignment]
    whole = hashlib.shake_128(b"every part is different").digest(50 * PART)
    await publish(store, written(whole), concurrency=concurrency)
    assert store.objects[KEY].data == whole


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_parts_are_sent_at_once_but_no_more_than_asked_for(store: MemoryStore, concurrency: int) -> None:
    sending = most = 0
    put_part = store.request

    async def counted(operation: str, key: str, work: Callable[[], object]) -> object:
        nonlocal sending, most
        sending += operation == "put_part"
        most = max(most, sending)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        result = await put_part(operation, key, work)
        sending -= operation == "put_part"
        return result

    store.request = counted  # type: ignore[method-assign, assignment]
    await publish(store, written(data(50 * PART)), concurrency=concurrency)
    assert most == concurrency


async def test_memory_is_bounded_by_the_parts_in_flight(store: MemoryStore) -> None:
    """The producer waits for the store: what it has written beyond what was sent is a few parts, not the database."""
    produced = most = 0

    async def produce(assembler: PartAssembler) -> None:
        nonlocal produced, most
        for number in range(60):
            produced = number + 1
            most = max(most, produced - store.count("put_part"))
            await assembler.write(data(PART))

    await publish(store, produce, concurrency=4)
    assert store.count("put_part") == produced == 60
    assert most <= 4 + 2


@pytest.mark.parametrize("size", [0, 1, PART, 3 * PART, 3 * PART + 1, 20 * PART])
async def test_a_producer_that_fails_publishes_nothing(store: MemoryStore, size: int) -> None:
    """The end of the stream must not look like the end of the object, however much was written before."""
    with pytest.raises(NoRoom):
        await publish(store, failing(data(size), NoRoom("staging is full")))
    assert was_not_asked_to_publish(store)


async def test_a_bug_in_the_producer_publishes_nothing_either(store: MemoryStore) -> None:
    with pytest.raises(ZeroDivisionError):
        await publish(store, failing(data(5 * PART), ZeroDivisionError()))
    assert was_not_asked_to_publish(store)


@pytest.mark.parametrize("operation", ["create_upload", "put_part", "complete_upload"])
async def test_a_store_that_fails_midway_is_left_with_nothing(store: MemoryStore, operation: str) -> None:
    """The store's error is raised, not the producer's, which only saw its consumer go."""
    store.fail(operation, AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await publish(store, written(data(20 * PART)))
    assert is_untouched(store)


async def test_a_store_that_fails_at_a_later_part_is_left_with_nothing(store: MemoryStore) -> None:
    store.hook = lambda _operation, _key: store.fail("put_part") if store.count("put_part") == 9 else None
    with pytest.raises(StoreUnavailable):
        await publish(store, written(data(20 * PART)))
    assert is_untouched(store)


async def test_a_small_object_that_cannot_be_put_is_not_there(store: MemoryStore) -> None:
    store.fail("put")
    with pytest.raises(StoreUnavailable):
        await publish(store, written(data(10)))
    assert is_untouched(store)


@pytest.mark.parametrize("size", [10, 10 * PART])
async def test_a_key_that_exists_is_not_overwritten(store: MemoryStore, size: int) -> None:
    store.add(KEY, b"theirs")
    with pytest.raises(PreconditionFailed):
        await publish(store, written(data(size)))
    assert store.objects[KEY].data == b"theirs"
    assert store.open_uploads == []


@pytest.mark.parametrize("size", [10, 10 * PART])
async def test_a_reply_that_was_lost_is_not_taken_for_somebody_else(store: MemoryStore, size: int) -> None:
    store.lose_reply("put")
    store.lose_reply("complete_upload")
    retrying = Retrying(store, FakeClock(), RetryPolicy(60.0))
    info = await upload(retrying, PartSizes(PART), written(data(size)))
    assert (info.etag, info.size) == (store.objects[KEY].info.etag, size)


@pytest.mark.parametrize("size", [10, 10 * PART])
async def test_without_retries_a_lost_reply_is_an_unknown_outcome(store: MemoryStore, size: int) -> None:
    store.lose_reply("put")
    store.lose_reply("complete_upload")
    with pytest.raises(OutcomeUnknown):
        await publish(store, written(data(size)))


@pytest.mark.parametrize("at", ["put_part", "complete_upload", "create_upload"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_cancellation_in_the_middle_leaves_no_upload_open(store: MemoryStore, at: str, concurrency: int) -> None:
    with anyio.CancelScope() as scope:
        store.hook = lambda operation, _key: scope.cancel() if operation == at else None
        await publish(store, written(data(20 * PART)), concurrency=concurrency)
    assert scope.cancelled_caught
    assert is_untouched(store)


async def test_cancellation_while_the_producer_waits_publishes_nothing(store: MemoryStore) -> None:
    async def produce(assembler: PartAssembler) -> None:
        await assembler.write(data(5 * PART + 1))
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await publish(store, produce)
    assert scope.cancelled_caught
    assert was_not_asked_to_publish(store)


@pytest.mark.parametrize("size", [1, 10_000, 1 << 30, 50 << 30, 1 << 40, 5 << 40])
def test_an_object_of_any_size_fits_into_the_parts_that_a_store_allows(size: int) -> None:
    """Even when it does not compress at all: frames, index and seek table are below the margin."""
    part_size = part_size_for(MemoryStore(traits=replace(MEMORY, minimum_part=5 << 20)), 8 << 20, size)
    incompressible = size + size // 100 + 4096
    assert -(-incompressible // part_size) <= 10_000
    assert part_size >= 8 << 20


def test_parts_grow_only_when_there_would_be_too_many() -> None:
    assert part_size_for(MemoryStore(), 8 << 20, 60 << 30) == 8 << 20
    assert part_size_for(MemoryStore(), 8 << 20, 200 << 30) > 8 << 20


def test_parts_are_never_smaller_than_the_store_allows() -> None:
    assert part_size_for(MemoryStore(traits=replace(MEMORY, minimum_part=5 << 20)), 1 << 20, 1) == 5 << 20


PARENT = "app.db/20261120T145003.123Z.sqlite3.zst"


async def reusing(store: MemoryStore, sizes: list[tuple[str, int]]) -> bytes:
    """Publish an object of written and copied pieces, and return what it should be."""
    parent = await store.put(PARENT, data(10 * PART))
    whole = bytearray()
    place = 0

    async def produce(assembler: PartAssembler) -> None:
        nonlocal place
        for kind, size in sizes:
            if kind == "copy":
                whole.extend(data(10 * PART)[place : place + size])
                await assembler.copy(parent, Span(place, place + size))
                place += size
            else:
                whole.extend(bytes(size))
                for start in range(0, size, 37):
                    await assembler.write(bytes(min(37, size - start)))

    await upload(store, PartSizes(2 * PART, PART), produce)
    return bytes(whole)


@pytest.mark.parametrize(
    "sizes",
    [
        [("copy", 300), ("write", 9)],
        [("write", 100), ("copy", 300), ("write", 9)],
        [("write", 555), ("copy", 100), ("copy", 200), ("write", 101), ("copy", 100), ("write", 777)],
        [("write", 300), ("copy", 400), ("write", 299), ("copy", 100), ("write", 300)],
    ],
)
async def test_copied_and_written_pieces_become_one_object(store: MemoryStore, sizes: list[tuple[str, int]]) -> None:
    """And no part but the last is below the minimum: the store itself refuses those."""
    whole = await reusing(store, sizes)
    assert store.objects[KEY].data == whole
    assert all(size >= PART for size in store.part_sizes[KEY][:-1])


async def test_too_little_between_two_copies_is_refused_before_the_store_does(store: MemoryStore) -> None:
    with pytest.raises(ReuseFailed):
        await reusing(store, [("copy", 300), ("write", PART - 1), ("copy", 300), ("write", 9)])
    assert KEY not in store.objects
    assert store.open_uploads == []


@pytest.mark.parametrize(
    "error", [NotFound("gone"), PreconditionFailed("changed"), ConfigurationError("no part copies")]
)
async def test_a_source_that_cannot_be_copied_publishes_nothing(store: MemoryStore, error: SidecarError) -> None:
    """The error differs from that of an existing key: everything is uploaded instead."""
    store.fail("copy_part", error)
    with pytest.raises(ReuseFailed):
        await reusing(store, [("copy", 300), ("write", 300), ("copy", 300), ("write", 9)])
    assert KEY not in store.objects
    assert store.open_uploads == []


async def test_what_is_around_a_copy_is_read_from_the_version_that_was_planned_with(store: MemoryStore) -> None:
    """Bytes of another object in its place would be spliced into the restore point."""
    source = store.add("source", bytes(100))
    fetch = fetch_from(store)
    assert bytes(await fetch(source, Span(10, 20))) == bytes(10)
    with pytest.raises(ReuseFailed, match="shorter"):
        await fetch(source, Span(90, 110))
    store.add("source", b"x" * 100)
    with pytest.raises(ReuseFailed):
        await fetch(source, Span(10, 20))
