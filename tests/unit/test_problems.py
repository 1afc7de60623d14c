"""Which problems stay in sight when there are too many."""

from datetime import timedelta

from sidecar.status.problems import OLD, SHOWN, Kind, Problem, Problems
from tests.fakes import START


def problem(minutes: float, message: str, kind: Kind, database: str = "a.db") -> Problem:
    return Problem(START + timedelta(minutes=minutes), database, message, "", kind)


def words(problems: Problems) -> list[str]:
    return [each.message for each in problems]


def test_a_failure_is_not_pushed_out_by_old_notices() -> None:
    """It is what the page is red for, and its hint says not to destroy the machine."""
    problems = Problems(1)
    for number in range(SHOWN):
        problems.add(problem(number, f"it looks lost {number}", Kind.SUSPICION))
    problems.add(problem(50, "the store is away", Kind.FAILURE))
    for number in range(60, 60 + SHOWN):
        problems.add(problem(number, f"it looks lost again {number}", Kind.SUSPICION))
    assert len(problems) == SHOWN
    assert "the store is away" in words(problems)
    assert words(problems)[-1] == f"it looks lost again {59 + SHOWN}"


def test_of_many_failures_the_last_one_stays() -> None:
    """Suspicions are said once; failures come again while they are true."""
    problems = Problems(1)
    for number in range(SHOWN - 2):
        problems.add(problem(number, f"it looks lost {number}", Kind.SUSPICION))
    for number in range(50, 60):
        problems.add(problem(number, f"failure {number}", Kind.FAILURE))
    assert words(problems) == [*(f"it looks lost {number}" for number in range(SHOWN - 2)), "failure 58", "failure 59"]


def test_what_is_older_than_a_day_goes_first() -> None:
    problems = Problems(1)
    problems.add(problem(0, "old loss", Kind.DAMAGED))
    day = OLD / timedelta(minutes=1)
    for number in range(SHOWN):
        problems.add(problem(day + 1 + number, f"new {number}", Kind.SUSPICION))
    assert words(problems) == [f"new {number}" for number in range(SHOWN)]


def test_one_databases_do_not_push_out_another_s_and_losses_stay_longest() -> None:
    problems = Problems(2)
    problems.add(problem(0, "of b", Kind.GROWTH, "b.db"))
    problems.add(problem(1, "changes were lost", Kind.DAMAGED))
    for number in range(2 * SHOWN):
        problems.add(problem(2 + number, f"it looks lost {number}", Kind.SUSPICION))
    assert words(problems)[:2] == ["of b", "changes were lost"]
    assert len(problems) == SHOWN


def test_said_again_it_is_the_newest_and_there_once() -> None:
    problems = Problems(1)
    problems.add(problem(0, "one", Kind.DRILL))
    problems.add(problem(1, "two", Kind.DRILL))
    problems.add(problem(2, "one", Kind.DRILL))
    assert words(problems) == ["two", "one"]
    problems.remember(problem(1.5, "one", Kind.DRILL))
    assert problems[-1].at == START + timedelta(minutes=2)
    problems.remember(problem(0.5, "before", Kind.DRILL))
    assert words(problems) == ["before", "two", "one"]
