"""Checksums: none where the store does not ask, found out by asking where it does, never mixed in one upload."""

import random
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from sidecar.errors import ConfigurationError, PreconditionFailed
from sidecar.model import IfAbsent, Span
from sidecar.storage.s3.checksums import crc32_of
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, failure, use
from tests.harness.faults import has_checksum
from tests.harness.proxy import FaultProxy, Insist, Seen, s3_error
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

PART = 5 << 20
PARTS = (random.Random(1).randbytes(PART), b"the end")


@pytest.fixture
async def store(proxy: FaultProxy, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """Behind the proxy, its client not made yet: the SDK's variables still count."""
    use(monkeypatch, ADMIN)
    return await stack.enter_async_context(S3Store(S3Location(bucket, "", proxy.endpoint, REGION)))


async def upload(store: S3Store, key: str, *, copied: str = "") -> None:
    """An object of two sent parts, or of a copied and a sent one."""
    async with store.upload(key, metadata={}) as upload:
        if copied:
            await upload.copy_part(1, 0, await store.head(copied), Span(0, PART))
        else:
            await upload.put_part(1, 0, PARTS[0])
        await upload.put_part(2, PART, PARTS[1])
        await upload.complete()


async def completions(store: S3Store) -> list[str]:
    """What completes the uploads from now on, as XML."""
    bodies: list[str] = []
    client = await store.client.opened()
    client.meta.events.register(
        "before-call.s3.CompleteMultipartUpload", lambda params, **_: bodies.append(params["body"].decode())
    )
    return bodies


def with_checksum(seen: list[Seen]) -> list[bool]:
    return [has_checksum(each.headers) for each in seen]


async def test_nothing_has_a_checksum_where_the_store_does_not_ask(store: S3Store, proxy: FaultProxy) -> None:
    """Stores other than AWS reject or mangle them."""
    await store.put(KEY, DATA)
    await upload(store, "big")
    assert not any(with_checksum(proxy.seen("PUT")))
    assert "x-amz-checksum-algorithm" not in proxy.seen("POST")[0].headers


@pytest.mark.parametrize("message", ["", "a reason in other words"])
async def test_a_store_that_insists_is_asked_once(store: S3Store, proxy: FaultProxy, message: str) -> None:
    """The write that is refused is repeated; all later ones of the process have a checksum at once."""
    proxy.rule(Insist(message=message) if message else Insist())
    await store.put(KEY, DATA)
    await store.put("second", DATA, condition=IfAbsent())
    assert type(await failure(store.put("second", DATA, condition=IfAbsent()))) is PreconditionFailed
    await store.tag(KEY, {"a": "b"})
    assert with_checksum(proxy.seen("PUT")) == [False, True, True, True, True]
    assert bytes((await store.get(KEY)).data) == DATA


async def test_uploads_declare_their_checksums_and_repeat_them(store: S3Store, proxy: FaultProxy, bucket: str) -> None:
    """AWS refuses an upload whose parts have checksums that were not declared, or are not repeated at the end."""
    proxy.rule(Insist())
    await store.put(KEY, DATA)
    completed = await completions(store)
    proxy.clear()
    proxy.rule(Insist())
    await upload(store, "big")
    await upload(store, "copied", copied="big")
    assert crc32_of(PARTS[1]) in completed[0]
    assert [each.count("<ChecksumCRC32>") for each in completed] == [2, 2]
    created = proxy.seen("POST", query_contains="uploads")
    assert [each.headers.get("x-amz-checksum-algorithm") for each in created] == ["CRC32"] * 2
    sent = [each for each in proxy.seen("PUT") if "x-amz-copy-source" not in each.headers]
    assert ["x-amz-checksum-crc32" in each.headers for each in sent] == [True] * 3
    assert all(each.status == 200 for each in proxy.seen())
    assert bytes((await store.get("copied", span=Span(PART, PART + 7))).data) == PARTS[1]


async def test_an_upload_that_began_without_checksums_has_none_in_its_parts(store: S3Store, proxy: FaultProxy) -> None:
    """Content-MD5 needs no declaration."""
    await store.put(KEY, DATA)
    proxy.rule(Insist())
    completed = await completions(store)
    await upload(store, "big")
    assert "Checksum" not in completed[0]
    parts = proxy.seen("PUT", query_contains="partNumber")
    assert [sorted({"content-md5", "x-amz-checksum-crc32"} & set(each.headers)) for each in parts] == [
        [],
        ["content-md5"],
        ["content-md5"],
    ]


async def test_a_proxy_that_insists_for_copied_parts_too(store: S3Store, proxy: FaultProxy) -> None:
    await upload(store, "big")
    proxy.rule(Insist(copies=True))
    await upload(store, "copied", copied="big")
    assert bytes((await store.get("copied", span=Span(PART, PART + 7))).data) == PARTS[1]


async def test_parts_that_are_copied_at_once_are_all_repeated(store: S3Store, proxy: FaultProxy) -> None:
    """The one that is refused first does not take the repetition from those that were under way."""
    await upload(store, "big")
    proxy.rule(Insist(copies=True))
    source = await store.head("big")
    async with store.upload("copied", metadata={}) as copies:
        async with anyio.create_task_group() as group:
            for number in (1, 2, 3, 4):
                group.start_soon(copies.copy_part, number, PART * (number - 1), source, Span(0, PART))
        await copies.complete()
    assert (await store.head("copied")).size == 4 * PART


async def test_a_refusal_that_no_checksum_mends_is_told_as_it_was(store: S3Store, proxy: FaultProxy) -> None:
    """One repetition, and the first answer; later writes have no checksum."""
    rule = proxy.rule(s3_error(400, "InvalidRequest", "the first reason"), method="PUT")
    error = await failure(store.put(KEY, DATA))
    assert (type(error), "the first reason" in error.message, rule.hits) == (ConfigurationError, True, 2)
    proxy.clear()
    await store.put(KEY, DATA)
    assert with_checksum(proxy.seen("PUT")) == [False]


@pytest.mark.parametrize("source", ["variable", "file"])
async def test_the_sdks_own_settings_are_obeyed(
    store: S3Store, proxy: FaultProxy, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Checksums of writes and of answers, declared and repeated in uploads."""
    if source == "variable":
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported\n")
    else:
        (tmp_path / "config").write_text(
            "[default]\nrequest_checksum_calculation = when_supported\nresponse_checksum_validation = when_supported\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    proxy.rule(Insist())
    await store.put(KEY, DATA)
    assert bytes((await store.get(KEY)).data) == DATA
    await upload(store, "big")
    await upload(store, "copied", copied="big")
    assert all(each.status == 200 for each in proxy.seen())
    assert all("x-amz-checksum-algorithm" in each.headers for each in proxy.seen("POST", query_contains="uploads"))
    assert all(each.headers.get("x-amz-checksum-mode") == "ENABLED" for each in proxy.seen("GET", path_contains=KEY))
