"""A start on an empty database: a question where nothing speaks against it, an incident where something does."""

from pathlib import Path

import pytest

from sidecar.database.lineage import Marker
from sidecar.model import Database
from sidecar.restore.boot_report import BootReport
from sidecar.status.model import Event, Status
from sidecar.status.problems import Kind
from tests.fakes import FakeClock

STORE = "s3://bucket/app"


@pytest.fixture
def status() -> Status:
    names = ("app.db", "other.db")
    return Status(tuple(Database(name, Path("/data", name)) for name in names), STORE, "1", FakeClock().now)


@pytest.fixture
def told(status: Status) -> list[Event]:
    events: list[Event] = []
    status.listener = events.append
    return events


@pytest.fixture
def report(status: Status) -> BootReport:
    return BootReport(Database("app.db", Path("/data/app.db")), STORE, status)


@pytest.mark.parametrize("others", [(), ("other.db",)], ids=["empty-store", "our-other-database"])
def test_a_first_start_is_no_incident(
    report: BootReport, status: Status, told: list[Event], others: tuple[str, ...]
) -> None:
    """Nor is one of a database that was added beside another that we protect."""
    report.started_empty(others, (), None)
    assert [(each.kind, each.lasting) for each in status.problems] == [(Kind.FIRST_START, True)]
    assert told == []


@pytest.mark.parametrize(
    ("others", "similar", "left", "says"),
    [
        (("other.db", "apps.db"), (), None, "the store has restore points of apps.db"),
        ((), ("s3://bucket/apps",), None, "restore points of app.db are in s3://bucket/apps"),
        (
            (),
            (),
            Marker("s3://old/app", "app.db/1"),
            "this disk had the database before, with restore points in s3://old/app",
        ),
    ],
    ids=["others", "similar-store", "disk"],
)
def test_evidence_of_a_history_is_an_incident(
    report: BootReport,
    status: Status,
    told: list[Event],
    others: tuple[str, ...],
    similar: tuple[str, ...],
    left: Marker | None,
    says: str,
) -> None:
    """It is told, and stays open until somebody acknowledges it; the hint has the command."""
    report.started_empty(others, similar, left)
    (found,) = status.problems
    assert (found.kind, found.lasting, says in found.message) == (Kind.EMPTY, True, True)
    assert "sidecar ack empty" in found.hint
    assert [each.kind for each in told] == [Kind.EMPTY]


def test_a_database_from_another_store_stays_open(report: BootReport, status: Status) -> None:
    report.from_elsewhere(Marker("s3://old/app", "app.db/1"))
    assert [(each.kind, each.lasting) for each in status.problems] == [(Kind.DIVERGENCE, True)]
