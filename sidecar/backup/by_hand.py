"""A backup on request: publishes each database once, and never an unrelated file above the newest restore point."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecar.backup.history import Start
from sidecar.backup.loop import Backup
from sidecar.errors import ConfigurationError, ExitCode, SidecarError
from sidecar.lease import WriterLease
from sidecar.model import Database


class Outcome(StrEnum):
    """How the backup of a database ended. `WAITING` means that there is no database yet, or an empty file."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DatabaseBackup:
    """The outcome for one database, and the key of the restore point with its state, or the error."""

    database: Database
    outcome: Outcome
    restore_point: str | None = None
    error: SidecarError | None = None


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The outcomes for all databases, in the order of the settings."""

    databases: tuple[DatabaseBackup, ...]

    @classmethod
    def of_answer(cls, answer: Mapping[str, Mapping[str, Any]], databases: Sequence[Database]) -> "BackupResult":
        """The result in a daemon's reply about these databases."""
        return cls(tuple(_parse(each, answer[each.name]) for each in databases if each.name in answer))

    def require_success(self) -> None:
        """Raise the first error, or `ConfigurationError` if there was no database at all."""
        for each in self.databases:
            if each.error:
                raise each.error
        if all(each.outcome is Outcome.WAITING for each in self.databases):
            raise no_database(", ".join(str(each.database.path) for each in self.databases))


def no_database(path: str) -> ConfigurationError:
    """The error for a database that does not exist."""
    return ConfigurationError(f"there is no database at {path}, or it has zero bytes", "check `databases`")


async def publish_by_hand(
    backups: Sequence[Backup],
    fence: WriterLease,
    find_start: Callable[[Database], Awaitable[Start]],
    close_incidents: Callable[[str], Awaitable[None]],
) -> BackupResult:
    """Publish each database once, as the holder.

    Raises what `find_start` raises, which it does if a database must not be published. `close_incidents` is called with the
    name of a database whose state was chosen by hand and is now the newest: choosing it has settled its incidents.
    """
    latest, chosen = {}, set()
    for backup in backups:
        start = await find_start(backup.database)
        backup.cycle.start_from(start)
        if start.newest:
            latest[backup.database.name] = start.newest.key
            if start.marker and start.marker.by_hand and start.marker.last != start.newest.key:
                chosen.add(backup.database.name)
    await fence.record_start(latest)
    done = []
    for backup in backups:
        outcome = Outcome(await backup.cycle.run())
        done.append(DatabaseBackup(backup.database, outcome, backup.cycle.newest_key))
        if outcome is Outcome.PUBLISHED and backup.database.name in chosen:
            await close_incidents(backup.database.name)
    return BackupResult(tuple(done))


def _parse(database: Database, answer: Mapping[str, Any]) -> DatabaseBackup:
    error = None
    if answer["outcome"] == Outcome.FAILED:
        code = ExitCode(int(answer["exit_code"]))
        error = SidecarError(f"{database.name}: {answer['error']}", str(answer["hint"]), exit_code=code)
    return DatabaseBackup(database, Outcome(answer["outcome"]), answer.get("restore_point"), error)
