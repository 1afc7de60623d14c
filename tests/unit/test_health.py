"""Protected or not: the one word of the page, in every state."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.model import Database
from sidecar.status.health import Level, overall
from sidecar.status.model import Status
from sidecar.status.problems import Kind
from sidecar.status.serialize import as_json
from sidecar.status.stream import StreamStatus
from tests.fakes import START, FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def status(clock: FakeClock) -> Status:
    status = Status((Database("app.db", Path("/data/app.db")),), "s3://bucket", "1", clock.now)
    status.interval = timedelta(minutes=5)
    return status


def running(status: Status) -> Status:
    status.enter("running", ready=True)
    status.succeeded("app.db", "published")
    return status


def test_protected_since_the_first_success_in_a_row(status: Status, clock: FakeClock) -> None:
    running(status)
    clock.advance(600)
    status.succeeded("app.db", "unchanged")
    verdict = overall(status)
    assert (verdict.level, verdict.title, verdict.since) == (Level.GOOD, "Protected", START)
    status.failed("app.db", "no", "")
    clock.advance(60)
    status.succeeded("app.db", "published")
    assert overall(status).since == clock.now()


def test_what_was_restored_is_protected_at_once(status: Status) -> None:
    status.restored("app.db", "restored", 1.0, 1, "key")
    status.enter("running", ready=True)
    assert overall(status).level is Level.GOOD


@pytest.mark.parametrize("outcome", ["started_empty", "kept_local"])
def test_nothing_is_protected_before_the_first_backup(status: Status, outcome: str) -> None:
    status.restored("app.db", outcome, 1.0, 0, None)
    status.enter("running", ready=True)
    assert (overall(status).level, overall(status).title) == (Level.WAIT, "Not protected yet")


def test_a_failure_says_since_when_why_and_what_to_do(status: Status, clock: FakeClock) -> None:
    """Since the oldest change that is at risk, which is older than the first failure."""
    running(status)
    status.databases["app.db"].unprotected_since = clock.now()
    clock.advance(100)
    status.failed("app.db", "the store is down", "check the network")
    verdict = overall(status)
    assert (verdict.level, verdict.since) == (Level.BAD, START)
    assert (verdict.reason, verdict.hint) == ("the store is down", "check the network")


@pytest.mark.parametrize(("seconds", "level"), [(899, Level.GOOD), (901, Level.BAD)])
def test_changes_that_wait_for_three_intervals_are_not_protected(
    status: Status, clock: FakeClock, seconds: int, level: Level
) -> None:
    """Even when nothing has failed: a backup may hang."""
    running(status)
    status.databases["app.db"].unprotected_since = clock.now()
    clock.advance(seconds)
    assert overall(status).level is level


def test_a_machine_that_waits_names_the_holder(status: Status) -> None:
    status.enter("restoring")
    status.lease.waiting_for = "m2"
    verdict = overall(status)
    assert (verdict.level, verdict.reason) == (Level.WAIT, "waiting for the lease of m2")


def test_a_fenced_machine_is_not_protected(status: Status) -> None:
    running(status)
    status.lease.renewals["lost"] += 1
    status.lease.waiting_for = "m2"
    status.report("", "taken over by m2", "it goes to diverged/", Kind.DIVERGENCE)
    status.report("app.db", "what this machine wrote is kept", "", Kind.DIVERGENCE)
    verdict = overall(status)
    assert (verdict.level, verdict.title) == (Level.BAD, "Fenced: not protected")
    assert verdict.reason.startswith("m2 has taken over")
    assert "stop one of the two" in verdict.hint


def test_a_machine_that_handed_over_names_the_other_one_and_promises_nothing(status: Status) -> None:
    running(status)
    status.databases["app.db"].next_backup = status.databases["app.db"].next_drill = START
    status.lease.waiting_for = "m2"
    status.enter("handed over")
    shown = as_json(status)["databases"]
    assert isinstance(shown, list)
    assert overall(status).reason == "m2 continues from here"
    assert (shown[0]["next_backup"], shown[0]["next_drill"]) == (None, None)


def test_a_boot_says_what_is_wrong_with_the_store(status: Status) -> None:
    """It is what the app waits for; the last problem is not."""
    status.enter("restoring")
    status.report("app.db", "of before", "")
    status.trouble = "the store cannot be reached"
    shown = overall(status)
    assert (shown.level, shown.reason) == (Level.WAIT, "the store cannot be reached")
    status.trouble = None
    shown = overall(status)
    assert shown.reason == "of before"


def test_the_newest_of_several_notices_is_named_and_how_many_more_there_are(status: Status, clock: FakeClock) -> None:
    """An older loss hides no newer one; that something was lost stays in the title."""
    running(status)
    status.report("app.db", "changes were lost", "go back", Kind.DAMAGED)
    clock.advance(60)
    status.report("app.db", "it looks lost", "restore", Kind.SUSPICION)
    verdict = overall(status)
    assert (verdict.title, verdict.reason) == ("Protected, but changes were lost", "it looks lost")
    assert verdict.hint == "restore; `sidecar ack suspicion` acknowledges it; 1 more below, under 'Last problems'"


def test_one_that_is_still_to_come_hides_no_loss_of_another(clock: FakeClock) -> None:
    databases = tuple(Database(name, Path("/data") / name) for name in ("a.db", "b.db"))
    status = Status(databases, "s3://bucket", "1", clock.now)
    status.enter("running", ready=True)
    status.succeeded("a.db", "published")
    status.databases["b.db"].last_outcome = "waiting"
    status.report("a.db", "it looks lost", "", Kind.SUSPICION)
    assert (overall(status).level, overall(status).reason) == (Level.ATTENTION, "a.db: it looks lost")


def test_one_that_waits_beside_one_that_is_protected_is_named(clock: FakeClock) -> None:
    """The heading must not say of all that there is nothing."""
    databases = tuple(Database(name, Path("/data") / name) for name in ("a.db", "b.db"))
    status = Status(databases, "s3://bucket", "1", clock.now)
    status.enter("running", ready=True)
    status.succeeded("a.db", "published")
    status.databases["b.db"].last_outcome = "waiting"
    assert (overall(status).level, overall(status).title) == (Level.WAIT, "Nothing to protect yet: b.db")


@pytest.mark.parametrize("kind", [Kind.SUSPICION, Kind.DIVERGENCE, Kind.DAMAGED, Kind.DRILL, Kind.GROWTH, Kind.FINDING])
def test_what_somebody_must_look_at_stays_for_a_day(status: Status, clock: FakeClock, kind: Kind) -> None:
    running(status)
    status.report("app.db", "look", "at it", kind)
    clock.advance(86_000)
    hint = f"at it; `sidecar ack {kind}` acknowledges it"
    assert (overall(status).level, overall(status).hint) == (Level.ATTENTION, hint)
    clock.advance(500)
    assert overall(status).level is Level.GOOD


@pytest.mark.parametrize("phase", ["handed over", "stopped", "stopping", "starting", "restoring"])
def test_other_phases_are_never_green(status: Status, phase: str) -> None:
    running(status)
    status.enter(phase)
    assert overall(status).level is Level.WAIT


def test_a_database_that_does_not_exist_yet_is_not_green(status: Status) -> None:
    status.enter("running", ready=True)
    status.databases["app.db"].last_outcome = "waiting"
    assert (overall(status).level, overall(status).title) == (Level.WAIT, "Nothing to protect yet")


def test_the_worst_database_decides_and_is_named(clock: FakeClock) -> None:
    databases = tuple(Database(name, Path("/data") / name) for name in ("a.db", "b.db", "c.db"))
    status = Status(databases, "s3://bucket", "1", clock.now)
    status.enter("running", ready=True)
    for name in ("a.db", "b.db", "c.db"):
        status.succeeded(name, "published")
    assert overall(status).reason == ""
    status.failed("b.db", "no", "")
    assert (overall(status).level, overall(status).reason) == (Level.BAD, "b.db: no")
    status.failed("c.db", "not either", "")
    assert overall(status).reason == "2 of 3 databases: no"


def test_the_status_carries_it(status: Status) -> None:
    shown = json.loads(json.dumps(as_json(running(status))))
    expected = {"level": "good", "title": "Protected", "since": START.isoformat(), "reason": "", "hint": ""}
    assert shown["verdict"] == expected
    assert shown["databases"][0]["verdict"] == expected


def test_a_remark_about_a_database_lasts_as_long_as_its_cause(status: Status) -> None:
    """Another hard link, for example: protected, and amber."""
    running(status)
    status.remarks["app.db"] = ("it has another name", "remove it")
    verdict = overall(status)
    assert (verdict.level, verdict.reason, verdict.hint) == (Level.ATTENTION, "it has another name", "remove it")
    del status.remarks["app.db"]
    assert overall(status).level is Level.GOOD


def streaming(status: Status, clock: FakeClock, setting: str = "on") -> StreamStatus:
    """A database that is protected, and streamed since now."""
    stream = running(status).databases["app.db"].stream
    stream.setting, stream.active, stream.protects, stream.reason, stream.since = setting, True, True, "", clock.now()
    return stream


def test_a_stream_changes_nothing_of_what_is_green(status: Status, clock: FakeClock) -> None:
    streaming(status, clock)
    status.databases["app.db"].changed_since = clock.now()
    clock.advance(3599)
    assert overall(status).level is Level.GOOD


@pytest.mark.parametrize(("minutes", "patience"), [(5, 3600), (30, 5400)])
def test_a_stream_is_no_substitute_for_restore_points(
    status: Status, clock: FakeClock, minutes: int, patience: int
) -> None:
    """An hour of changes, or three intervals if that is longer."""
    status.interval = timedelta(minutes=minutes)
    streaming(status, clock)
    status.databases["app.db"].changed_since = clock.now()
    clock.advance(patience)
    assert overall(status).level is Level.GOOD
    clock.advance(1)
    verdict = overall(status)
    assert (verdict.level, verdict.since) == (Level.ATTENTION, START)
    assert "only the stream has the changes since 2026-11-20 14:55 UTC" in verdict.reason


def test_a_day_without_a_restore_point_is_red_whatever_the_stream_has(status: Status, clock: FakeClock) -> None:
    streaming(status, clock)
    database = status.databases["app.db"]
    database.changed_since = database.unprotected_since = clock.now()  # as the tracker of changes says after a day
    clock.advance(86_401)
    verdict = overall(status)
    assert (verdict.level, verdict.title, verdict.since) == (Level.BAD, "Not protected", START)
    assert "a stream is no substitute for restore points" in verdict.reason


def test_a_rest_after_repeated_cuts_needs_attention_where_a_stream_is_asked_for(
    status: Status, clock: FakeClock
) -> None:
    stream = streaming(status, clock)
    stream.active, stream.reason, stream.last_cut = False, "cut: the log was reset", "reset: the log was reset"
    stream.resting_until = clock.now() + timedelta(minutes=5)
    verdict = overall(status)
    assert (verdict.level, verdict.title) == (Level.ATTENTION, "Protected – needs attention")
    assert verdict.reason.endswith("after repeated cuts; the last one: reset: the log was reset")
    stream.setting = "auto"
    assert overall(status).level is Level.GOOD
    stream.setting = "on"
    clock.advance(300)
    assert overall(status).level is Level.GOOD


@pytest.mark.parametrize(
    ("setting", "level"), [("on", Level.ATTENTION), ("auto", Level.GOOD), ("off", Level.GOOD)], ids=str
)
def test_only_a_stream_that_was_asked_for_is_missed(
    status: Status, clock: FakeClock, setting: str, level: Level
) -> None:
    """And not before an interval has passed: a cut ends in a new stream by itself."""
    stream = streaming(status, clock, setting)
    stream.active, stream.reason = False, "the database is not in WAL mode"
    clock.advance(300)
    assert overall(status).level is Level.GOOD
    clock.advance(1)
    assert overall(status).level is level
    if level is Level.ATTENTION:
        assert overall(status).reason == "stream=on, but nothing is streamed: the database is not in WAL mode"


def test_a_store_that_no_longer_obeys_conditions_needs_attention(status: Status) -> None:
    running(status).lease.unsuitable = "the store does not obey conditional writes"
    verdict = overall(status)
    assert (verdict.level, verdict.reason) == (Level.ATTENTION, status.lease.unsuitable)
    assert "a proxy may have been put in front" in verdict.hint
