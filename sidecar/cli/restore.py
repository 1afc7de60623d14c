"""`sidecar restore`: bring back a restore point by hand, onto the database's own path or elsewhere."""

from datetime import UTC, datetime

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode, UsageError
from sidecar.model import Timestamp
from sidecar.progress import progress_bar
from sidecar.restore.by_hand import RestoreResult
from sidecar.settings import Configuration


async def restore(
    configuration: Configuration, *, at: str | None, key: str | None, output: str | None, force: bool
) -> int:
    """Restore each database. An existing file is replaced only with `force`, and kept beside the new one."""
    if at and key:
        raise UsageError("--at and --key exclude each other", "give one of them")
    instant = _parse_time(at) if at else None
    async with attended(configuration) as services:
        session = Sidecar(services, progress_bar)
        if len(session.databases) > 1 and (key or output):
            raise UsageError("--key and --output are for one database", "name it with --database")
        for database in session.databases:
            _report(await session.restore(database.name, at=instant, key=key, output=output, force=force))
    return ExitCode.OK


def _report(result: RestoreResult) -> None:
    if result.kept:
        say(f"the database that was there is kept at {result.kept}")
    if result.newer:
        say(
            "note: this is not the newest restore point; `sidecar backup` makes it the newest, "
            f"else a boot restores {result.newer}"
        )
    say(f"{result.point.key} restored to {result.path}")


def _parse_time(text: str) -> Timestamp:
    try:
        return Timestamp(text)
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--at {text!r} is not a time", "write it like 2026-11-20T14:55:00Z or 20261120T145503.123Z"
        ) from None
    return Timestamp.of(instant if instant.tzinfo else instant.replace(tzinfo=UTC))
