"""What SQLite's check found in a database, for people. Its restore points are whole, and are restored all the same. Pure."""

from collections.abc import Sequence

from sidecar import documentation
from sidecar.status.model import Status
from sidecar.status.problems import Kind, Problem

HINT = f"the app had it so, and its restore points are restored as they are; what to do: {documentation.FINDINGS}"


def record_findings(status: Status, name: str, mode: str, findings: Sequence[str]) -> bool:
    """Record the findings of a check in this mode, and report them to people when they are not those of before.

    While they stay the same the problem that people see is only renewed, unless somebody has acknowledged it. True when
    there is something new to log.
    """
    if mode == "none":
        return False
    database = status.databases[name]
    before = database.findings
    if mode == "quick":  # what it does not look for stays until the next full check
        unseen = (each for each in before if each not in database.quick_findings)
        database.findings = tuple(dict.fromkeys((*findings, *unseen)))
        database.quick_findings = tuple(findings)
    else:
        database.findings = tuple(findings)
        database.quick_findings = tuple(each for each in database.quick_findings if each in findings)
    told = [each for each in status.problems if each.kind is Kind.FINDING and each.database == name]
    is_new = bool(database.findings) and set(database.findings) != set(before)
    if is_new or not database.findings:
        for problem in told:
            status.problems.forget(problem)
    message = format_findings(database.findings)
    if is_new:
        problem = Problem(status.now(), name, message, HINT, Kind.FINDING)
        if status.problems.held is None:
            status.report_problem(problem)
        else:
            status.problems.add(problem)
            status.problems.held.append(problem)
    elif database.findings and told:
        status.problems.add(Problem(status.now(), name, message, HINT, Kind.FINDING))
    return is_new


def format_findings(findings: Sequence[str]) -> str:
    """One line: the first finding, and how many more there are."""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"SQLite's check has a finding: {findings[0]}{more}" if findings else ""
