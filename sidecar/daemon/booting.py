"""Every database is booted, one after the other, and its backup learns where to start."""

from collections.abc import Callable, Sequence

from sidecar.backup import Backup, Diverged, DivergedLine, FinalBackup, Start
from sidecar.database import Lineage
from sidecar.host import kept_aside
from sidecar.lease import Fence, StreamRecord
from sidecar.model import Database, Position
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
        *,
        alone: bool,
    ) -> None:
        """`alone` says that nobody can have written to a database since it was restored: the app is ours to start."""
        self._alone = alone
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
        pairs = list(zip(self._backups, booted, strict=True))
        newest = {backup.database.name: how.newest.key for backup, how in pairs if how.newest}
        streams = {backup.database.name: await self._begin_stream(backup, how) for backup, how in pairs}
        known = {name: record for name, record in streams.items() if record}
        await self._fence.record_start(newest, known, running=True)
        return booted

    async def _begin_stream(self, backup: Backup, how: Booted) -> StreamRecord | None:
        """What the lease is to say of a database's streams; nothing where there never was one."""
        origin = how.reached.position if how.reached else None
        end = how.continued
        if stream := backup.cycle.source.stream:
            proved = origin if self._alone else None
            return await stream.begin(proved, end, how.newest.timestamp if how.newest else None)
        return StreamRecord(None, end) if isinstance(end, Position) else None

    async def _one(self, backup: Backup) -> Booted:
        database = backup.database
        with progress_bar(f"restore {database.name}") as progress:
            how = await self._boot.boot(database, self._lineage(database), progress)
        backup.cycle.start_from(Start(how.newest, how.marker, how.restored, how.publish, how.continued))
        self._final.diverged += [
            Diverged(database, path, at, self._line, self._status) for path, at in kept_aside(database.path, "diverged")
        ]
        return how
