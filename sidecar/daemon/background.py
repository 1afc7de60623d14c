"""What goes on beside the app, besides backups and drills: looks at what is unprotected, and whether restore points are still there."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import anyio
import structlog

from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.errors import SidecarError
from sidecar.host.memory import return_free_pages
from sidecar.lease.fence import WriterLease

log = structlog.get_logger()

OBSERVE_SECONDS = 1.0


class Watching:
    """Of all databases."""

    def __init__(
        self, backups: Sequence[Backup], fence: WriterLease, tools: Tools, final_backup_timeout: timedelta
    ) -> None:
        self._backups = backups
        self._fence = fence
        self._tools = tools
        self._status = tools.status
        self._limit = final_backup_timeout.total_seconds()

    def observe(self) -> None:
        """Look, by stat alone, what is unprotected. What is wrong with a file the cycle reports."""
        for backup in self._backups:
            with suppress(SidecarError, OSError):
                backup.observe()

    async def keep_observing(self) -> None:
        """Every second: what is unprotected, and whether a final backup would still fit its time.

        What a boot, a publish or a drill left of its memory is given back.
        """
        warned = False
        done: list[tuple[str | None, int]] = []
        while True:
            self.observe()
            if done != (now := [self._done(backup) for backup in self._backups]):
                done = now
                return_free_pages()
            estimate = self._status.final_estimate() or 0.0
            if estimate > self._limit and not warned:
                hint = "raise final_backup_timeout, and the time the platform waits before it kills"
                message = f"a final backup would take {estimate:.0f} s, final_backup_timeout is {self._limit:.0f} s"
                log.warning(message, hint=hint)
                self._status.report("", message, hint)
            warned = estimate > self._limit
            await anyio.sleep(OBSERVE_SECONDS)

    def _done(self, backup: Backup) -> tuple[str | None, int]:
        """Changes with each publish and each drill."""
        return backup.newest_key, sum(self._status.databases[backup.database.name].drills.values())

    async def look_when_doubted(self) -> None:
        """The lease object was deleted, or is out of reach for good: are the restore points still there?"""
        while True:
            await self._fence.until_doubted()
            for backup in self._backups:
                await backup.look()
