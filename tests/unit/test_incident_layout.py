"""The object that keeps incidents, across versions: after a rollback the older one still reads the kinds that it knows."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.monitoring.incident_store import (
    Acknowledgement,
    StoredIncidents,
    incidents_key,
    read_incidents,
    write_incidents,
)
from sidecar.status.findings import digests_of
from sidecar.status.health import STORED
from sidecar.status.problems import Kind, Problem
from tests.fakes import START, MemoryStore

pytestmark = pytest.mark.anyio

NAME = "app.db"
KEY = incidents_key(NAME)
# `object` is what this version writes; `first_version` is what the code of commit 5587936, the first that kept incidents,
# has read from it.
RECORDED = json.loads((Path(__file__).parent / "incidents.json").read_text())
LASTING = {Kind.EMPTY, Kind.FIRST_START}


def incident(kind: Kind, minutes: int) -> Problem:
    found = digests_of(("a", "b")) if kind is Kind.FINDING else frozenset()
    at = START - timedelta(minutes=minutes)
    return Problem(at, NAME, f"about {kind}", f"hint {kind}", kind, kind in LASTING, found, bool(found))


def stored() -> StoredIncidents:
    """One incident of each kind that is stored, and acknowledgements."""
    incidents = tuple(incident(kind, 60 - number) for number, kind in enumerate(sorted(STORED)))
    seen = [Acknowledgement.of(incident(kind, 90), START, "seen") for kind in (Kind.DRILL, Kind.FINDING)]
    return StoredIncidents(incidents, START - timedelta(hours=2), None, tuple(seen))


async def written() -> bytes:
    store = MemoryStore()
    await write_incidents(store, NAME, stored())
    return bytes(store.objects[KEY].data)


async def test_this_version_writes_what_the_first_one_was_seen_to_read() -> None:
    """A failure means that the layout has changed: run the old code on the new object before it is recorded."""
    assert json.loads(await written()) == RECORDED["object"]
    known = [each for each in stored().incidents if each.kind not in LASTING | {Kind.FINDING}]
    assert RECORDED["first_version"] == [[each.at.isoformat(), each.kind, each.message, each.hint] for each in known]


async def test_this_version_reads_what_it_writes() -> None:
    """But for what somebody has acknowledged."""
    store = MemoryStore()
    store.add(KEY, await written())
    found = await read_incidents(store, NAME, START)
    assert found.incidents == tuple(each for each in stored().incidents if each.kind not in {Kind.DRILL, Kind.FINDING})
    assert (found.decided, found.acknowledged) == (stored().decided, stored().acknowledged)


def before(kind: Kind, message: str) -> dict[str, object]:
    return {"at": START.isoformat(), "kind": kind, "message": message, "hint": "h"}


async def test_kinds_among_the_notices_are_read() -> None:
    """Where versions before this one have put them all, and findings had no digests."""
    line = "SQLite's check has a finding: "
    notices = [before(kind, "m") for kind in sorted(STORED - {Kind.FINDING})]
    notices += [before(Kind.FINDING, f"{line}a"), before(Kind.FINDING, f"{line}b (and 1 more)")]
    store = MemoryStore()
    store.add(KEY, json.dumps({"notices": notices, "decided": None}).encode())
    found = (await read_incidents(store, NAME, START)).incidents
    assert {each.kind for each in found} == STORED
    assert [each.findings for each in found if each.kind is Kind.FINDING] == [digests_of("a"), frozenset()]


@pytest.mark.parametrize(
    ("message", "findings", "is_acknowledged"),
    [
        ("SQLite's check has a finding: a", ("a",), True),
        ("SQLite's check has a finding: a", ("a", "b"), False),
        ("SQLite's check has a finding: a", ("b",), False),
        ("SQLite's check has a finding: a (and 1 more)", ("a", "b"), False),
    ],
)
async def test_acknowledgement_without_digests_covers_what_it_named(
    message: str, findings: tuple[str, ...], is_acknowledged: bool
) -> None:
    """Of several findings it has named one: which the others were, nobody knows."""
    seen = {"at": START.isoformat(), "kind": Kind.FINDING, "message": message, "note": ""}
    store = MemoryStore()
    store.add(KEY, json.dumps({"notices": [], "decided": None, "acknowledged": [seen]}).encode())
    found = await read_incidents(store, NAME, START)
    problem = Problem(START + timedelta(days=3), NAME, message, "", Kind.FINDING, findings=digests_of(findings))
    assert bool(found.acknowledgement(problem)) is is_acknowledged


async def test_kinds_that_only_a_newer_version_knows_hide_no_other() -> None:
    store = MemoryStore()
    values = {
        "notices": [before(Kind.DRILL, "m")],
        "decided": None,
        "incidents": [{"at": "2027", "kind": "novel"}, before(Kind.EMPTY, "m")],
        "acknowledged": [{"kind": "novel"}],
    }
    store.add(KEY, json.dumps(values).encode())
    found = await read_incidents(store, NAME, START)
    assert {each.kind for each in found.incidents} == {Kind.DRILL, Kind.EMPTY}


def test_recorded_object_is_from_a_fixed_time() -> None:
    assert datetime.fromisoformat(RECORDED["object"]["decided"]) == START - timedelta(hours=2)
