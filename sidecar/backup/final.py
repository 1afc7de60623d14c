"""The final backup of every database after the app has stopped, and states that are kept aside."""

from collections.abc import Sequence

import anyio

from sidecar.backup.diverged import Diverged, DivergedLine, FencedState
from sidecar.backup.loop import Backup
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.status import Kind, Problem, Status
from sidecar.status.documentation import WRITTEN_LATE

DIVERGED_RETRY_SECONDS = 30.0
RETRY_FENCED_SECONDS = 2.0
NOT_KEPT = (
    "another machine took over, and what this one wrote since its last restore point could not be kept under diverged/ in time",
    "do not destroy this machine: only its disk has it",
)
NOT_PUBLISHED = (
    "the app has stopped and its last changes could not be published",
    "do not destroy this machine: only its disk has them. Start sidecar on it again to publish them; the log has the cause",
)
LATE_HINT = (
    "do not destroy this machine: when sidecar is started on it again, it publishes this. Stop every writer before sidecar, "
    f"or have sidecar start it: {WRITTEN_LATE}"
)


class FinalBackup:
    """The last backup of all databases. `diverged` are local databases that lost a conflict at boot."""

    def __init__(self, backups: Sequence[Backup], line: DivergedLine, fence: Fence, status: Status) -> None:
        self.diverged: list[Diverged] = []
        self.disk_has_more = True  # the disk has more than the store, until the final backup proves otherwise
        self.unsettled = False  # whether a segment may still appear in the store
        self._late: list[Backup] = []
        self._backups = backups
        self._fence = fence
        self._status = status
        self._fenced = [FencedState(backup.cycle, line, status) for backup in backups]

    async def run(self, timeout: float) -> bool:
        """Back up once more, regardless of signals. False unless every database is in the store in its current state.

        If the lease is lost, the state is published under `diverged/` instead.
        """
        self._status.final_began = anyio.current_time()
        protected: list[bool] = []
        failed: list[Backup] = []

        async def one(backup: Backup) -> None:
            protected.append(await backup.final())
            if not protected[-1]:
                failed.append(backup)

        with anyio.move_on_after(timeout, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for backup in self._backups:
                    group.start_soon(one, backup)
            if self._fence.lost.is_set():
                await self.save_fenced()
            protected += [await diverged.publish() for diverged in self.diverged]
        if scope.cancelled_caught:
            log.error("final backup timed out", final_backup_timeout_seconds=timeout)
            if self._fence.lost.is_set():
                self._status.report("", *NOT_KEPT, Kind.DIVERGENCE)
        every = len(protected) == len(self._backups) + len(self.diverged)
        self.disk_has_more = not every or protected.count(False) > sum(backup.cycle.is_gone() for backup in failed)
        await self._settle(max(0.0, scope.deadline - anyio.current_time()))
        if not every or not all(protected) or self._fence.lost.is_set():
            return every and all(protected)
        await self._look_again(max(0.0, scope.deadline - anyio.current_time()))
        return not self._late

    async def _settle(self, timeout: float) -> None:
        """Wait for the outcome of the last segments: the lease must not be released before that."""
        streams = [backup.cycle.source.stream for backup in self._backups]
        with anyio.move_on_after(timeout, shield=True):
            async with anyio.create_task_group() as group:
                for stream in streams:
                    if stream:
                        group.start_soon(stream.settle)
        self.unsettled = any(stream.unsettled for stream in streams if stream)
        if self.unsettled:
            log.warning("lease left to its ttl: the outcome of the last segment of a stream is unknown")

    async def _look_again(self, timeout: float) -> None:
        """Find the databases that were written to since the last copy. One that cannot be read in time counts as written to."""

        async def one(backup: Backup) -> None:
            late = True
            with anyio.move_on_after(timeout, shield=True):
                late = await backup.has_more()
            if late:
                self._late.append(backup)

        async with anyio.create_task_group() as group:
            for backup in self._backups:
                group.start_soon(one, backup)
        self.disk_has_more = bool(self._late)

    def report_failure(self) -> None:
        """Report that the final backup failed.

        A missing database is also remembered beyond the next start, which restores it.
        """
        message, hint = self.describe_failure()
        self._status.report("", message, hint, Kind.FAILURE)
        log.error(message, hint=hint)
        for backup in self._gone():
            message = f"{backup.database.path} was gone when the app had stopped; changes after {backup.cycle.newest_key} are lost"
            hint = "check whether the app deleted it; every start restores the newest restore point"
            problem = Problem(self._status.now(), backup.database.name, message, hint, Kind.DAMAGED)
            self._status.problems.remember(problem)

    def describe_failure(self) -> tuple[str, str]:
        """Message and hint for a failed final backup: which changes are lost, and what to do."""
        gone = self._gone()
        if self._late:
            return self._describe_late()
        if not gone:
            return NOT_PUBLISHED
        what = ", ".join(f"{each.database.path} (newest restore point: {each.cycle.newest_key})" for each in gone)
        hint = "check whether the app deleted it; `sidecar restore` and every boot restore the newest restore point"
        if len(gone) < len(self._backups):
            hint += "; the log has the outcome of the others"
        return f"the app has stopped, and there is no longer anything to back up at {what}", hint

    def _describe_late(self) -> tuple[str, str]:
        what = ", ".join(f"{each.database.path} (newest restore point: {each.cycle.newest_key})" for each in self._late)
        return (
            f"a process wrote after the final backup to {what}; only this machine's disk has what it wrote",
            LATE_HINT,
        )

    def _gone(self) -> list[Backup]:
        return [backup for backup in self._backups if backup.cycle.is_gone()]

    async def save_fenced(self) -> None:
        """After the lease is lost, publish under `diverged/` what is in no restore point, retrying until that is done."""
        async with anyio.create_task_group() as group:
            for state in self._fenced:
                group.start_soon(state.publish_until_done, RETRY_FENCED_SECONDS)

    async def keep_saving_fenced(self, interval: float) -> None:
        """While the app continues without the lease, publish its state under `diverged/` at every interval."""
        await self._fence.lost.wait()
        while True:
            await self.save_fenced()
            await anyio.sleep(interval)

    async def publish_diverged(self) -> None:
        """Publish each of `diverged` once, retrying until that is done."""
        for diverged in self.diverged:
            while not await diverged.publish():
                await anyio.sleep(DIVERGED_RETRY_SECONDS)
