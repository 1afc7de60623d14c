"""SQLite's check, read: which of its words are findings, which mean that a table cannot be read, and what people are told."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.database.findings import KEPT, CheckReport, complaints_of, is_about_content, is_unreadable
from sidecar.model import Database
from sidecar.repository.format.index import Index, decode_index, encode_index
from sidecar.status.findings import digests_of, record_findings
from sidecar.status.model import Event, Status
from sidecar.status.problems import Kind, Problem

# Rows of SQLite 3.40 and 3.53.
ROWS = [
    ("ok", ()),
    ("NULL value in t.b", ("NULL value in t.b",)),
    ("malformed inverted index for FTS5 table main.f", ("malformed inverted index for FTS5 table main.f",)),
    ("*** in database main ***\nPage 3 is never used\nPage 4 is never used", ("Page 3 is never used", "Page 4 is never used")),
    ("*** in database main ***\nFreelist: size is 0 but should be 3", ("Freelist: size is 0 but should be 3",)),
    (b"row 2 missing from index i\xff", ("row 2 missing from index i\ufffd",)),
    (
        "*** in database main ***\nTree 2 page 2: btreeInitPage() returns error code 11",
        ("Tree 2 page 2: btreeInitPage() returns error code 11",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "complaints"), ROWS)
def test_rows_of_a_check(row: str | bytes, complaints: tuple[str, ...]) -> None:
    assert complaints_of([(row,)]) == complaints


def error(message: str, code: int | None) -> Exception:
    made = sqlite3.DatabaseError(message)
    if code is not None:
        made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("message", "code", "about_content", "unreadable"),
    [
        ("database disk image is malformed", 11, True, True),
        ("database disk image is malformed", 11 | (3 << 8), True, True),  # SQLITE_CORRUPT_INDEX
        ("database disk image is malformed", 267, True, False),  # SQLITE_CORRUPT_VTAB: an extension's index
        ("malformed database schema (wide) - too many columns on wide", 1, True, False),
        ('malformed database schema (t) - near ",": syntax error', 11, True, False),
        ("file is not a database", 26, True, True),
        ("no such tokenizer: app_tokens", 1, True, False),
        ("no such collation sequence: app_order", 1, True, False),
        ("no such module: app_module", 1, True, False),
        ("unknown function: app_function()", 1, True, False),
        ("interrupted", 9, False, False),
        ("disk I/O error", 10 | (1 << 8), False, False),
        ("database is locked", 5, False, False),
        ("out of memory", 7, False, False),
        ("unable to open database file", 14, False, False),
        ("database disk image is malformed", None, True, True),  # Python 3.10
        ("interrupted", None, False, False),
        ("database is locked", None, False, False),
        ("disk I/O error", None, False, False),
    ],
)  # fmt: skip
def test_errors_of_a_check(message: str, code: int | None, about_content: bool, unreadable: bool) -> None:
    found = error(message, code)
    assert (is_about_content(found), is_unreadable(found)) == (about_content, unreadable)


def test_report_is_short_and_begins_with_what_cannot_be_read() -> None:
    report = CheckReport.of("full", [f"row {n}\nmissing" for n in range(1000)], "table t cannot be read")
    assert len(report.findings) == KEPT
    assert report.findings[:2] == ("table t cannot be read", "row 0 missing")


def test_restore_point_keeps_its_report() -> None:
    """In its index; a version that does not know the field ignores it."""
    report = CheckReport.of("full", ["row 1 missing from index i"], "table t cannot be read")
    index = Index("app.db", "20261120T145503.123Z", 4096, 10, bytes(32), check=report)
    assert decode_index(encode_index(index), "").check == report
    assert b'"check"' not in encode_index(Index("app.db", "20261120T145503.123Z", 4096, 10, bytes(32)))


@pytest.mark.parametrize("value", [None, 1, [], {}, {"mode": "new"}, {"mode": "quick", "findings": "all"}])
def test_report_of_another_form_counts_as_none(value: object) -> None:
    """A newer version may write something else: then the database is checked again."""
    assert CheckReport.of_json(value) is None


class People:
    """A status, and what people were told about it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.status = Status((Database("app.db", Path("/app.db")),), "", "0", lambda: self.now)
        self.events: list[Event] = []
        self.status.listener = self.events.append

    @property
    def findings(self) -> tuple[str, ...]:
        return self.status.databases["app.db"].findings

    @property
    def shown(self) -> list[datetime]:
        return [each.at for each in self.status.problems if each.kind is Kind.FINDING]

    def check(self, mode: str, *findings: str) -> bool:
        self.now += timedelta(hours=1)
        return record_findings(self.status, "app.db", mode, findings)


def test_people_are_told_once_and_see_it_as_long_as_it_lasts() -> None:
    people = People()
    assert people.check("quick", "a")
    assert not people.check("quick", "a")
    assert (len(people.events), people.shown) == (1, [people.now])
    assert people.check("quick", "a", "b")
    assert [each.message for each in people.events] == [
        "SQLite's check has a finding: a",
        "SQLite's check has a finding: a (and 1 more)",
    ]
    assert not people.check("quick")
    assert (len(people.events), people.shown, people.findings) == (2, [], ())


def test_what_only_a_full_check_finds_stays_until_the_next_one() -> None:
    people = People()
    people.check("quick", "a")
    people.check("full", "a", "index")
    people.check("quick", "a")
    assert set(people.findings) == {"a", "index"}
    people.check("full")
    assert people.findings == ()


def test_acknowledged_finding_is_not_shown_again() -> None:
    people = People()
    people.check("quick", "a")
    people.status.problems.forget(people.status.problems[0])
    assert not people.check("quick", "a")
    assert (people.shown, people.findings) == ([], ("a",))


def test_no_check_tells_nothing() -> None:
    people = People()
    people.check("quick", "a")
    people.check("none")
    assert people.findings == ("a",)


def test_another_set_of_findings_is_another_incident_and_another_order_is_not() -> None:
    """The line that people see may stay the same: it names the first finding and a number."""
    people = People()
    identities = []
    for findings in (("a", "b"), ("b", "a"), ("a", "c"), ("a", "b", "c"), ("a",)):
        people.check("full", *findings)
        (problem,) = people.status.problems
        identities.append(problem.identity)
    assert identities[0] == identities[1]
    assert len(set(identities)) == 4
    assert len(people.events) == 4


def test_finding_of_another_process_goes_with_a_check_that_would_have_seen_it() -> None:
    """A quick check says nothing about what only a full one sees; that it sees less again is no news."""
    people = People()
    thorough = Problem(
        people.now, "app.db", "a (and 1 more)", "", Kind.FINDING, findings=digests_of("ab"), full_check=True
    )
    people.status.problems.add(thorough)
    assert people.check("quick", "a")
    assert [(each.identity, each.at) for each in people.status.problems] == [(thorough.identity, people.now)]
    people.check("quick")
    assert people.shown
    assert people.events == []
    people.check("full")
    assert people.shown == []
