"""`sidecar browse`: the page of one database, in a process of its own, for a browser on this machine."""

from datetime import timedelta

from sidecar.api import Sidecar
from sidecar.bootstrap import Services
from sidecar.cli.log import cache_directory
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.compare.counts import CountsCache
from sidecar.compare.page.restoring import Confirm, Done
from sidecar.compare.page.serving import serve
from sidecar.errors import ExitCode, UsageError
from sidecar.progress import Show
from sidecar.settings import Configuration
from sidecar.states.bring_back import BroughtBack
from sidecar.states.timeline import Timeline
from sidecar.storage import RetryPolicy
from sidecar.units import format_duration, parse_duration

PATIENCE = RetryPolicy(6.0, hard_deadline=True)  # a person waits; the page tries again


async def browse(configuration: Configuration, *, port: int, idle: str, allow_restore: bool) -> int:
    """Serve the page until it was idle for so long, or a signal comes."""
    limit = _idle(idle)
    async with attended(configuration, silence=False) as services:
        if len(services.databases) > 1:
            raise UsageError("the page is of one database", "name it with --database")
        timeline = Timeline(services, services.databases[0], CountsCache(cache_directory()), PATIENCE)

        def announce(link: str) -> None:
            say(f"Open this link in a browser on this machine. It works once: {link}")
            say(f"It ends with Ctrl-C, or after {format_duration(limit)} without use.")

        returner = _Tables(services) if allow_restore else None
        await serve(timeline, services.driver, services.store.url, returner, port=port, idle=limit, announce=announce)
    return ExitCode.OK


class _Tables:
    """Brings rows back as `sidecar restore --table … --into live` does."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def bring_back(self, table: str, state: str, *, rows: str, show: Show, confirm: Confirm) -> Done:
        """See `Returner`."""
        tables = Sidecar(self._services, show).tables(table, state=state)
        return _done(await tables.bring_back(rows=rows, confirm=confirm))

    async def undo(self, *, show: Show, confirm: Confirm) -> Done:
        """See `Returner`."""
        return _done(await Sidecar(self._services, show).tables().undo(confirm=confirm))


def _done(result: BroughtBack) -> Done:
    if result.saved is None:
        return Done(0)
    return Done(result.preview.rows, str(result.saved), result.restore_point, result.held)


def _idle(text: str) -> timedelta:
    try:
        limit = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle {text!r} is not a duration", "write it like 30m or 1h") from error
    if not timedelta(seconds=1) <= limit <= timedelta(days=30):
        raise UsageError(f"--idle {text} is not between 1s and 30d", "write it like 30m or 1h")
    return limit
