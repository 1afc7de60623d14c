"""`sidecar browse`: the page of one database, in a process of its own, for a browser on this machine."""

from datetime import timedelta

from sidecar.cli.log import cache_directory
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.compare.counts import CountsCache
from sidecar.compare.page.serving import serve
from sidecar.errors import ExitCode, UsageError
from sidecar.settings import Configuration
from sidecar.storage import RetryPolicy
from sidecar.timeline import Timeline
from sidecar.units import format_duration, parse_duration

PATIENCE = RetryPolicy(6.0, hard_deadline=True)  # a person waits; the page tries again


async def browse(configuration: Configuration, *, port: int, idle: str) -> int:
    """Serve the page until it was idle for so long, or a signal comes."""
    limit = _idle(idle)
    async with attended(configuration, silence=False) as services:
        if len(services.databases) > 1:
            raise UsageError("the page is of one database", "name it with --database")
        timeline = Timeline(services, services.databases[0], CountsCache(cache_directory()), PATIENCE)

        def announce(link: str) -> None:
            say(f"Open this link in a browser on this machine. It works once: {link}")
            say(f"Ctrl-C ends it, or {format_duration(limit)} in which nobody looks.")

        await serve(timeline, services.driver, services.store.url, port=port, idle=limit, announce=announce)
    return ExitCode.OK


def _idle(text: str) -> timedelta:
    try:
        limit = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle {text!r} is no duration", "write it like 30m or 1h") from error
    if not timedelta(seconds=1) <= limit <= timedelta(days=30):
        raise UsageError(f"--idle {text} is not between 1s and 30d", "write it like 30m or 1h")
    return limit
