"""What a store alone says about databases: the worst is said first, and nothing hides anything."""

from datetime import UTC, datetime, timedelta

import pytest

from sidecar.status.health import Health, Level
from sidecar.status.problems import Kind, Problem
from sidecar.status.store import LastHolder, StoredDatabase, judge

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = "app.db/20261120T115503.123Z.sqlite3.zst"
GOOD = StoredDatabase("app.db", KEY, 100, 300.0)
RUNNING = LastHolder("m1", 3, released=False, age=10.0, ttl=120.0)
STOPPED = LastHolder("m1", 3, released=True, age=10.0, ttl=120.0)
KILLED = LastHolder("m1", 3, released=False, age=121.0, ttl=120.0)


def judged(
    *databases: StoredDatabase, holder: LastHolder | None = STOPPED, incidents: tuple[Problem, ...] = ()
) -> Health:
    return judge(databases, holder, incidents, place="s3://bucket")


def incident(kind: Kind = Kind.SUSPICION, hours: int = 0) -> Problem:
    return Problem(NOON - timedelta(hours=hours), "app.db", f"{kind} {hours} h ago", "look at it", kind)


@pytest.mark.parametrize(
    ("holder", "level", "says"),
    [
        (None, Level.WAIT, "no machine is known"),
        (STOPPED, Level.WAIT, "m1, the last one, shut down cleanly"),
        (RUNNING, Level.WAIT, "m1 runs: it renewed its lease 10s ago"),
        (KILLED, Level.ATTENTION, "m1 has not renewed its lease for 2m1s"),
    ],
)
def test_what_is_known_of_the_last_machine(holder: LastHolder | None, level: Level, says: str) -> None:
    """The disk of one that was killed may have what no restore point has."""
    health = judged(GOOD, holder=holder)
    assert (health.level, says in health.reason) == (level, True), health.reason


@pytest.mark.parametrize(
    ("database", "says"),
    [
        (StoredDatabase("app.db"), "there is no restore point of app.db in s3://bucket"),
        (StoredDatabase("app.db", KEY, 0, 1.0, gone=True), f"the newest restore point is gone from the store: {KEY}"),
        (StoredDatabase("app.db", KEY, 9, 1.0, damage="it is damaged"), "it is damaged"),
    ],
)
def test_without_a_good_newest_restore_point_nothing_is_protected(database: StoredDatabase, says: str) -> None:
    """Whatever else is to be told."""
    health = judged(database, holder=RUNNING, incidents=(incident(),))
    assert (health.level, health.reason, bool(health.hint)) == (Level.BAD, says, True)


def test_a_database_that_the_store_does_not_have_hides_nothing_of_another() -> None:
    """It needs attention, and so does what the other one has."""
    health = judged(GOOD, StoredDatabase("other.db"))
    assert (health.level, health.title) == (Level.ATTENTION, "The store has nothing of other.db")
    health = judged(GOOD, StoredDatabase("other.db"), incidents=(incident(),))
    assert (health.level, health.title) == (Level.ATTENTION, "Needs attention")
    assert "no restore point of other.db" in health.reason
    assert "app.db: suspicion" in health.reason


def test_the_last_incident_is_told_unless_changes_were_lost() -> None:
    assert "suspicion 1 h ago" in judged(GOOD, incidents=(incident(hours=5), incident(hours=1))).reason
    lost = incident(Kind.DAMAGED, hours=5)
    assert "damaged 5 h ago" in judged(GOOD, incidents=(lost, incident(hours=1))).reason


def test_an_incident_does_not_hide_a_machine_that_was_killed() -> None:
    health = judged(GOOD, holder=KILLED, incidents=(incident(),))
    assert "m1 has not renewed" in health.reason
    assert "suspicion 0 h ago" in health.reason
    assert (health.level, health.since) == (Level.ATTENTION, NOON)


@pytest.mark.parametrize(("holder", "held"), [(RUNNING, True), (STOPPED, False), (KILLED, False)])
def test_only_a_term_that_has_not_ended_is_held(holder: LastHolder, held: bool) -> None:
    assert holder.as_dict() == {"holder": "m1", "held": held, "epoch": 3}
