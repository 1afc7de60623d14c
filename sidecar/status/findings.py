"""What SQLite's check found in a database, for people. Its restore points are whole, and are restored all the same. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from sidecar.status import documentation
from sidecar.status.model import DatabaseStatus, Status
from sidecar.status.problems import Kind, Problem

HINT = f"the app's own database was like this, and its restore points are restored as they are; what to do: {documentation.FINDINGS}"
_HEADING = "SQLite's check has a finding: "
_DIGITS = 16  # of a digest: enough to tell a few findings apart


def record_findings(status: Status, name: str, mode: str, findings: Sequence[str]) -> bool:
    """Record the findings of a check in this mode, and report them to people when they are not those of before.

    While they stay the same the problem that people see is only renewed, unless somebody has acknowledged it. True when
    there is something new to log.
    """
    if mode == "none":
        return False
    database = status.databases[name]
    before = set(database.findings)
    _merge(database, mode, findings)
    shown = [each for each in status.problems if each.kind is Kind.FINDING and each.database == name]
    for problem in shown:
        if is_resolved(database, problem):
            status.problems.forget(problem)
    is_new = bool(database.findings) and set(database.findings) != before
    if database.findings:
        _show(status, database, is_new=is_new)
    return is_new


def _merge(database: DatabaseStatus, mode: str, findings: Sequence[str]) -> None:
    if mode == "quick":  # what it does not look for stays until the next full check
        unseen = (each for each in database.findings if each not in database.quick_findings)
        database.findings = tuple(dict.fromkeys((*findings, *unseen)))
        database.quick_findings = tuple(findings)
        database.checked = database.checked or "quick"
    else:
        database.findings = tuple(findings)
        database.quick_findings = tuple(each for each in database.quick_findings if each in findings)
        database.checked = "full"


def _show(status: Status, database: DatabaseStatus, *, is_new: bool) -> None:
    found = _problem(status, database)
    known = [each for each in status.problems if covers(each, found)]
    if known:  # another process may have seen more, with a full check
        status.problems.add(found if found.identity == known[0].identity else replace(known[0], at=found.at))
    elif is_new and (held := status.problems.held) is not None:
        status.problems.add(found)
        held.append(found)
    elif is_new:
        status.report_problem(found)


def _problem(status: Status, database: DatabaseStatus) -> Problem:
    message, digests = format_findings(database.findings), digests_of(database.findings)
    is_full = not set(database.findings) <= set(database.quick_findings)
    return Problem(status.now(), database.name, message, HINT, Kind.FINDING, findings=digests, full_check=is_full)


def is_resolved(database: DatabaseStatus, problem: Problem) -> bool:
    """Whether a check of this process, as thorough as the one that reported this problem, has found something else, or nothing."""
    if problem.kind is not Kind.FINDING or not database.checked:
        return False
    thorough = database.checked == "full" or not problem.full_check
    return thorough and problem.findings != digests_of(database.findings)


def covers(known: Problem, problem: Problem) -> bool:
    """Whether who knows one problem has nothing new to learn from another: the same, or findings that are all among its own."""
    if known.identity == problem.identity:
        return True
    same = (known.kind, known.database) == (problem.kind, problem.database)
    return same and bool(problem.findings) and problem.findings <= known.findings


def digests_of(findings: Iterable[str]) -> frozenset[str]:
    """What identifies a set of findings, in whichever order a check lists them."""
    return frozenset(sha256(each.encode(errors="surrogatepass")).hexdigest()[:_DIGITS] for each in findings)


def format_findings(findings: Sequence[str]) -> str:
    """One line: the first finding, and how many more there are."""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{_HEADING}{findings[0]}{more}" if findings else ""


def single_finding(message: str) -> str | None:
    """The finding that is the whole of such a line; None for a line about several."""
    is_whole = message.startswith(_HEADING) and not message.endswith(" more)")
    return message.removeprefix(_HEADING) if is_whole else None
