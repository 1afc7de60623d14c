"""Tags: what lifecycle rules go by. The newest restore point is safe because it has none."""

import fcntl
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StoreUnavailable,
    Throttled,
)
from sidecar.model import IfAbsent, Span
from sidecar.storage.base import Expired, ObjectStore
from sidecar.storage.file import attributes
from sidecar.storage.file.root import PRIVATE
from sidecar.storage.file.store import FileStore
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import KEY, NEW, failure, use
from tests.harness.proxy import SLOW_DOWN, Answer, DropReply, Fault, FaultProxy, Refuse, RefuseTags, s3_error
from tests.harness.s3client import REGION
from tests.harness.seaweed import READER, Seaweed

pytestmark = pytest.mark.anyio

HELD = {"sidecar-tier": "held"}
RECENT = {"sidecar-tier": "recent", "team": "a+b/c:d@e"}


async def test_written_object_has_no_tags(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}object", b"x", metadata={"tier": "no tag"})
    assert await store.tags(f"{folder}object") == {}


async def test_an_object_has_its_tags_from_the_first_moment(store: ObjectStore, folder: str) -> None:
    """In the same request: what is meant to expire never waits for a second one that a crash may prevent."""
    for key in (f"{folder}object", f"{folder}déjà vu/object"):
        await store.put(key, b"x", condition=IfAbsent(), metadata={"a": "b"}, tags=RECENT)
        assert await store.tags(key) == RECENT
        with pytest.raises(PreconditionFailed):
            await store.put(key, b"y", condition=IfAbsent(), tags=HELD)
        assert await store.tags(key) == RECENT
        blob = await store.get(key)
        assert (bytes(blob.data), blob.info.metadata["a"]) == (b"x", "b")
        await store.put(key, b"y", tags=HELD)
        assert await store.tags(key) == HELD


async def test_tags_replace_each_other_and_leave_the_object_alone(store: ObjectStore, folder: str) -> None:
    """The ETag stays: a restore or a copy under way is not disturbed."""
    key = f"{folder}déjà vu/object"
    before = await store.put(key, b"data", metadata={"root": "abc"})
    for tags in (RECENT, HELD, HELD, {}, {}, RECENT):
        await store.tag(key, tags)
        assert await store.tags(key) == tags
    blob = await store.get(key, if_match=before.etag)
    assert (bytes(blob.data), blob.info.metadata["root"]) == (b"data", "abc")
    assert [info.key for info in (await store.list(folder)).objects] == [key]


async def test_tags_are_one_objects_own(store: ObjectStore, folder: str) -> None:
    for name in ("a", "a/b", "ab"):
        await store.put(f"{folder}{name}x", b"x")
    await store.tag(f"{folder}ax", HELD)
    assert [await store.tags(f"{folder}{name}x") for name in ("a", "a/b", "ab")] == [HELD, {}, {}]


async def test_missing_object_has_no_tags_and_takes_none(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}neighbour", b"x")
    for missing in ("nothing", "neighbou", "deep/er"):
        with pytest.raises(NotFound):
            await store.tag(f"{folder}{missing}", HELD)
        with pytest.raises(NotFound):
            await store.tags(f"{folder}{missing}")
    assert [info.key for info in (await store.list(folder)).objects] == [f"{folder}neighbour"]


async def test_new_object_does_not_inherit_tags(store: ObjectStore, folder: str) -> None:
    """Neither from what was under its key, nor from the one its parts are copied from: it would expire with them."""
    source = await store.put(f"{folder}parent", bytes(6 << 20))
    await store.tag(source.key, RECENT)
    async with store.upload(f"{folder}child", metadata={}) as upload:
        await upload.copy_part(1, 0, source, Span(0, source.size))
        await upload.complete()
    assert await store.tags(f"{folder}child") == {}
    await store.put(f"{folder}parent", b"another")
    assert await store.tags(f"{folder}parent") == {}


@pytest.mark.s3
async def test_tags_are_those_that_others_see(seaweed: Seaweed, bucket: str, through: S3Store) -> None:
    """Lifecycle rules look at S3's own tags."""
    await through.tag(KEY, RECENT)
    assert seaweed.s3.tags(bucket, KEY) == RECENT
    seaweed.s3.raw.put_object_tagging(
        Bucket=bucket, Key=KEY, Tagging={"TagSet": [{"Key": "sidecar-tier", "Value": "held"}]}
    )
    assert await through.tags(KEY) == HELD


@pytest.mark.s3
@pytest.mark.parametrize(
    "refusal",
    [s3_error(501, "NotImplemented"), s3_error(400, "InvalidArgument"), s3_error(403, "AccessDenied"), Answer(405, "")],
)
async def test_a_store_that_refuses_tags_gets_the_object_without_and_is_asked_once(
    seaweed: Seaweed, bucket: str, proxy: FaultProxy, through: S3Store, refusal: Answer
) -> None:
    """A segment is worth more than its tag."""
    proxy.rule(RefuseTags(refusal))
    for number in range(3):
        await through.put(f"tagged{number}", b"x", condition=IfAbsent(), tags=RECENT)
        assert seaweed.s3.tags(bucket, f"tagged{number}") == {}
    asked = [seen.path for seen in proxy.seen("PUT") if "x-amz-tagging" in seen.headers]
    assert set(asked) == {f"/{bucket}/tagged0"}
    with pytest.raises(PreconditionFailed):
        await through.put("tagged0", b"y", condition=IfAbsent(), tags=RECENT)


@pytest.mark.s3
async def test_a_refusal_that_is_not_about_tags_is_told_and_not_remembered(
    seaweed: Seaweed, bucket: str, proxy: FaultProxy, through: S3Store
) -> None:
    proxy.rule(s3_error(403, "AccessDenied"), method="PUT", times=2)
    assert type(await failure(through.put(NEW, b"x", condition=IfAbsent(), tags=RECENT))) is AccessDenied
    await through.put(NEW, b"x", condition=IfAbsent(), tags=RECENT)
    assert seaweed.s3.tags(bucket, NEW) == RECENT


TAGGING: list[tuple[Fault, type[Exception]]] = [
    (DropReply(), OutcomeUnknown),
    (Refuse(), OutcomeUnknown),
    (SLOW_DOWN, Throttled),
    (s3_error(503, "ServiceUnavailable"), StoreUnavailable),
    (s3_error(403, "AccessDenied"), AccessDenied),
    (s3_error(404, "NoSuchKey"), NotFound),
    (s3_error(501, "NotImplemented"), ConfigurationError),
    (Answer(405, ""), ConfigurationError),
]


@pytest.mark.s3
@pytest.mark.parametrize(("fault", "expected"), TAGGING)
async def test_refusals_of_tags_are_our_errors(
    proxy: FaultProxy, through: S3Store, fault: Fault, expected: type[Exception]
) -> None:
    proxy.rule(fault, query_contains="tagging")
    assert type(await failure(through.tag(KEY, HELD))) is expected
    read = StoreUnavailable if expected is OutcomeUnknown else expected
    assert type(await failure(through.tags(KEY))) is read


@pytest.mark.s3
async def test_who_may_only_read_tags_nothing(
    seaweed: Seaweed, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    seaweed.s3.put(bucket, KEY, b"x")
    use(monkeypatch, READER)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", seaweed.endpoint, REGION)))
    assert type(await failure(store.tag(KEY, HELD))) is AccessDenied
    assert seaweed.s3.tags(bucket, KEY) == {}


async def test_files_tags_are_synced_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold that a power cut undoes is none: the data first, then every folder on the way."""
    store = FileStore(tmp_path / "store")
    await store.put(KEY, b"data")
    synced: list[Path] = []
    monkeypatch.setattr(attributes, "sync", synced.append)
    await store.tag(KEY, HELD)
    assert synced[0].parent == tmp_path / "store" / PRIVATE / "incoming"
    tags = tmp_path / "store" / PRIVATE / "tags"
    assert synced[1:] == [tags / "app.db", tags, tags.parent, tmp_path / "store", tmp_path]


async def test_damaged_tags_are_no_tags(tmp_path: Path) -> None:
    """And what has none does not expire."""
    store = FileStore(tmp_path)
    await store.put(KEY, b"data")
    await store.tag(KEY, RECENT)
    (tmp_path / PRIVATE / "tags" / f"{KEY}.json").write_text('{"sidecar-t')
    assert await store.tags(KEY) == {}


async def test_pruning_deletes_what_is_tagged_as_we_think_and_nothing_else(tmp_path: Path) -> None:
    """A hold that came between the decision and the deletion is honoured."""
    store = FileStore(tmp_path)
    for key in (KEY, NEW, "app.db/untagged", "other"):
        await store.put(key, b"data", metadata={"a": "b"})
    await store.tag(KEY, RECENT)
    await store.tag(NEW, RECENT)
    await store.tag("other", RECENT)
    planned = [Expired(key, (await store.head(key)).etag, RECENT) for key in (KEY, NEW, "app.db/untagged")]
    await store.tag(NEW, HELD)
    pruned = await store.prune([*planned, Expired("app.db/missing", "gone", RECENT)])
    assert pruned == (KEY,)
    assert [info.key for info in (await store.list("")).objects] == [NEW, "app.db/untagged", "other"]
    assert [path for path in (tmp_path / PRIVATE).rglob("*") if KEY in str(path)] == []
    with pytest.raises(NotFound):
        await store.tags(KEY)


async def test_tag_that_waited_for_a_pruning_leaves_nothing(tmp_path: Path) -> None:
    """The object went while the tag waited for the directory's lock."""
    store = FileStore(tmp_path)
    await store.put(KEY, b"data")
    refused: list[bool] = []

    async def tag() -> None:
        try:
            await store.tag(KEY, HELD)
        except NotFound:
            refused.append(True)

    with (tmp_path / PRIVATE / "lock").open("a") as lock:
        await to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(tag)
            await anyio.sleep(0.1)
            (tmp_path / KEY).unlink()
            fcntl.flock(lock, fcntl.LOCK_UN)
    assert refused == [True]
    assert not (tmp_path / PRIVATE / "tags").exists()
