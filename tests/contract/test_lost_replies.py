"""Writes whose reply was lost: `Retrying` over a real store finds out whether they were done, and by whom."""

from collections.abc import AsyncIterator

import pytest

from sidecar.errors import AccessDenied, PreconditionFailed, StoreUnavailable
from sidecar.host.clock import SystemClock
from sidecar.model import IfAbsent, IfMatch, Span
from sidecar.status.model import Status
from sidecar.storage.metering import Metered
from sidecar.storage.retry import REQUEST_ID, Retrying, RetryPolicy
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from tests.harness.proxy import SLOW_DOWN, DropReply, Fault, FaultProxy, Refuse, ResetMidBody, TruncateReply, s3_error
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

KEY = "app.db/20261120T145503.123Z.sqlite3.zst"
DATA = bytes(range(256)) * 4096
LOST = [DropReply(), s3_error(500, "InternalError")]
SOON = RetryPolicy(give_up_after=10.0, first=0.02, longest=0.1)


@pytest.fixture
def status() -> Status:
    """Counts the attempts."""
    return Status((), "", "0", SystemClock().now)


@pytest.fixture
async def store(
    proxy: FaultProxy, bucket: str, status: Status, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Retrying]:
    """Retrying, metered S3 behind the proxy, its connection open."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN[1])
    clock = SystemClock()
    async with S3Store(S3Location(bucket, "", proxy.endpoint, REGION)) as plain:
        await plain.now()
        yield Retrying(Metered(plain, clock, status), clock, SOON)


@pytest.mark.parametrize("fault", LOST)
async def test_write_that_was_done_is_recognized_as_ours(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, store: Retrying, fault: Fault
) -> None:
    """The second attempt is refused because of the first: that is success, not somebody else."""
    proxy.rule(fault, method="PUT", times=1)
    written = await store.put(KEY, DATA, condition=IfAbsent(), metadata={"root": "abc"})
    assert seaweed.s3.get(bucket, KEY) == DATA
    assert written.etag == (await store.head(KEY)).etag
    assert written.metadata["root"] == "abc"


@pytest.mark.parametrize("fault", LOST)
async def test_replacement_that_was_done_is_recognized_as_ours(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, store: Retrying, fault: Fault
) -> None:
    first = await store.put(KEY, b"first")
    proxy.rule(fault, method="PUT", times=1)
    second = await store.put(KEY, b"second", condition=IfMatch(first.etag))
    assert seaweed.s3.get(bucket, KEY) == b"second"
    third = await store.put(KEY, b"third", condition=IfMatch(second.etag))
    assert third.etag != second.etag


@pytest.mark.parametrize("fault", [*LOST, TruncateReply(10)])
async def test_completion_that_was_done_is_recognized_as_ours(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, store: Retrying, fault: Fault
) -> None:
    """The upload is gone by then, and the object must survive the clean-up of an upload that seems to have failed."""
    proxy.rule(fault, method="POST", query_contains="uploadId", times=1)
    async with store.upload(KEY, metadata={"root": "abc"}) as upload:
        await upload.put_part(1, 0, DATA)
        written = await upload.complete()
    assert seaweed.s3.get(bucket, KEY) == DATA
    assert (written.size, written.etag) == (len(DATA), (await store.head(KEY)).etag)
    assert seaweed.s3.open_uploads(bucket) == []


async def test_somebody_elses_object_stays_a_refusal(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, store: Retrying
) -> None:
    """Also after a failure: having been uncertain does not make theirs ours."""
    seaweed.s3.put(bucket, KEY, b"theirs", Metadata={REQUEST_ID: "theirs"})
    proxy.rule(Refuse(), method="PUT", times=1)
    with pytest.raises(PreconditionFailed):
        await store.put(KEY, DATA, condition=IfAbsent())
    proxy.rule(Refuse(), method="POST", query_contains="uploadId", times=1)
    with pytest.raises(PreconditionFailed):
        async with store.upload(KEY, metadata={}) as upload:
            await upload.put_part(1, 0, DATA)
            await upload.complete()
    assert seaweed.s3.get(bucket, KEY) == b"theirs"
    assert seaweed.s3.open_uploads(bucket) == []


@pytest.mark.parametrize("fault", [SLOW_DOWN, Refuse(), DropReply(), TruncateReply(1000), ResetMidBody(1000, "reply")])
async def test_reads_are_tried_again_until_they_are_whole(proxy: FaultProxy, store: Retrying, fault: Fault) -> None:
    await store.put(KEY, DATA)
    proxy.rule(fault, method="GET", times=3)
    assert bytes((await store.get(KEY)).data) == DATA
    assert bytes((await store.get(KEY, span=Span(-1000))).data) == DATA[-1000:]


@pytest.mark.parametrize("fault", [SLOW_DOWN, Refuse(), DropReply()])
async def test_every_request_of_an_upload_is_tried_again(
    proxy: FaultProxy, seaweed: Seaweed, bucket: str, store: Retrying, fault: Fault
) -> None:
    for query in ("uploads", "partNumber", "uploadId"):
        proxy.rule(fault, query_contains=query, times=1)
    async with store.upload(KEY, metadata={}) as upload:
        await upload.put_part(1, 0, DATA)
        await upload.complete()
    assert seaweed.s3.get(bucket, KEY) == DATA


async def test_outage_longer_than_patience_is_told_as_it_is(proxy: FaultProxy, store: Retrying, status: Status) -> None:
    store._policy = RetryPolicy(give_up_after=0.3, first=0.02, longest=0.05)
    proxy.down()
    with pytest.raises(StoreUnavailable):
        await store.get(KEY)
    assert status.requests["get", "failed"] > 3
    proxy.up()


async def test_denial_is_not_tried_again(proxy: FaultProxy, store: Retrying, status: Status) -> None:
    rule = proxy.rule(s3_error(403, "AccessDenied"))
    with pytest.raises(AccessDenied):
        await store.get(KEY)
    assert rule.hits == 1
    assert status.requests["get", "failed"] == 1
