"""The work beside the app: backup loops, drills, and whatever watches. None of it can end the app."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

from anyio.abc import TaskGroup

from sidecar.backup import Backup
from sidecar.log import log
from sidecar.restore import Booted
from sidecar.status import Kind, Status

Work = Callable[[], Awaitable[None]]


class Workers:
    """Starts a backup loop for each database, and `others` beside them."""

    def __init__(self, backups: Sequence[Backup], interval: timedelta, others: Sequence[Work], status: Status) -> None:
        self._backups = backups
        self._interval = interval
        self._others = others
        self._status = status

    def start(self, group: TaskGroup, booted: Sequence[Booted]) -> None:
        """Start all workers. `booted` says for each database whether its first backup is due at once."""
        for backup, how in zip(self._backups, booted, strict=True):
            group.start_soon(self._guarded, partial(backup.run, self._interval, at_once=how.at_once))
        for backup in self._backups:
            group.start_soon(self._guarded, backup.stream)
        for work in self._others:
            group.start_soon(self._guarded, work)

    async def _guarded(self, work: Work) -> None:
        """A bug in a worker ends that worker alone, never the app or the final backup."""
        try:
            await work()
        except Exception as error:
            log.exception(
                "background task failed because of a bug; the app continues, and a final backup will be tried"
            )
            self._status.report("", f"bug: {error!r}", "please report it with the log", Kind.FAILURE)
