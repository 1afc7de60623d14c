"""What an S3 store says no to, in our words, without a secret in any of them."""

from contextlib import AsyncExitStack, suppress

import pytest

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    Throttled,
    TokenUnavailable,
    Transient,
)
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.known import headers_of
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, READS, REQUESTS, WRITES, failure, use
from tests.harness.proxy import SLOW_DOWN, Answer, FaultProxy, s3_error
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN, READER, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]


async def test_missing_bucket_is_a_missing_store(
    seaweed: Seaweed, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a missing key: that would be taken for an empty store, and the app started on nothing."""
    use(monkeypatch, ADMIN)
    store = await stack.enter_async_context(S3Store(S3Location("never-made", "p", seaweed.endpoint, REGION)))
    for name, request in REQUESTS.items():
        error = await failure(request(store))
        assert type(error) is StoreMissing, name
        assert "never-made" in error.message


async def test_bucket_that_disappears_is_a_missing_store(seaweed: Seaweed, through: S3Store, bucket: str) -> None:
    """The same while the daemon runs; `now` answers from what it has seen."""
    seaweed.s3.drop_bucket(bucket)
    for name, request in REQUESTS.items():
        if name != "now":
            assert type(await failure(request(through))) is StoreMissing, name


def empty_page(then: str) -> Answer:
    """A page of a list without an object, although there are more."""
    body = (
        "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>true</IsTruncated>{then}</ListBucketResult>"
    )
    return Answer(200, body, (("Content-Type", "application/xml"),))


async def test_an_empty_page_is_not_the_end_of_a_list(through: S3Store, proxy: FaultProxy) -> None:
    """Stores send one where much was deleted. Nobody above could go on after it, or tell it from an empty store."""
    proxy.rule(empty_page("<NextContinuationToken>0</NextContinuationToken>"), method="GET", times=2)
    page = await through.list("")
    assert ([each.key for each in page.objects], page.more) == ([KEY], False)
    proxy.rule(empty_page(""), method="GET", times=1)
    assert type(await failure(through.list(""))) is StoreUnavailable


@pytest.mark.parametrize("keys", [("nobody", "wrong-secret"), (ADMIN[0], "wrong-secret")])
async def test_wrong_credentials_are_denied(
    seaweed: Seaweed, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]
) -> None:
    use(monkeypatch, keys)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", seaweed.endpoint, REGION)))
    for name, request in REQUESTS.items():
        assert type(await failure(request(store))) is AccessDenied, name


async def test_no_credentials_at_all_are_denied(
    seaweed: Seaweed, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", seaweed.endpoint, REGION)))
    error = await failure(store.list(""))
    assert type(error) is AccessDenied
    assert "AWS_ACCESS_KEY_ID" in error.hint


async def test_reader_reads_and_is_denied_every_write(
    seaweed: Seaweed, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    seaweed.s3.put(bucket, KEY, DATA)
    use(monkeypatch, READER)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", seaweed.endpoint, REGION)))
    for name in READS:
        await REQUESTS[name](store)
    for name in WRITES:
        assert type(await failure(REQUESTS[name](store))) is AccessDenied
    assert seaweed.s3.get(bucket, KEY) == DATA


ANSWERS: list[tuple[Answer, type[SidecarError]]] = [
    (SLOW_DOWN, Throttled),
    (s3_error(429, "TooManyRequests"), Throttled),
    (s3_error(400, "RequestLimitExceeded"), Throttled),
    (s3_error(500, "InternalError"), StoreUnavailable),
    (s3_error(503, "ServiceUnavailable"), StoreUnavailable),
    (Answer(502, "<html>bad gateway</html>"), StoreUnavailable),
    (s3_error(400, "ExpiredToken"), TokenUnavailable),
    (s3_error(403, "RequestTimeTooSkewed"), AccessDenied),
    (s3_error(403, "AccessDenied"), AccessDenied),
    (s3_error(301, "PermanentRedirect"), ConfigurationError),
    (s3_error(501, "NotImplemented"), ConfigurationError),
    (s3_error(409, "ConditionalRequestConflict"), StoreUnavailable),
    (s3_error(412, "PreconditionFailed"), PreconditionFailed),
    (s3_error(404, "NoSuchBucket"), StoreMissing),
    (s3_error(404, "NoSuchKey"), NotFound),
]


async def test_answers_become_our_words(proxy: FaultProxy, through: S3Store) -> None:
    for answer, expected in ANSWERS:
        proxy.clear()
        proxy.rule(answer)
        for name in ("get", "put if absent"):
            assert type(await failure(REQUESTS[name](through))) is expected, answer


async def test_success_whose_body_is_an_error_is_none(proxy: FaultProxy, through: S3Store) -> None:
    """S3 answers CompleteMultipartUpload and UploadPartCopy with 200 before it knows the end."""
    proxy.rule(Answer(200, s3_error(200, "InternalError").body), method="POST", query_contains="uploadId", times=1)
    assert isinstance(await failure(REQUESTS["upload"](through)), Transient)


async def test_page_that_is_no_s3_is_our_error(proxy: FaultProxy, through: S3Store) -> None:
    """A captive portal, a wrong port."""
    proxy.rule(Answer(200, "<html>welcome</html", (("Content-Type", "text/html"),)))
    await failure(through.list(""))


def test_neither_endpoint_nor_region_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no region"):
        S3Store(S3Location("bucket", ""))


async def test_store_shows_no_credentials(through: S3Store, bucket: str) -> None:
    assert through.url == f"s3://{bucket}"
    assert S3Store(S3Location(bucket, "a/b", "http://user:pass@host", None)).url == f"s3://{bucket}/a/b"


async def test_every_request_asks_for_what_the_store_must_be_asked_for(
    proxy: FaultProxy, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every single one, the first that only tries an addressing included: a list from a replica may lack the newest objects."""
    use(monkeypatch, ADMIN)
    monkeypatch.setattr("sidecar.storage.s3.client.headers_of", lambda _: headers_of("https://fly.storage.tigris.dev"))
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", proxy.endpoint, REGION)))
    await store.put(KEY, DATA)
    for request in REQUESTS.values():
        with suppress(PreconditionFailed):  # two of them write the same new key
            await request(store)
    seen = proxy.seen()
    assert len(seen) > len(REQUESTS)
    assert [each for each in seen if each.headers.get("x-tigris-consistent") != "true"] == []
    signed = [each.headers["authorization"].partition("SignedHeaders=")[2] for each in seen]
    assert all("x-tigris-consistent" in each for each in signed)
