"""`sidecar restore`: bring back a state by hand, onto the database's own path or elsewhere."""

from datetime import UTC, datetime

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode, UsageError
from sidecar.model import Timestamp
from sidecar.progress import progress_bar
from sidecar.restore.by_hand import RestoreResult
from sidecar.restore.reached import End, format_reached
from sidecar.settings import Configuration


async def restore(
    configuration: Configuration,
    *,
    at: str | None,
    key: str | None,
    stream: str | None,
    output: str | None,
    force: bool,
) -> int:
    """Restore each database. An existing file is replaced only with `force`, and kept beside the new one."""
    if sum(each is not None for each in (at, key, stream)) > 1:
        raise UsageError("--at, --key and --stream exclude each other", "give one of them")
    instant = _parse_time(at) if at else None
    async with attended(configuration) as services:
        session = Sidecar(services, progress_bar)
        if len(session.databases) > 1 and (key or stream or output):
            raise UsageError("--key, --stream and --output are for one database", "name it with --database")
        for database in session.databases:
            restored = await session.restore(
                database.name, at=instant, key=key, stream=stream, output=output, force=force
            )
            _report(restored, instant)
    return ExitCode.OK


def _report(result: RestoreResult, at: datetime | None) -> None:
    if result.kept:
        say(f"the database that was there is kept at {result.kept}")
    if result.newer:
        say(
            "note: this is not the newest state; `sidecar backup` makes it the newest, "
            f"else a boot restores {result.newer}"
        )
    reached = result.reached
    if reached.stopped:
        say(f"NOTE: what was written after that is missing: {reached.stopped}; see `sidecar verify --all`")
    if reached.unknown:
        say(f"NOTE: {reached.unknown}")
    elif at and reached.end is End.NEWEST and not reached.stopped and reached.commits:
        say(
            f"note: the store has no later commit before {at:%Y-%m-%dT%H:%M:%S.%fZ}: the stream ended, or this is the newest state"
        )
    with_stream = f" and the commits streamed after it, up to {format_reached(reached)}," if reached.commits else ""
    say(f"{result.point.key}{with_stream} restored to {result.path}")


def _parse_time(text: str) -> datetime:
    try:
        return Timestamp(text).instant
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--at {text!r} is not a time", "write it like 2026-11-20T14:55:00Z or 20261120T145503.123Z"
        ) from None
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
