"""The listing of the store: bounded whatever the history, right after each publish, and honest after a loss."""

import json
import shlex
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.errors import AccessDenied
from sidecar.model import Database, Timestamp
from sidecar.monitoring.listing import SHOWN, StoreListing
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import StreamName, key_of
from sidecar.status.health import Level, overall
from sidecar.status.listing import Listing
from sidecar.status.model import Status
from sidecar.status.serialize import as_json
from tests.fakes import START, FakeClock, MemoryStore
from tests.harness.streams import StreamMaker

pytestmark = pytest.mark.anyio

NAME = "app.db"
MINUTES_5 = timedelta(minutes=5)


def key(number: int) -> str:
    """The key of the restore point `number` intervals after the start."""
    return key_of(NAME, Timestamp.of(START + number * MINUTES_5))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def status() -> Status:
    return Status((Database(NAME, Path("/data/app.db")),), "s3://bucket", "1", FakeClock().now)


@pytest.fixture
def listing(store: MemoryStore, status: Status) -> StoreListing:
    return StoreListing(Catalog(store), status, "m2", {NAME: ()}, RetentionDays())


def listed(status: Status) -> Listing:
    """What the page would show; its JSON is complete."""
    found = status.listings[NAME]
    assert json.loads(json.dumps(as_json(status)))["databases"][0]["listing"] == found.as_dict()
    return found


def tiers(status: Status, count: int) -> list[str | None]:
    return [each.tier for each in listed(status).newest[:count]]


async def test_the_newest_the_oldest_and_the_count_of_a_long_history(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    """Few requests whatever its length: one list for each thousand, and two for each restore point that is shown."""
    for number in range(2500):
        store.add(key(number), b"x" * (number + 1), {"holder": "m1"})
    store.marks[key(0)] = {"sidecar-tier": "held"}
    assert await listing.refresh(NAME)
    found = listed(status)
    assert found.count == 2500
    assert [each.key for each in found.newest] == [key(number) for number in range(2499, 2499 - SHOWN, -1)]
    assert (found.newest[0].size, found.newest[0].holder) == (2500, "m1")
    assert found.oldest
    assert (found.oldest.key, found.oldest.tier) == (key(0), "held")
    assert store.count("list") == 3
    assert store.count("head") == store.count("tags") == SHOWN + 1
    assert sum(status.stored[NAME].values()) == sum(range(2501))


async def test_a_publish_is_shown_without_a_request(store: MemoryStore, status: Status, listing: StoreListing) -> None:
    """It is the newest, counts, and the one before it gets its tier; the oldest stays."""
    for number in range(SHOWN):
        store.add(key(number), metadata={"holder": "m1"})
    await listing.refresh(NAME)
    before = len(store.requests)
    for number in (SHOWN, SHOWN + 1):
        status.published(NAME, key(number), 7, 7, 0)
        listing.update(NAME)
        listing.update(NAME)
    assert len(store.requests) == before
    found = listed(status)
    assert (found.count, len(found.newest)) == (SHOWN + 2, SHOWN)
    assert [each.key for each in found.newest[:3]] == [key(SHOWN + 1), key(SHOWN), key(SHOWN - 1)]
    assert [each.holder for each in found.newest[:3]] == ["m2", "m2", "m1"]
    assert tiers(status, 3) == [None, "recent", "recent"]
    assert found.oldest
    assert found.oldest.key == key(0)
    assert found.at == START, "it says when the store was really asked"


async def test_the_first_publish_into_an_empty_store(store: MemoryStore, status: Status, listing: StoreListing) -> None:
    assert not await listing.refresh(NAME)
    assert (listed(status).count, listed(status).oldest) == (0, None)
    status.published(NAME, key(0), 7, 7, 0)
    listing.update(NAME)
    status.published(NAME, key(1), 7, 7, 0)
    listing.update(NAME)
    found = listed(status)
    assert found.count == 2
    assert found.oldest == found.newest[1]
    assert tiers(status, 2) == [None, "hourly"], "the first one was the last of its hour"


async def test_restore_points_that_are_gone_from_the_store_are_not_shown(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    """This process remembers what it published; the store decides what is there."""
    for number in range(3):
        store.add(key(number))
        status.published(NAME, key(number), 1, 1, 0)
    await listing.refresh(NAME)
    for number in (1, 2):
        del store.objects[key(number)]
    await listing.refresh(NAME)
    listing.update(NAME)
    assert [each.key for each in listed(status).newest] == [key(0)]


async def test_a_publish_during_the_listing_counts_once(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    """Whether the listing saw it or not."""
    store.add(key(0))
    arrived = [key(1), key(2)]

    def publish(operation: str, _key: str) -> None:
        if operation in {"list", "head"} and arrived:  # one the listing sees, one it does not
            store.add(arrived[0])
            status.published(NAME, arrived.pop(0), 1, 1, 0)

    store.hook = publish
    await listing.refresh(NAME)
    assert [each.key for each in listed(status).newest] == [key(2), key(1), key(0)]
    assert listed(status).count == 3


async def test_a_store_that_is_down_leaves_the_last_listing(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    store.add(key(0))
    await listing.refresh(NAME)
    before = listed(status)
    store.fail("list")
    assert not await listing.refresh(NAME)
    assert listed(status) == before


@pytest.mark.parametrize("denied", ["head", "tags"])
async def test_rights_that_are_missing_cost_details_only(
    store: MemoryStore, status: Status, listing: StoreListing, denied: str
) -> None:
    store.add(key(0), metadata={"holder": "m1"})
    store.fail(denied, AccessDenied("no"), times=2)
    await listing.refresh(NAME)
    (point,) = listed(status).newest
    assert (point.key, point.size, point.tier) == (key(0), 1, None)


async def test_the_store_is_listed_again_when_a_restore_point_was_held_or_lost(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    """Without waiting for the hour: this is when somebody looks at the list."""
    store.add(key(0))
    async with anyio.create_task_group() as group:
        group.start_soon(listing.run)
        with anyio.fail_after(5):
            while NAME not in status.listings:
                await anyio.sleep(0.01)
            store.marks[key(0)] = {"sidecar-tier": "held"}
            status.suspected(NAME, "it looks lost", "look")
            while tiers(status, 1) != ["held"]:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ((), "sidecar restore --key "),
        (("--database", "/a b/app.db"), "sidecar restore --database '/a b/app.db' --key "),
    ],
)
async def test_the_command_is_one_line_for_a_shell(
    store: MemoryStore, status: Status, options: tuple[str, ...], start: str
) -> None:
    listing = StoreListing(Catalog(store), status, "m2", {NAME: options}, RetentionDays())
    store.add(key(0))
    await listing.refresh(NAME)
    status.published(NAME, key(1), 7, 7, 0)
    listing.update(NAME)
    for number, point in enumerate(reversed(listed(status).newest)):
        assert point.restore.startswith(start)
        *_, given, _, output = shlex.split(point.restore)
        assert (given, output) == (key(number), f"{key(number)[7:27]}.db")


async def test_segments_that_nothing_expires_need_attention(
    store: MemoryStore, status: Status, listing: StoreListing
) -> None:
    """One request a day, where commits are streamed; two days after the rule should have deleted them."""
    stream = status.databases[NAME].stream
    store.add(key(0))
    for days in (10, 36, 38):
        name = StreamName(Timestamp.of(START - timedelta(days=days)), 1, "web")
        made = StreamMaker(name, NAME).segment()
        store.add(made.key, made.data)
    await listing.refresh(NAME)
    before_it_is_wanted = stream.oldest
    assert stream.expires(START, 35)
    stream.setting = "auto"
    before = store.count("list")
    await listing.refresh(NAME)
    await listing.refresh(NAME)
    assert store.count("list") == before + 3
    assert before_it_is_wanted is None
    assert stream.oldest
    assert (START - stream.oldest).days in {37, 38}
    assert not stream.expires(START, 35)
    assert stream.expires(START - timedelta(days=2), 35)
    status.restored(NAME, "restored", 1.0, 1, "key")
    status.enter("running", ready=True)
    found = overall(status)
    assert found.level is Level.ATTENTION
    assert "`stream/`" in found.hint
