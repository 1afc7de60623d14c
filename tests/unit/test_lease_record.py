"""The lease object: who may take it, and which contents are refused."""

import json
import secrets
from dataclasses import asdict, replace
from datetime import timedelta

import pytest

from sidecar.errors import DamagedLease, UnsupportedLease
from sidecar.lease.document import parse_lease
from sidecar.lease.record import Record, StoredLease, StreamRecord
from sidecar.lease.rules import Identity, Take, Wait, judge, may_ask, retired_with
from sidecar.model import AtRestorePoint, IfAbsent, IfMatch, Position

TTL = timedelta(seconds=120)
ME = Identity("me", "boot-2", TTL)
HELD = Record(7, "other", "boot-1", 120.0, latest={"app.db": "app.db/1"}, settled={"app.db": 6})
MINE = replace(HELD, holder="me")


def seen(record: Record, age: float) -> StoredLease:
    return StoredLease(record, '"v"', timedelta(seconds=age))


def test_the_first_holder_creates_it() -> None:
    assert judge(None, ME) == Take(Record(1, "me", "boot-2", 120.0), IfAbsent())


@pytest.mark.parametrize(
    ("record", "age"),
    [
        (HELD, 121.0),
        (replace(HELD, released=True), 0.0),
        (MINE, 0.0),
        (replace(MINE, released=True), 0.0),
        (replace(HELD, aged=100.0), 21.0),
        (replace(HELD, released=True, handoff="me"), 0.0),
        (replace(HELD, released=True, handoff="third"), 121.0),
        (replace(HELD, handoff="third"), 121.0),
    ],
    ids=str,
)
def test_it_is_taken_when_free(record: Record, age: float) -> None:
    """The epoch rises, the last holder's knowledge is kept, and only this very version is replaced."""
    verdict = judge(seen(record, age), ME)
    assert isinstance(verdict, Take)
    assert verdict.condition == IfMatch('"v"')
    taken = verdict.record
    assert (taken.epoch, taken.holder, taken.boot, taken.released) == (8, "me", "boot-2", False)
    assert (taken.latest, taken.settled, taken.aged) == (HELD.latest, {"app.db": 6}, 0.0)


@pytest.mark.parametrize(
    ("record", "age", "holder", "seconds"),
    [
        (HELD, 0.0, "other", 121.0),
        (HELD, 120.9, "other", 0.1),
        (replace(HELD, aged=100.0), 20.9, "other", 0.1),
        (replace(HELD, handoff="me"), 5.0, "other", 116.0),
        (replace(HELD, released=True, handoff="third"), 1.0, "third", 120.0),
        (replace(MINE, released=True, handoff="third"), 1.0, "third", 120.0),
    ],
    ids=str,
)
def test_it_is_waited_for_while_another_machine_may_publish(
    record: Record, age: float, holder: str, seconds: float
) -> None:
    """A whole ttl and the resolution of the store's clock; the last holder does not take back a lease it handed over."""
    verdict = judge(seen(record, age), ME)
    assert isinstance(verdict, Wait)
    assert verdict.holder == holder
    assert verdict.remaining.total_seconds() == pytest.approx(seconds)


def test_a_request_outlives_a_restart_of_the_holder_and_ends_with_another_one() -> None:
    again = judge(seen(replace(MINE, handoff="third"), 3.0), ME)
    assert isinstance(again, Take)
    assert again.record.handoff == "third"
    other = judge(seen(replace(HELD, handoff="third"), 200.0), ME)
    assert isinstance(other, Take)
    assert other.record.handoff is None


def test_a_machine_that_handed_over_may_not_ask_until_it_is_the_holder_again() -> None:
    retired = replace(HELD, retired=retired_with(HELD, "me"))
    assert may_ask(HELD, "me")
    assert not may_ask(retired, "me")
    assert not may_ask(replace(HELD, handoff="third"), "me")
    assert not may_ask(replace(HELD, released=True), "me")
    verdict = judge(seen(retired, 121.0), ME)
    assert isinstance(verdict, Take)
    assert verdict.record.retired == ()


def test_the_list_of_the_retired_stays_short() -> None:
    record = HELD
    for number in range(300):
        record = replace(record, retired=retired_with(record, f"m{number}"))
    assert len(record.retired) == 100
    assert record.retired[-1] == "m299"


def test_a_record_is_read_back() -> None:
    record = replace(HELD, handoff="third", aged=1.5, retired=("a", "b"), released=True)
    assert parse_lease(record.to_bytes(), "s3://b") == record


def test_fields_of_a_newer_version_of_the_same_format_are_ignored() -> None:
    values = json.loads(HELD.to_bytes())
    assert parse_lease(json.dumps({**values, "colour": "blue"}).encode(), "s3://b") == HELD


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"epoch": 0},
        {"epoch": -1},
        {"epoch": "7"},
        {"epoch": 1.5},
        {"epoch": None},
        {"ttl": 0},
        {"ttl": float("inf")},
        {"ttl": float("nan")},
        {"ttl": "2m"},
        {"holder": None},
        {"latest": ["app.db"]},
        {"latest": {"app.db": 3}},
        {"released": "yes"},
        {"retired": [1]},
        {"handoff": 3},
        {"aged": -1},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(change: dict[str, object]) -> None:
    """Guessing would reset the epoch, and a fenced machine would be believed again."""
    with pytest.raises(DamagedLease, match=r"s3://b/lease\.json is not a lease"):
        parse_lease(json.dumps({"format": 1, **asdict(HELD), **change}).encode(), "s3://b")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"not json", b"\xff\xfe", HELD.to_bytes()[:-5]])
def test_a_torn_or_foreign_object_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedLease):
        parse_lease(data, "s3://b")


@pytest.mark.parametrize("format_", [3, 4, 99])
def test_a_lease_of_the_future_is_not_called_damaged(format_: int) -> None:
    """Whatever else is in it: it must not be deleted, and nothing may go on without it."""
    for values in ({}, {**asdict(HELD), "latest": 7}):
        with pytest.raises(UnsupportedLease, match="written by a newer version") as told:
            parse_lease(json.dumps({**values, "format": format_}).encode(), "s3://b")
        assert told.value.exit_code == 78
    for foreign in ("3", None, 0, -1, 2.5):
        with pytest.raises(DamagedLease) as damaged:
            parse_lease(json.dumps({**asdict(HELD), "format": foreign}).encode(), "s3://b")
        assert not isinstance(damaged.value, UnsupportedLease)


def test_the_hint_for_a_damaged_lease_is_a_command() -> None:
    """For an object that is empty and has no metadata, as a person's mistake leaves it."""
    with pytest.raises(DamagedLease, match=r"lease\.json is empty") as empty:
        parse_lease(b"", "s3://b/p")
    assert "`aws s3 rm s3://b/p/lease.json`" in empty.value.hint
    with pytest.raises(DamagedLease) as local:
        parse_lease(b"{}", "file:///var/store")
    assert "`rm /var/store/lease.json`" in local.value.hint


def test_a_record_fits_into_metadata_or_is_left_out() -> None:
    """S3 takes 2 KiB of metadata, and refuses the whole write when there is more."""
    assert HELD.to_metadata()
    full = replace(HELD, retired=tuple(f"{number:014x}" for number in range(100)))
    assert len(full.to_metadata()["sidecar-lease"]) <= 1900
    many = replace(HELD, latest={secrets.token_hex(8): secrets.token_hex(8) for _ in range(200)})
    assert many.to_metadata() == {}


STREAMS = {
    "app.db": StreamRecord("20261120T145503.123Z-0000000007-me", Position("before", 41), 12, 1_795_000_000_000_000),
    "b.db": StreamRecord(None, AtRestorePoint("b.db/20261120T145503.123Z.sqlite3.zst")),
    "c.db": StreamRecord("c", None),
}


def test_streams_are_recorded_and_the_format_says_so() -> None:
    """An older version refuses format 2: it would start an app on a restore point without what was streamed after it."""
    assert json.loads(MINE.to_bytes())["format"] == 1
    record = replace(MINE, streams=STREAMS)
    assert json.loads(record.to_bytes())["format"] == 2
    assert parse_lease(record.to_bytes(), "s3://b") == record
    assert record.ends == {"before": 41}


def test_the_next_holder_keeps_what_is_known_of_streams() -> None:
    verdict = judge(seen(replace(HELD, streams=STREAMS), 121.0), ME)
    assert isinstance(verdict, Take)
    assert verdict.record.streams == STREAMS


@pytest.mark.parametrize(
    "stream",
    [
        {"stream": 1, "after": None, "commit": 0, "time": 0},
        {"stream": "s", "after": {}, "commit": 0, "time": 0},
        {"stream": "s", "after": {"stream": "s", "commit": "1"}, "commit": 0, "time": 0},
        {"stream": "s", "after": None, "commit": True, "time": 0},
        {"stream": "s"},
        [],
        None,
    ],
    ids=str,
)
def test_a_broken_record_of_a_stream_is_refused(stream: object) -> None:
    text = json.dumps({**json.loads(MINE.to_bytes()), "format": 2, "streams": {"app.db": stream}})
    with pytest.raises(DamagedLease):
        parse_lease(text.encode(), "s3://b")
