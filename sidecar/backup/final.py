"""The last state of every database, once the app has stopped; and states that are kept aside, as soon as may be."""

from collections.abc import Sequence

import anyio
import structlog

from sidecar.backup.diverged import Diverged, FencedState
from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.lease.fence import Fence
from sidecar.status.problems import Kind, Problem

log = structlog.get_logger()

DIVERGED_RETRY_SECONDS = 30.0
RETRY_FENCED_SECONDS = 2.0
NOT_KEPT = (
    "another machine took over, and what this one wrote since its last restore point could not be kept under diverged/ in time",
    "do not destroy this machine: only its disk has it",
)
NOT_PUBLISHED = (
    "the app has stopped and its last changes could not be published",
    "do not destroy this machine: only its disk has them, and started again on it sidecar publishes them; the log says why",
)


class Ending:
    """Of all databases. `diverged` are local databases that lost a conflict at a boot."""

    def __init__(self, backups: Sequence[Backup], holder: str, fence: Fence, tools: Tools) -> None:
        self.diverged: list[Diverged] = []
        self.disk_has_more = True  # than the store, until the final backup says otherwise
        self._backups = backups
        self._holder = holder
        self._fence = fence
        self._tools = tools

    async def final_backup(self, timeout: float) -> bool:
        """Back up once more, whatever signals come; False when a database could not be in time.

        When the lease is lost the state goes under `diverged/` instead.
        """
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
            log.error("the final backup did not end in time", final_backup_timeout_seconds=timeout)
            if self._fence.lost.is_set():
                self._tools.status.report("", *NOT_KEPT, Kind.DIVERGENCE)
        every = len(protected) == len(self._backups) + len(self.diverged)
        self.disk_has_more = not every or protected.count(False) > sum(backup.is_gone() for backup in failed)
        return every and all(protected)

    def tell_not_published(self) -> None:
        """To people now; of a database that is gone to those, too, who look after the next start: that brings it back."""
        status = self._tools.status
        message, hint = self.not_published()
        status.report("", message, hint, Kind.FAILURE)
        log.error(message, hint=hint)
        for backup in filter(Backup.is_gone, self._backups):
            message = f"{backup.database.path} was gone when the app had stopped; what was written after {backup.newest_key} is lost"
            hint = "has the app deleted it? Every start brings back the newest restore point"
            status.problems.remember(Problem(status.now(), backup.database.name, message, hint, Kind.DAMAGED))

    def not_published(self) -> tuple[str, str]:
        """When the final backup failed: what is lost and what is not, and what to do."""
        gone = [backup for backup in self._backups if backup.is_gone()]
        if not gone:
            return NOT_PUBLISHED
        what = ", ".join(f"{each.database.path} (newest restore point: {each.newest_key})" for each in gone)
        hint = "has the app deleted it? `sidecar restore`, and every boot, brings back the newest restore point"
        if len(gone) < len(self._backups):
            hint += "; the log says what became of the others"
        return f"the app has stopped, and there is nothing to back up any more at {what}", hint

    async def save_fenced(self) -> None:
        """The lease is lost: publish under `diverged/` what no restore point holds; tried again until it is done."""

        async def save(state: FencedState) -> None:
            while not await state.publish():
                await anyio.sleep(RETRY_FENCED_SECONDS)

        async with anyio.create_task_group() as group:
            for backup in self._backups:
                group.start_soon(save, FencedState(backup, self._holder, self._tools))

    async def keep_saving_fenced(self, interval: float) -> None:
        """An app that goes on without the lease: its state is kept under `diverged/` at every interval."""
        await self._fence.lost.wait()
        while True:
            await self.save_fenced()
            await anyio.sleep(interval)

    async def publish_diverged(self) -> None:
        """Each of `diverged`, once; tried again until it is done."""
        for diverged in self.diverged:
            while not await diverged.publish():
                await anyio.sleep(DIVERGED_RETRY_SECONDS)
