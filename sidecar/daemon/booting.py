"""Every database is booted, one after the other, and its backup learns where to start."""

from collections.abc import Callable, Sequence

from sidecar.backup import Backup, Diverged, DivergedLine, FinalBackup, Start
from sidecar.database import Lineage
from sidecar.host import kept_aside
from sidecar.lease import Fence
from sidecar.model import Database
from sidecar.progress import progress_bar
from sidecar.restore import Boot, Booted
from sidecar.status import Status


class BootSequence:
    """Boots the databases of one machine, and records in the lease what this term starts from."""

    def __init__(
        self,
        boot: Boot,
        backups: Sequence[Backup],
        lineage: Callable[[Database], Lineage],
        final: FinalBackup,
        line: DivergedLine,
        fence: Fence,
        status: Status,
    ) -> None:
        self._boot = boot
        self._backups = backups
        self._lineage = lineage
        self._final = final
        self._line = line
        self._fence = fence
        self._status = status

    async def run(self) -> list[Booted]:
        """Carry out the boot table for each database, in order. Raises what makes a start impossible."""
        booted = [await self._one(backup) for backup in self._backups]
        names = (backup.database.name for backup in self._backups)
        newest = {name: how.newest.key for name, how in zip(names, booted, strict=True) if how.newest}
        await self._fence.record_start(newest, running=True)
        return booted

    async def _one(self, backup: Backup) -> Booted:
        database = backup.database
        with progress_bar(f"restore {database.name}") as progress:
            how = await self._boot.boot(database, self._lineage(database), progress)
        backup.cycle.start_from(Start(how.newest, how.marker, how.restored, how.publish))
        self._final.diverged += [
            Diverged(database, path, at, self._line, self._status) for path, at in kept_aside(database.path, "diverged")
        ]
        return how
