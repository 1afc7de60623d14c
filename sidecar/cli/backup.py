"""`sidecar backup`: publish a restore point now."""

from sidecar.api import Sidecar
from sidecar.backup.by_hand import DatabaseBackup, Outcome
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode
from sidecar.progress import progress_bar
from sidecar.settings import Configuration


async def backup(configuration: Configuration) -> int:
    """Have this machine's daemon back up every database, or publish them without one."""
    async with attended(configuration, as_boot=True) as services:
        result = await Sidecar(services, progress_bar).backup(check=False)
    for each in result.databases:
        say(f"{each.database.name}: {_format(each)}")
    result.require_success()
    return ExitCode.OK


def _format(backup: DatabaseBackup) -> str:
    if backup.outcome is Outcome.FAILED:
        return "failed"
    if backup.outcome is Outcome.WAITING:
        return "nothing to back up: it does not exist yet, or has zero bytes"
    return f"{backup.outcome}: {backup.restore_point}"
