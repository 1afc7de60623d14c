"""What goes wrong between us and an S3 store, in our words, within bounded time, without a secret in any of them."""

import time
from contextlib import AsyncExitStack

import anyio
import pytest

from sidecar.errors import OutcomeUnknown, StoreUnavailable, Transient
from sidecar.model import Span
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.client import S3Client, S3Location
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, NEW, REQUESTS, failure, use
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.proxy import (
    SLOW_DOWN,
    DropReply,
    Fault,
    FaultProxy,
    Refuse,
    ResetMidBody,
    Stall,
    Throttle,
    TruncateReply,
)
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]


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
    make = S3Client._make_client

    async def counting(self: S3Client, addressing: str) -> object:
        made.append(addressing)
        return await make(self, addressing)

    monkeypatch.setattr(S3Client, "_make_client", counting)
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
    monkeypatch.setattr(deadlines, "DEADLINE", 0.3)
    monkeypatch.setattr(deadlines, "ABORT_DEADLINE", 0.3)
    monkeypatch.setattr(deadlines, "SLOWEST", 1 << 40)
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
    monkeypatch.setattr(deadlines, "DEADLINE", 0.3)
    monkeypatch.setattr(deadlines, "SLOWEST", 1 << 40)
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


async def test_one_attempt_is_one_request(proxy: FaultProxy, through: S3Store) -> None:
    """The SDK's own retries would multiply with ours."""
    proxy.clear()
    proxy.rule(SLOW_DOWN)
    for name in ("get", "put", "list"):
        await failure(REQUESTS[name](through))
    assert len(proxy.seen()) == 3


async def test_cancelled_read_ends_at_once(proxy: FaultProxy, through: S3Store) -> None:
    """A PUT has some seconds to end: see test_cut_off_writes."""
    proxy.rule(Stall(60))
    for name in ("get", "list"):
        started = time.monotonic()
        with anyio.move_on_after(0.1) as scope:
            await REQUESTS[name](through)
        assert scope.cancelled_caught
        assert time.monotonic() - started < 2
