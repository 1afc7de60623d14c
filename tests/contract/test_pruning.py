"""What a store deletes when it is pruned: what is still exactly as planned. A directory, and a real S3 server."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.host.clock import SystemClock
from sidecar.model import Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import key_of
from sidecar.repository.pruning import pruner_of
from sidecar.status.model import Status
from sidecar.storage.base import Expired, ObjectStore, Prunable
from sidecar.storage.file.store import FileStore
from sidecar.storage.pruning import RetryingPrunable
from sidecar.storage.retry import RetryPolicy
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.pruning import S3Pruning
from sidecar.storage.s3.store import S3Store
from tests.contract.conftest import open_s3
from tests.harness.proxy import DropReply, FaultProxy, s3_error
from tests.harness.s3client import REGION
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.anyio

RECENT, HELD = {"sidecar-tier": "recent"}, {"sidecar-tier": "held"}
Pair = tuple[ObjectStore, Prunable]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """A store, and what prunes it."""
    if request.param == "file":
        store = FileStore(tmp_path)
        yield store, store
        return
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    bucket = f"prune-{uuid.uuid4().hex[:12]}"
    seaweed.ensure()
    seaweed.s3.make_bucket(bucket)
    async with AsyncExitStack() as stack:
        stack.callback(lambda: seaweed.s3.drop_bucket(bucket))
        s3 = await open_s3(S3Location(bucket, "a prefix", seaweed.endpoint, REGION), seaweed.environment(), stack)
        yield s3, S3Pruning(s3)


async def expired(store: ObjectStore, key: str, tags: dict[str, str] | None = None) -> Expired:
    return Expired(key, (await store.head(key)).etag, tags)


async def test_what_is_as_planned_is_deleted_and_nothing_else(pair: Pair) -> None:
    """Not what was written anew, tagged otherwise or never there; and each once."""
    store, prunable = pair
    for key in ("d/1", "d/2", "d/3", "d/4", "d/5"):
        await store.put(key, b"data")
    await store.tag("d/2", RECENT)
    await store.tag("d/3", RECENT)
    plan = [await expired(store, "d/1"), await expired(store, "d/2", RECENT), await expired(store, "d/3", RECENT)]
    plan += [await expired(store, "d/4"), Expired("d/6", "gone"), Expired("d/7", "gone", RECENT)]
    await store.tag("d/3", HELD)
    await store.put("d/4", b"another")
    assert await prunable.prune(plan) == ("d/1", "d/2")
    assert [each.key for each in (await store.list("d/")).objects] == ["d/3", "d/4", "d/5"]
    assert await prunable.prune(plan) == ()


async def test_a_listed_object_has_the_etag_that_pruning_compares(pair: Pair) -> None:
    """An object of several parts, too."""
    store, prunable = pair
    async with store.upload("d/large", metadata={}) as upload:
        await upload.put_part(1, 0, bytes(5 << 20))
        await upload.put_part(2, 5 << 20, b"end")
        await upload.complete()
    await store.put("d/small", b"x")
    plan = [Expired(each.key, each.etag) for each in (await store.list("d/")).objects]
    assert await prunable.prune(plan) == ("d/large", "d/small")


@pytest.mark.s3
async def test_lost_replies_lose_nothing_else(through: S3Store, proxy: FaultProxy) -> None:
    """What was deleted is gone when it is tried again, and the rest follows."""
    clock = SystemClock()
    status = Status((), "", "0", clock.now)
    prunable = RetryingPrunable(S3Pruning(through), clock, RetryPolicy(10.0, first=0.01), status)
    for number in range(4):
        await through.put(f"d/{number}", b"data")
    plan = [await expired(through, f"d/{number}") for number in range(3)]
    lost = proxy.rule(DropReply(), method="DELETE", times=2)
    await prunable.prune(plan)
    assert lost.hits == 2
    assert [each.key for each in (await through.list("d/")).objects] == ["d/3"]


@pytest.mark.s3
async def test_a_store_that_refuses_the_condition_is_asked_before(through: S3Store, proxy: FaultProxy) -> None:
    prunable = S3Pruning(through)
    for key in ("d/1", "d/2"):
        await through.put(key, b"data")
    plan = [await expired(through, "d/1"), await expired(through, "d/2")]
    await through.put("d/2", b"another")
    proxy.rule(s3_error(501, "NotImplemented"), method="DELETE", times=2)
    assert await prunable.prune(plan) == ("d/1",)
    assert await prunable.prune(plan) == ()
    assert [each.key for each in (await through.list("d/")).objects] == ["d/2"]


@pytest.mark.s3
async def test_a_refusal_to_tag_once_does_not_release_what_is_held(through: S3Store, proxy: FaultProxy) -> None:
    """It teaches that there are no tags. A person has held one by its tag, and there is no mark that says so, too."""
    now = await through.now()
    hour = now.replace(minute=0) - timedelta(days=3)
    stamps = [Timestamp.of(hour + timedelta(minutes=minutes)) for minutes in (10, 20, 30, 40, 50)]
    keys = [key_of("app.db", each) for each in [*stamps, Timestamp.of(now - timedelta(minutes=1))]]
    for key in keys:
        await through.put(key, b"data")
    await through.tag(keys[0], HELD)
    for key in keys[1:5]:
        await through.tag(key, RECENT)
    proxy.rule(s3_error(501, "NotImplemented"), method="PUT", query_contains="tagging", times=1)
    with pytest.raises(ConfigurationError):
        await through.tag(keys[1], RECENT)
    pruner = pruner_of(Catalog(through), S3Pruning(through), RetentionDays())
    assert (await pruner.carry_out(await pruner.planner.plan("app.db"))).keys == tuple(keys[1:5])
