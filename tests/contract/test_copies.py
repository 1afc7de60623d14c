"""Whole objects that the store copies: over what is there, by the source's version, with metadata of their own."""

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from sidecar.errors import NotFound, PreconditionFailed
from sidecar.storage.base import ObjectStore
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from sidecar.storage.traits import PartCopy
from tests.contract.conftest import open_s3
from tests.harness.s3client import REGION
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.anyio

PART = 5 << 20


async def test_a_copy_has_the_bytes_and_its_own_metadata(store: ObjectStore, folder: str) -> None:
    source = await store.put(f"{folder}source", b"content", metadata={"root": "abc"})
    copied = await store.copy(source, f"{folder}a b+é", metadata={"point": "1"})
    blob = await store.get(f"{folder}a b+é")
    assert bytes(blob.data) == b"content"
    assert (blob.info.metadata["point"], "root" in blob.info.metadata) == ("1", False)
    assert (copied.key, copied.size, copied.etag) == (blob.info.key, blob.info.size, blob.info.etag)
    assert (await store.head(source.key)).metadata["root"] == "abc"


async def test_a_copy_replaces_what_is_there(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}target", b"older and longer")
    source = await store.put(f"{folder}source", b"newer")
    await store.copy(source, f"{folder}target", metadata={})
    assert bytes((await store.get(f"{folder}target")).data) == b"newer"


async def test_another_version_of_the_source_is_not_copied(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}target", b"stays")
    source = await store.put(f"{folder}source", b"first")
    await store.put(source.key, b"another")
    with pytest.raises(PreconditionFailed):
        await store.copy(source, f"{folder}target", metadata={})
    assert bytes((await store.get(f"{folder}target")).data) == b"stays"


async def test_a_source_that_is_gone_is_not_found(store: ObjectStore, folder: str) -> None:
    source = await store.put(f"{folder}source", b"first")
    with pytest.raises(NotFound):
        await store.copy(replace(source, key=f"{folder}gone"), f"{folder}target", metadata={})


@pytest.mark.s3
@pytest.mark.parametrize("compares", [PartCopy.CONDITIONAL, PartCopy.UNCONDITIONAL])
async def test_what_exceeds_the_largest_part_is_copied_in_parts(
    compares: PartCopy, seaweed: Seaweed, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_s3(S3Location(bucket, "", seaweed.endpoint, REGION), seaweed.environment(), stack)
    limited = replace(store.traits, maximum_part=PART, part_copy=compares)
    monkeypatch.setattr(S3Store, "traits", property(lambda _: limited))
    data = bytes(range(256)) * (PART // 128) + b"end"
    source = await store.put("source", data)
    await store.put("target", b"older")
    copied = await store.copy(source, "target", metadata={"point": "1"})
    blob = await store.get("target")
    assert bytes(blob.data) == data
    assert (blob.info.metadata, blob.info.etag) == ({"point": "1"}, copied.etag)
    await store.put("source", data[:-1])
    with pytest.raises(PreconditionFailed):
        await store.copy(source, "target", metadata={})
    assert seaweed.s3.open_uploads(bucket) == []
