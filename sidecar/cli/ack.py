"""`sidecar ack`: list open incidents, and acknowledge them."""

from collections.abc import Iterator

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode, UsageError
from sidecar.monitoring.acknowledgement import Acknowledged
from sidecar.settings import Configuration
from sidecar.status import Problem, acknowledge_command


async def ack(configuration: Configuration, *, kind: str | None, every: bool, note: str) -> int:
    """Acknowledge incidents of one kind or all; without either list those that are open."""
    if kind and every:
        raise UsageError("KIND and --all exclude each other", "give one of them")
    if note and not (kind or every):
        raise UsageError("--note belongs to an acknowledgement", "give a KIND too, or --all")
    async with attended(configuration) as services:
        session = Sidecar(services)
        done, place = await session.ack(kind, all=every, note=note), session.place
    for line in _acknowledged(done, kind, place) if kind or every else _listed(done, place):
        say(line)
    return ExitCode.OK


def _listed(done: Acknowledged, place: str) -> Iterator[str]:
    if not done.open:
        yield f"no open incidents in {place}"
    for each in done.open:
        yield from _described(each)


def _acknowledged(done: Acknowledged, kind: str | None, place: str) -> Iterator[str]:
    if not done.acknowledged:
        yield f"nothing to acknowledge: no open incident{f' of the kind {kind}' if kind else ''} in {place}"
    for each in done.acknowledged:
        yield f"acknowledged: {each.database}: {each.message}"
    if done.open:
        yield f"{len(done.open)} still open; `sidecar ack` lists them"


def _described(incident: Problem) -> Iterator[str]:
    command = acknowledge_command(incident.kind)
    yield f"{incident.kind}  {incident.at:%Y-%m-%d %H:%M:%S UTC}  {incident.database}: {incident.message}"
    if incident.hint:
        yield f"  {incident.hint}"
    if command not in incident.hint:
        until = "" if incident.lasting else ", else it is closed a day after it arose"
        yield f"  acknowledge it with `{command}`{until}"
