"""Objects put together from parts: visible only when complete, whatever happens before."""

import os
import random
from dataclasses import replace
from urllib.parse import quote

import anyio
import pytest

from sidecar.errors import NotFound, PreconditionFailed, SidecarError
from sidecar.model import ObjectInfo, Span
from sidecar.storage.base import ObjectStore, Upload
from tests.contract.conftest import Subject
from tests.fakes import MemoryStore
from tests.harness.eventually import eventually

pytestmark = pytest.mark.anyio

PART = 5 << 20
CANCELLATIONS = 30


@pytest.fixture(scope="module")
def content() -> bytes:
    """Three whole parts and a bit, every part different."""
    return random.Random(1).randbytes(3 * PART + 777)


def parts_of(content: bytes) -> list[tuple[int, int, bytes]]:
    """Number, offset and bytes of each part."""
    return [(n + 1, at, content[at : at + PART]) for n, at in enumerate(range(0, len(content), PART))]


async def require_nothing(subject: Subject, folder: str) -> None:
    """No key in this folder, and nothing half done in the store."""
    assert (await subject.store.list(folder)).objects == ()
    assert subject.unfinished() == []


async def test_single_part_makes_an_object(subject: Subject, folder: str) -> None:
    async with subject.store.upload(f"{folder}big", metadata={"root": "abc"}) as upload:
        await upload.put_part(1, 0, b"small")
        written = await upload.complete()
    blob = await subject.store.get(f"{folder}big")
    assert bytes(blob.data) == b"small"
    assert blob.info.metadata["root"] == "abc"
    assert (written.key, written.size, written.etag) == (blob.info.key, blob.info.size, blob.info.etag)
    assert subject.unfinished() == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_parts_arrive_in_any_order_and_at_once(
    store: ObjectStore, folder: str, content: bytes, kind: type[bytes] | type[bytearray] | type[memoryview]
) -> None:
    async with store.upload(f"{folder}big", metadata={"size": "1"}) as upload:
        async with anyio.create_task_group() as group:
            for number, offset, data in reversed(parts_of(content)):
                group.start_soon(upload.put_part, number, offset, kind(data))
        written = await upload.complete()
    blob = await store.get(f"{folder}big")
    assert bytes(blob.data) == content
    assert written.size == blob.info.size == len(content)
    assert written.etag == blob.info.etag
    assert bytes((await store.get(f"{folder}big", span=Span(PART - 3, PART + 3))).data) == content[PART - 3 : PART + 3]


async def test_repeated_part_replaces_the_first(store: ObjectStore, folder: str) -> None:
    """What a retry after a lost reply does."""
    async with store.upload(f"{folder}big", metadata={}) as upload:
        await upload.put_part(1, 0, b"wrong")
        await upload.put_part(1, 0, b"right")
        await upload.complete()
    assert bytes((await store.get(f"{folder}big")).data) == b"right"


async def test_nothing_is_visible_before_complete(store: ObjectStore, folder: str, content: bytes) -> None:
    async with store.upload(f"{folder}big", metadata={}) as upload:
        for part in parts_of(content):
            await upload.put_part(*part)
        assert (await store.list(folder)).objects == ()
        with pytest.raises(NotFound):
            await store.head(f"{folder}big")
        await upload.complete()
    assert [info.key for info in (await store.list(folder)).objects] == [f"{folder}big"]


async def test_complete_refuses_an_existing_key(subject: Subject, folder: str) -> None:
    """Also one that appeared while the parts were sent; its content stays, and the parts go."""
    with pytest.raises(PreconditionFailed):
        async with subject.store.upload(f"{folder}big", metadata={"mine": "1"}) as upload:
            await upload.put_part(1, 0, b"mine")
            await subject.store.put(f"{folder}big", b"theirs")
            await upload.complete()
    blob = await subject.store.get(f"{folder}big")
    assert bytes(blob.data) == b"theirs"
    assert "mine" not in blob.info.metadata
    assert subject.unfinished() == []


async def test_concurrent_uploads_of_one_key_end_in_one_whole_object(subject: Subject, folder: str) -> None:
    """One winner, but on S3: SeaweedFS looks and writes in two steps there, which AWS does in one."""
    won: list[bytes] = []

    async def contend(number: int) -> None:
        data = b"%d" % number * 1000
        try:
            async with subject.store.upload(f"{folder}big", metadata={}) as upload:
                await upload.put_part(1, 0, data)
                await upload.complete()
        except PreconditionFailed:
            return
        won.append(data)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(contend, number)
    assert bytes((await subject.store.get(f"{folder}big")).data) in won
    assert len(won) == 1 or subject.store.url.startswith("s3:")
    # When eight end at once SeaweedFS may answer an abort later than we wait for it, and carry it out all the same.
    eventually(lambda: not subject.unfinished(), what="every upload is completed or aborted")


async def test_leaving_without_complete_leaves_nothing(subject: Subject, folder: str) -> None:
    async with subject.store.upload(f"{folder}big", metadata={}) as upload:
        await upload.put_part(1, 0, bytes(PART))
    await require_nothing(subject, folder)


async def test_exception_in_the_block_leaves_nothing_and_comes_through(subject: Subject, folder: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with subject.store.upload(f"{folder}big", metadata={}) as upload:
            await upload.put_part(1, 0, bytes(PART))
            raise ZeroDivisionError
    await require_nothing(subject, folder)


async def test_cancellation_at_any_instant_leaves_nothing_or_the_whole_object(
    subject: Subject, folder: str, content: bytes
) -> None:
    """An upload that nobody knows any more costs storage for ever; a torn object would be worse."""
    if isinstance(subject.store, MemoryStore):
        pytest.skip("the fake forgets an upload that is cancelled while it begins; real stores must not")
    source = random.Random(2)
    completed = 0
    for number in range(CANCELLATIONS):
        with anyio.move_on_after(0.15 * source.random() ** 2):
            async with subject.store.upload(f"{folder}{number}", metadata={}) as upload:
                async with anyio.create_task_group() as group:
                    for part in parts_of(content):
                        group.start_soon(upload.put_part, *part)
                await upload.complete()
        try:
            blob = await subject.store.get(f"{folder}{number}")
        except NotFound:
            continue
        completed += 1
        assert bytes(blob.data) == content
    assert completed < CANCELLATIONS
    assert subject.unfinished() == []


@pytest.fixture
async def source(store: ObjectStore, folder: str, content: bytes) -> ObjectInfo:
    """An object with a name that needs care, larger than the smallest one a store copies ranges of."""
    key = f"{folder}{quote('déjà vu+%.db', safe='')}/20261120T145503.123Z.sqlite3.zst"
    async with store.upload(key, metadata={}) as upload:
        for part in parts_of(content):
            await upload.put_part(*part)
        return await upload.complete()


async def test_copied_parts_are_bytes_of_the_source(
    subject: Subject, folder: str, content: bytes, source: ObjectInfo
) -> None:
    """Ranges at odd offsets and across the source's own parts, mixed with sent parts, in any order and at once."""
    spans = [Span(0, PART), Span(3, 2 * PART + 1), Span(PART - 1, 2 * PART), Span(len(content) - 10, len(content))]
    async with subject.store.upload(f"{folder}copy", metadata={"parent": "x"}) as upload:
        async with anyio.create_task_group() as group:
            offset = PART
            for number, span in enumerate(spans, start=2):
                assert span.end is not None
                group.start_soon(upload.copy_part, number, offset, source, span)
                offset += span.end - span.start
            group.start_soon(upload.put_part, 1, 0, bytes(PART))
        written = await upload.complete()
    expected = bytes(PART) + b"".join(content[span.start : span.end] for span in spans)
    blob = await subject.store.get(f"{folder}copy")
    assert bytes(blob.data) == expected
    assert written.size == len(expected)
    assert blob.info.metadata["parent"] == "x"
    assert bytes((await subject.store.get(source.key)).data) == content
    assert subject.unfinished() == []


async def test_copy_of_a_changed_source_is_refused(
    subject: Subject, folder: str, content: bytes, source: ObjectInfo
) -> None:
    await subject.store.put(source.key, content[::-1])
    await require_refusal(subject, folder, source, PreconditionFailed)
    await require_refusal(subject, folder, replace(source, etag='"0123456789abcdef"'), PreconditionFailed)


async def test_copy_of_a_missing_source_is_not_found(subject: Subject, folder: str, source: ObjectInfo) -> None:
    await require_refusal(subject, folder, replace(source, key=f"{folder}gone"), NotFound)


async def require_refusal(subject: Subject, folder: str, source: ObjectInfo, error: type[SidecarError]) -> None:
    """The upload survives a refused copy: its bytes can be sent instead."""
    async with subject.store.upload(f"{folder}{os.urandom(4).hex()}", metadata={}) as upload:
        with pytest.raises(error):
            await upload.copy_part(1, 0, source, Span(0, PART))
        await use_another_way(upload)
    assert subject.unfinished() == []


async def use_another_way(upload: Upload) -> None:
    """The fallback of whoever reuses a parent that is gone."""
    await upload.put_part(1, 0, b"sent instead")
    assert (await upload.complete()).size == 12
