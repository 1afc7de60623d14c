"""The inventory that `list` shows, in few requests at once, and without permissions that it does not need."""

import json
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from sidecar.errors import AccessDenied
from sidecar.lease import KEY as LEASE_KEY
from sidecar.model import RestorePoint, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.drill_tag import last_drill
from sidecar.repository.holds import Holds
from sidecar.repository.inventory import AT_ONCE, describe, stored_by_tier, with_lines
from sidecar.repository.keys import diverged_key_of, key_of
from tests.fakes import MEMORY, START, MemoryStore

pytestmark = pytest.mark.anyio

NAME = "app.db"
FULL = {"size": "5000", "live": "4000", "reused": "60", "holder": "machine%201", "epoch": "7"}
NOTHING = ("database_size", "uploaded", "reused", "holder", "epoch", "tier", "drill", "diverged_holder")


def at(text: str) -> Timestamp:
    return Timestamp(f"202611{text}00.000Z")


async def points(store: MemoryStore, *, diverged: bool = False) -> list[RestorePoint]:
    return [point async for point in Catalog(store).points(NAME, diverged=diverged)]


async def test_metadata_and_tags_are_in_the_entry() -> None:
    store = MemoryStore()
    key = key_of(NAME, at("20T1200"))
    store.add(key, b"x" * 100, FULL)
    store.marks[key] = {"sidecar-tier": "daily", "sidecar-drill": "good@20261120T130000.000Z", "mine": "1"}
    (entry,) = await describe(Catalog(store), await points(store))
    assert json.loads(json.dumps(entry.as_dict(at("20T1210").instant))) == {
        "key": key,
        "timestamp": "20261120T120000.000Z",
        "time": "2026-11-20T12:00:00+00:00",
        "age_seconds": 600.0,
        "size": 100,
        "database_size": 5000,
        "database_live": 4000,
        "uploaded": 40,
        "reused": 60,
        "holder": "machine 1",
        "epoch": 7,
        "tier": "daily",
        "drill": {"outcome": "good", "at": "2026-11-20T13:00:00+00:00"},
        "diverged_holder": None,
        "main_line": None,
    }


async def test_a_mark_shows_what_is_held_in_a_store_without_tags() -> None:
    """Which is asked for no tags."""
    store = MemoryStore(traits=replace(MEMORY, tags=False))
    held, other = (key_of(NAME, at(text)) for text in ("20T1200", "20T1300"))
    for key in (held, other):
        store.add(key)
    await Holds(store).mark(held)
    entries = await describe(Catalog(store), await points(store))
    assert [each.tier for each in entries] == ["held", None]
    assert store.count("tags") == 0


async def test_unknown_values_are_null_and_not_zero() -> None:
    """Copied there by hand, or by a sidecar that did not write it yet."""
    store = MemoryStore()
    store.add(key_of(NAME, at("20T1200")), b"x", {"reused": "many", "epoch": "-1"})
    (entry,) = await describe(Catalog(store), await points(store))
    shown = entry.as_dict(START)
    assert {name: shown[name] for name in NOTHING} == dict.fromkeys(NOTHING)


async def test_diverged_states_have_the_holder_of_their_key() -> None:
    store = MemoryStore()
    store.add(diverged_key_of(NAME, at("20T1200"), "other machine"))
    (entry,) = await describe(Catalog(store), await points(store, diverged=True))
    assert (entry.holder, entry.point.diverged_holder) == ("other machine", "other machine")


async def test_without_the_right_to_read_tags_the_rest_is_shown() -> None:
    """After one denial it is not requested a thousand times."""
    store = MemoryStore()
    for minute in range(50):
        store.add(key_of(NAME, at(f"20T12{minute:02d}")), b"x" * 100, FULL)
    store.fail("tags", AccessDenied("no"), times=1000)
    entries = await describe(Catalog(store), await points(store))
    assert [(entry.tier, entry.holder) for entry in entries] == [(None, "machine 1")] * 50
    assert store.count("tags") <= AT_ONCE
    newest = await Catalog(store).newest(NAME)
    assert newest
    assert await last_drill(Catalog(store), newest, timedelta(days=1)) is None


async def test_those_that_vanish_meanwhile_are_left_out() -> None:
    store = MemoryStore()
    for minute in range(3):
        store.add(key_of(NAME, at(f"20T120{minute}")))
    found = await points(store)
    del store.objects[found[1].key]
    assert [entry.point for entry in await describe(Catalog(store), found)] == [found[0], found[2]]


async def test_a_long_history_is_asked_for_in_order_and_few_at_once() -> None:
    store = MemoryStore()
    for minute in range(60):
        store.add(key_of(NAME, at(f"20T12{minute:02d}")))
    waiting, most = 0, 0
    head = store.head

    async def slow(key: str):  # type: ignore[no-untyped-def]
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await anyio.lowlevel.checkpoint()
        waiting -= 1
        return await head(key)

    store.head = slow  # type: ignore[method-assign]
    found = await points(store)
    assert [entry.point for entry in await describe(Catalog(store), found)] == found
    assert 1 < most <= AT_ONCE


async def test_bytes_by_tier_add_up_and_the_newest_is_apart() -> None:
    """By the tier that each one is about to get, without reading tags."""
    store = MemoryStore()
    for number, text in enumerate(("18T1200", "20T1200", "20T1205", "20T1300", "20T1301")):
        store.add(key_of(NAME, at(text)), b"x" * 10**number)
    assert stored_by_tier(await points(store), RetentionDays()) == {
        "daily": 1,
        "recent": 10 + 1000,
        "hourly": 100,
        "newest": 10000,
    }
    assert stored_by_tier([], RetentionDays()) == {}


FUTURE = {
    "lease": (LEASE_KEY, b'{"format": 1000}'),
    "segment": ("stream/app.db/20261120T130000.000Z-0000000001-web/0000000000000001-0000000000000001-1.zst2", b""),
}


@pytest.mark.parametrize("what", FUTURE)
async def test_what_a_newer_version_wrote_leaves_the_line_unknown_and_the_list_whole(what: str) -> None:
    store = MemoryStore()
    store.add(key_of(NAME, at("20T1200")), b"x", FULL)
    store.add(*FUTURE[what])
    catalog = Catalog(store)
    (entry,) = await with_lines(catalog, NAME, await describe(catalog, await points(store)))
    assert (entry.main_line, entry.holder) == (None, "machine 1")
