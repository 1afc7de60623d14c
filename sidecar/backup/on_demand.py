"""Backups that a command requests through the control socket."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio

from sidecar.backup.loop import Backup
from sidecar.errors import ExitCode, SidecarError
from sidecar.progress import Progress, progress_log
from sidecar.status import Status


@contextmanager
def shown_in(status: Status, title: str) -> Iterator[Progress]:
    """Show the progress of a publish in the log, and in the read-model for the command that requested it."""
    with progress_log(title) as log:

        def report(done: int, total: int) -> None:
            log(done, total)
            status.publishing[title] = (done, total)

        try:
            yield report
        finally:
            status.publishing.pop(title, None)


class OnDemand:
    """Runs a cycle for every database, and reports how each ended."""

    def __init__(self, backups: Sequence[Backup], status: Status) -> None:
        self._backups = backups
        self._status = status
        self._under_way: set[anyio.CancelScope] = set()

    async def backup(self) -> dict[str, object]:
        """The result by database name: the outcome, and the restore point, or the error with its hint and exit code."""
        if not self._status.ready:  # before the boot table was carried out, the local files prove nothing
            if self._status.phase == "handed over":
                other = self._status.lease.waiting_for or "another machine"
                return self._refusal(f"this machine has handed over to {other}", f"run the backup on {other}")
            return self._refusal(f"the daemon is {self._status.phase}", "try again later")
        with anyio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                return {backup.database.name: await self._outcome(backup) for backup in self._backups}
            finally:
                self._under_way.discard(scope)
        return self._refusal("the daemon is stopping, with a final backup", "see its log")

    def cancel(self) -> None:
        """Cancel backups in progress: the final backup copies a later state anyway."""
        for scope in self._under_way:
            scope.cancel()

    def _refusal(self, error: str, hint: str) -> dict[str, object]:
        answer = {"outcome": "failed", "error": error, "hint": hint, "exit_code": int(ExitCode.TRY_AGAIN)}
        return {backup.database.name: dict(answer) for backup in self._backups}

    async def _outcome(self, backup: Backup) -> dict[str, object]:
        backup.cycle.coverage.doubt()  # the reply must describe the current state of the store
        failure = await backup.attempt()
        if failure is None:
            database = self._status.databases[backup.database.name]
            return {"outcome": database.last_outcome, "restore_point": database.restore_point}
        known = failure if isinstance(failure, SidecarError) else SidecarError(f"bug: {failure!r}", "see its log")
        return {"outcome": "failed", "error": known.message, "hint": known.hint, "exit_code": int(known.exit_code)}
