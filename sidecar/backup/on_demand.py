"""Backups that a command requests through the control socket."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import anyio

from sidecar.backup.confirmations import AGAIN_SECONDS, Confirmed
from sidecar.backup.loop import Backup
from sidecar.concurrency import gathered
from sidecar.errors import ExitCode, NotDurable, SidecarError, Transient, UsageError
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
            return self._refusal(*self._why_not("run the backup on"))
        with anyio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                return {backup.database.name: await self._outcome(backup) for backup in self._backups}
            finally:
                self._under_way.discard(scope)
        return self._refusal("the daemon is stopping, with a final backup", "see its log")

    async def confirm(self, name: str | None, timeout: float) -> dict[str, object]:
        """Wait until everything that was committed before this call is stored: in this database, or in all of them.

        `stored` says whether it is, `seconds` how long that took; if it is not, `error`, `hint`, and `retry_after` in
        seconds, None where asking again does not help. `timeout` is in seconds. Raises `UsageError` for another database.
        """
        began = anyio.current_time()
        chosen = self._named(name)
        try:
            found = await self._all_confirmed(chosen, timeout)
        except SidecarError as error:
            answer: dict[str, object] = {"error": error.message, "hint": error.hint, "retry_after": _retry_after(error)}
        else:
            answer = {"databases": {each: asdict(confirmed) for each, confirmed in found.items()}}
        return {"stored": "databases" in answer, "seconds": round(anyio.current_time() - began, 3), **answer}

    async def _all_confirmed(self, backups: Sequence[Backup], timeout: float) -> dict[str, Confirmed]:
        if not (self._status.ready or self._is_draining()):
            raise NotDurable(*self._why_not("ask"), retry_after=AGAIN_SECONDS)
        with anyio.move_on_after(timeout):
            if len(backups) == 1:  # most daemons have one database, and hundreds may wait for it at once
                return {backups[0].database.name: await _confirmed(backups[0])}
            found = await gathered(backups, _confirmed, at_once=len(backups))
            return {each.database.name: one for each, one in zip(backups, found, strict=True)}
        message = f"not stored within {timeout:g} s: {self._missing(backups)}"
        raise NotDurable(message, "it may be stored later: ask again", retry_after=AGAIN_SECONDS)

    def _is_draining(self) -> bool:
        """Whether an app that is told to stop may still answer requests, which wait for their commits."""
        return self._status.phase == "stopping" and self._status.boot is not None

    def _missing(self, backups: Sequence[Backup]) -> str:
        """What those wait for who wait in vain."""
        if not all(self._status.databases[each.database.name].stream.protects for each in backups):
            return "the restore point that the stream begins with is not published yet"
        trouble = self._status.trouble
        return (
            f"the store has not taken the segment yet{f', and the last request failed: {trouble}' if trouble else ''}"
        )

    def _named(self, name: str | None) -> list[Backup]:
        chosen = [each for each in self._backups if name in {None, each.database.name}]
        if not chosen:
            names = ", ".join(each.database.name for each in self._backups)
            raise UsageError(f"{name} is not one of the databases", f"the databases are: {names}")
        return chosen

    def cancel(self) -> None:
        """Cancel backups in progress: the final backup copies a later state anyway."""
        for scope in self._under_way:
            scope.cancel()

    def _why_not(self, elsewhere: str) -> tuple[str, str]:
        """Why nothing can be asked for before this is ready, or after it has handed over, and what to do."""
        if self._status.phase == "handed over":
            other = self._status.lease.waiting_for or "another machine"
            return f"this machine has handed over to {other}", f"{elsewhere} {other}"
        return f"the daemon is {self._status.phase}", "try again later"

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


async def _confirmed(backup: Backup) -> Confirmed:
    if stream := backup.cycle.source.stream:
        return await stream.confirmations.confirmed()
    raise NotDurable(f"{backup.database.name} is not streamed", "see `sidecar check` and the setting `stream`")


def _retry_after(error: SidecarError) -> float | None:
    if isinstance(error, NotDurable):
        return error.retry_after
    return AGAIN_SECONDS if isinstance(error, Transient) else None
