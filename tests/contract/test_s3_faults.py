"""What goes wrong between us and an S3 store, in our words, within bounded time, without a secret in any of them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from sidecar.adapters import s3
from sidecar.adapters.s3 import S3Location, S3Store
from sidecar.domain import IfAbsent, Span
from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    Throttled,
    TokenUnavailable,
    Transient,
)
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.proxy import (
    SLOW_DOWN,
    Answer,
    DropReply,
    Fault,
    FaultProxy,
    Refuse,
    ResetMidBody,
    Stall,
    Throttle,
    TruncateReply,
    s3_error,
)
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN, READER, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

KEY = "app.db/20261120T145503.123Z.sqlite3.zst"
NEW = "app.db/20261120T150003.123Z.sqlite3.zst"
DATA = bytes(range(256)) * 4096
SECRETS = (ADMIN[1], READER[1], "wrong-secret", "AWS4-HMAC", "X-Amz-Signature", "Authorization")

Request = Callable[[S3Store], Awaitable[object]]


async def _upload(store: S3Store) -> None:
    async with store.upload(NEW, metadata={}) as upload:
        await upload.put_part(1, 0, DATA)
        await upload.complete()


REQUESTS: dict[str, Request] = {
    "get": lambda store: store.get(KEY),
    "get span": lambda store: store.get(KEY, span=Span(-10)),
    "head": lambda store: store.head(KEY),
    "list": lambda store: store.list("app.db/"),
    "put": lambda store: store.put(KEY, DATA),
    "put if absent": lambda store: store.put(NEW, DATA, condition=IfAbsent()),
    "upload": _upload,
    "now": lambda store: store.now(),
}
WRITES = ("put", "put if absent", "upload")
READS = tuple(name for name in REQUESTS if name not in WRITES)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opened."""
    async with AsyncExitStack() as opened:
        yield opened


def use(monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]) -> None:
    """Credentials for the SDK of this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])


@pytest.fixture
async def through(proxy: FaultProxy, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy, its connection open."""
    use(monkeypatch, ADMIN)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", proxy.endpoint, REGION)))
    await store.put(KEY, DATA)
    return store


async def failure(request: Awaitable[object]) -> SidecarError:
    """The error a request ends in; it tells no secret, and is made of words."""
    with pytest.raises(SidecarError) as caught:
        await request
    text = f"{caught.value} {caught.value.__cause__}"
    assert not [secret for secret in SECRETS if secret in text]
    assert "\n" not in str(caught.value)
    return caught.value


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


async def test_refused_connection_is_an_unavailable_store(
    bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, ADMIN)
    location = S3Location(bucket, "", f"http://{LOOPBACK}:{free_port()}", REGION)
    store = await stack.enter_async_context(S3Store(location))
    for request in REQUESTS.values():
        assert type(await failure(request(store))) is StoreUnavailable


async def test_store_that_goes_down_and_comes_back(proxy: FaultProxy, through: S3Store) -> None:
    """Refused writes were never sent: their outcome is known."""
    proxy.down()
    for name, request in REQUESTS.items():
        if name != "now":
            error = await failure(request(through))
            assert isinstance(error, StoreUnavailable | OutcomeUnknown)
    proxy.up()
    assert bytes((await through.get(KEY)).data) == DATA


async def test_store_that_is_down_at_first_costs_one_client(
    proxy: FaultProxy, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is tens of megabytes: one for every attempt of a long outage would eat the machine."""
    use(monkeypatch, ADMIN)
    made: list[object] = []
    make = S3Store._make_client

    async def counting(self: S3Store, addressing: str) -> object:
        made.append(addressing)
        return await make(self, addressing)

    monkeypatch.setattr(S3Store, "_make_client", counting)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", proxy.endpoint, REGION)))
    proxy.down()
    for _ in range(4):
        await failure(store.list(""))
    proxy.up()
    await store.list("")
    assert made == ["path"]


@pytest.mark.parametrize("fault", [Stall(60), Stall(60, direction="reply"), Stall(60, 1000, "reply"), Throttle(1000)])
async def test_stalled_server_is_given_up_at_the_deadline(
    proxy: FaultProxy, through: S3Store, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Every request is bounded in time, bodies included; a write that got no answer may have been done."""
    monkeypatch.setattr(s3, "DEADLINE", 0.3)
    monkeypatch.setattr(s3, "ABORT_DEADLINE", 0.3)
    monkeypatch.setattr(s3, "SLOWEST", 1 << 40)
    proxy.rule(fault)
    for name in ("get", "list", "put if absent", "upload"):
        if fault == Stall(60, 1000, "reply") and name != "get":
            continue  # their replies are shorter
        if isinstance(fault, Throttle) and name == "list":
            continue  # so is this one
        started = time.monotonic()
        error = await failure(REQUESTS[name](through))
        assert time.monotonic() - started < 3
        assert isinstance(error, OutcomeUnknown if name == "put if absent" else Transient)


async def test_paused_server_is_given_up_at_the_deadline(
    seaweed: Seaweed, through: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "DEADLINE", 0.3)
    monkeypatch.setattr(s3, "SLOWEST", 1 << 40)
    seaweed.pause()
    started = time.monotonic()
    assert type(await failure(through.get(KEY))) is StoreUnavailable
    assert type(await failure(through.put(KEY, b"x"))) is OutcomeUnknown
    assert time.monotonic() - started < 3
    seaweed.resume()
    await through.get(KEY)


@pytest.mark.parametrize(
    "fault", [ResetMidBody(1000, "reply"), TruncateReply(1000), TruncateReply(0), Refuse(), DropReply()]
)
async def test_broken_reply_is_never_taken_for_the_object(proxy: FaultProxy, through: S3Store, fault: Fault) -> None:
    proxy.rule(fault, method="GET", times=2)
    assert type(await failure(through.get(KEY))) is StoreUnavailable
    assert type(await failure(through.get(KEY, span=Span(10, 500_000)))) is StoreUnavailable
    assert bytes((await through.get(KEY)).data) == DATA


@pytest.mark.parametrize("fault", [ResetMidBody(0), Refuse(), DropReply()])
async def test_broken_write_is_transient_and_leaves_no_upload(
    seaweed: Seaweed, proxy: FaultProxy, through: S3Store, bucket: str, fault: Fault
) -> None:
    """A lost reply to the first request of an upload leaves one that nobody knows: the bucket's lifecycle ends it."""
    for method, query, expected in (
        ("PUT", "", OutcomeUnknown),
        ("PUT", "partNumber=1", StoreUnavailable),
        ("POST", "uploadId", OutcomeUnknown),
        ("POST", "uploads", OutcomeUnknown),
    ):
        seaweed.s3.delete(bucket, NEW)
        proxy.rule(fault, method=method, query_contains=query, times=1)
        assert type(await failure(REQUESTS["upload" if query else "put"](through))) is expected
        unknown = query == "uploads" and not isinstance(fault, Refuse)
        assert seaweed.s3.open_uploads(bucket) == [NEW] * unknown, query


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


async def test_one_attempt_is_one_request(proxy: FaultProxy, through: S3Store) -> None:
    """The SDK's own retries would multiply with ours."""
    proxy.clear()
    proxy.rule(SLOW_DOWN)
    for name in ("get", "put", "list"):
        await failure(REQUESTS[name](through))
    assert len(proxy.seen()) == 3


def test_neither_endpoint_nor_region_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no region"):
        S3Store(S3Location("bucket", ""))


async def test_store_shows_no_credentials(through: S3Store, bucket: str) -> None:
    assert through.url == f"s3://{bucket}"
    assert S3Store(S3Location(bucket, "a/b", "http://user:pass@host", None)).url == f"s3://{bucket}/a/b"


async def test_cancelled_request_ends_at_once(proxy: FaultProxy, through: S3Store) -> None:
    proxy.rule(Stall(60))
    for name in ("get", "put", "list"):
        started = time.monotonic()
        with anyio.move_on_after(0.1) as scope:
            await REQUESTS[name](through)
        assert scope.cancelled_caught
        assert time.monotonic() - started < 2
