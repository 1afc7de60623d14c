"""The read-model: counters that only grow, failures that are remembered until a success, JSON without secrets."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.errors import Reason
from sidecar.model import Database
from sidecar.status.histogram import SECONDS, Histogram
from sidecar.status.model import Status
from sidecar.status.problems import Kind
from sidecar.status.serialize import as_json
from tests.fakes import START, FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def status(clock: FakeClock) -> Status:
    databases = (Database("app.db", Path("/data/app.db")), Database("other.db", Path("/data/other.db")))
    return Status(databases, "s3://bucket", "1.2.3", clock.now)


def test_a_failure_is_dated_from_the_first_in_a_row(status: Status, clock: FakeClock) -> None:
    for message in ("first", "second"):
        status.failed("app.db", message, "hint")
        clock.advance(60)
    database = status.databases["app.db"]
    assert (database.failing_since, database.last_error, database.last_outcome) == (START, "second", "failed")
    assert database.backups["failed"] == 2


@pytest.mark.parametrize("outcome", ["published", "unchanged"])
def test_a_success_ends_a_failure(status: Status, clock: FakeClock, outcome: str) -> None:
    status.failed("app.db", "no", "hint")
    clock.advance(60)
    status.succeeded("app.db", outcome)
    database = status.databases["app.db"]
    assert (database.failing_since, database.last_error, database.last_outcome) == (None, None, outcome)
    assert database.last_success == START + timedelta(seconds=60)
    assert dict(database.backups) == {"failed": 1, outcome: 1}


def test_failures_are_counted_by_their_reason(status: Status) -> None:
    """Without one it is a bug: an error that nobody foresaw."""
    for reasons in ((Reason.NO_ROOM,), (Reason.NO_ROOM,), ()):
        status.failed("app.db", "no", "hint", *reasons)
    assert dict(status.databases["app.db"].failures) == {"no_room": 2, "bug": 1}


def test_databases_do_not_mix(status: Status) -> None:
    status.failed("app.db", "no", "hint")
    assert status.databases["other.db"].last_error is None


def test_what_was_uploaded_adds_up(status: Status) -> None:
    status.published("app.db", "a", 100, 70, 30)
    status.published("app.db", "b", 120, 20, 100)
    database = status.databases["app.db"]
    assert (database.restore_point, database.restore_point_size) == ("b", 120)
    assert (database.uploaded, database.reused) == (90, 130)


def test_only_the_last_problems_are_kept(status: Status) -> None:
    """A store that is down for a month does not eat the memory."""
    for number in range(1000):
        status.report("app.db", str(number), "")
    assert [each.message for each in status.problems] == [str(number) for number in range(980, 1000)]


def test_failures_in_other_words_do_not_hide_what_is_said_once(status: Status) -> None:
    """Each failure names other bytes; the suspicion before them is still to be decided on, and the page says so."""
    status.suspected("app.db", "all rows are gone", "restore")
    for number in range(100):
        status.failed("app.db", f"needs {number} bytes", "")
    assert [each.message for each in status.problems][:2] == ["all rows are gone", "needs 81 bytes"]
    assert len(status.problems) == 20
    for number in range(100):
        status.report("app.db", str(number), "", Kind.DAMAGED)
    assert [each.message for each in status.problems] == [str(number) for number in range(80, 100)]


def test_changes_are_unprotected_since_the_oldest(status: Status, clock: FakeClock) -> None:
    assert status.unprotected("app.db") == 0.0
    status.databases["app.db"].unprotected_since = clock.now()
    clock.advance(90)
    assert status.unprotected("app.db") == 90.0


def test_a_clock_that_goes_back_makes_no_negative_age(status: Status, clock: FakeClock) -> None:
    status.databases["app.db"].unprotected_since = clock.now() + timedelta(hours=1)
    assert status.unprotected("app.db") == 0.0


def test_the_final_backups_estimate_is_that_of_all_databases(status: Status) -> None:
    """They share one turn: their times add up."""
    assert status.final_estimate() is None
    status.databases["app.db"].final.whole = 2.0
    assert status.final_estimate() == 2.0
    status.databases["other.db"].final.whole = 3.5
    assert status.final_estimate() == 5.5


def test_the_status_is_json_with_dates_and_ages(status: Status, clock: FakeClock) -> None:
    status.enter("running", ready=True)
    status.succeeded("app.db", "published")
    status.failed("other.db", "no", "try again")
    status.databases["other.db"].unprotected_since = clock.now()
    clock.advance(12.3456)
    shown = json.loads(json.dumps(as_json(status)))
    assert (shown["phase"], shown["ready"], shown["uptime_seconds"]) == ("running", True, 12.346)
    one, other = shown["databases"]
    assert (one["name"], one["last_success"]) == ("app.db", "2026-11-20T14:55:03.123456+00:00")
    assert one["backups"] == {"published": 1, "unchanged": 0, "streamed": 0, "failed": 0}
    assert (other["unprotected_seconds"], other["failing_since"]) == (12.346, START.isoformat())
    assert shown["problems"] == [
        {"at": START.isoformat(), "database": "other.db", "message": "no", "hint": "try again", "kind": "failure"}
    ]


def test_readiness_goes_with_the_phase(status: Status) -> None:
    status.enter("running", ready=True)
    status.enter("stopping")
    assert not status.ready


def test_a_duration_on_a_bound_falls_at_or_below_it() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.005, 0.0051, 300.0, 301.0):
        histogram.observe(seconds)
    buckets = dict(histogram.buckets())
    assert (buckets["0.005"], buckets["0.01"], buckets["120.0"]) == (2, 3, 3)
    assert (buckets["300.0"], buckets["+Inf"]) == (4, 5)
    assert histogram.total == pytest.approx(601.0101)


def test_a_histogram_has_a_bucket_for_each_bound_and_one_above_all() -> None:
    assert [bound for bound, _ in Histogram().buckets()] == [*(str(second) for second in SECONDS), "+Inf"]
    assert list(SECONDS) == sorted(set(SECONDS))


def test_a_problem_that_is_said_again_and_again_does_not_push_the_others_out() -> None:
    """An outage fails a cycle every few seconds; a suspicious snapshot of yesterday is still somebody's to decide."""
    status = Status((Database("app.db", Path("/data/app.db")),), "s3://bucket", "0", FakeClock().now)
    status.suspected("app.db", "it has no table", "restore")
    for _ in range(100):
        status.failed("app.db", "the store is away", "wait")
    assert [each.message for each in status.problems] == ["it has no table", "the store is away"]
