"""`sidecar verify`: prove restore points and streams, the newest or all."""

from sidecar.api import Sidecar
from sidecar.cli.output import Table, complain, say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode
from sidecar.progress import progress_bar
from sidecar.restore.verification import Outcome, VerificationReport, Verified
from sidecar.settings import Configuration
from sidecar.status import format_findings
from sidecar.units import format_size


async def verify(configuration: Configuration, *, every: bool) -> int:
    """Verify the newest restore point of each database, or all.

    With `every`, the segments of all streams are also verified; otherwise the newest restore points with the streams that
    follow them. The exit code is 65 if one is damaged or lost, 78 if one has a newer format, and 66 if there is none.
    """
    async with attended(configuration) as services:
        session = Sidecar(services, progress_bar)
        report, place = await session.verify(all=every), session.place
    verified = {each.point.database for each in report.results}
    if missing := [each.name for each in session.databases if each.name not in verified]:
        complain(f"no restore points of {', '.join(missing)} in {place}: not verified")
    _show(report, as_table=every)
    report.require_good()
    return ExitCode.OK


def _show(report: VerificationReport, *, as_table: bool) -> None:
    if not as_table:
        for result in report.results:
            say(f"{result.point.key}: {_format(result)}")
        return
    table = Table("KEY", "TIME", "SIZE", "RESULT")
    for result in report.results:
        point = result.point
        time = f"{point.timestamp.instant:%Y-%m-%dT%H:%M:%SZ}"
        table.add(point.key, time, format_size(point.size), _format(result))
    table.show(empty="")
    for stream in report.streams:
        say(
            f"stream {stream.name} of {stream.database}, {stream.segments} segments: {'good' if stream.good else 'DAMAGED'}"
        )
        for problem in stream.problems:
            say(f"  {problem}")


def _format(result: Verified) -> str:
    match result.outcome:
        case Outcome.LOST:
            return "GONE: it was the newest, and is not in the store any more"
        case Outcome.GONE:
            return "gone: it expired or was deleted meanwhile"
        case Outcome.UNSUPPORTED:
            return f"NOT VERIFIED: {result.problem}"
        case Outcome.DAMAGED:
            return f"DAMAGED: {result.problem}"
    return f"good; {format_findings(result.findings)}" if result.findings else "good"
