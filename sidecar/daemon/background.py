"""Background tasks beside the app: what is unprotected now, and whether the restore points are still there."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count

import anyio

from sidecar.backup import Backup
from sidecar.errors import SidecarError
from sidecar.host import return_free_pages
from sidecar.lease import WriterLease
from sidecar.log import log
from sidecar.status import Status

OBSERVE_SECONDS = 1.0
RETURN_MEMORY_EVERY = 15  # observations


class Background:
    """Watches all databases, and the store when the lease casts doubt on it."""

    def __init__(
        self, backups: Sequence[Backup], fence: WriterLease, status: Status, final_backup_timeout: timedelta
    ) -> None:
        self._backups = backups
        self._fence = fence
        self._status = status
        self._limit = final_backup_timeout.total_seconds()

    def observe(self) -> None:
        """Note, by stat alone, what is unprotected. Cycles report what is wrong with a file."""
        for backup in self._backups:
            with suppress(SidecarError, OSError):
                backup.cycle.source.observe()

    async def keep_observing(self) -> None:
        """Note every second what is unprotected, and whether a final backup would still fit its time.

        Now and then memory that a boot, a publish, a check or a drill has freed is returned to the system.
        """
        warned = False
        for second in count():
            self.observe()
            if second % RETURN_MEMORY_EVERY == 0:
                return_free_pages()
            estimate = self._status.final_estimate() or 0.0
            if estimate > self._limit and not warned:
                hint = "raise final_backup_timeout, and the time the platform waits before it kills"
                message = f"a final backup would take {estimate:.0f} s, final_backup_timeout is {self._limit:.0f} s"
                log.warning(message, hint=hint)
                self._status.report("", message, hint)
            warned = estimate > self._limit
            await anyio.sleep(OBSERVE_SECONDS)

    async def look_when_doubted(self) -> None:
        """The lease object was deleted, or is out of reach for good: are the restore points still there?"""
        while True:
            await self._fence.until_doubted()
            for backup in self._backups:
                await backup.look()
