"""The newest state of a database, staged beside it: a restore point and the tail of its history.

A damaged segment costs only what follows it, never the restore point. A result that SQLite cannot walk is kept aside, and
only the restore point is staged.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from sidecar.errors import DamagedDatabase, NoRoom
from sidecar.host import aside, local_errors
from sidecar.model import Bytes, Database, RestorePoint, Timestamp
from sidecar.progress import Progress
from sidecar.repository import Catalog, Reader, Restored
from sidecar.repository.catalog import Streamed
from sidecar.repository.history import Path as History
from sidecar.restore.ahead import stage_ahead
from sidecar.restore.reached import Reached
from sidecar.restore.roll_forward import RolledForward, RollForward


@dataclass(frozen=True, slots=True)
class Rejected:
    """A restored database that could not be walked with the stream's tail applied: where it is kept, unless there was no room, and why."""

    kept: Path | None
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """A database that is staged at `staged`. With `rejected`, it is the restore point without its stream."""

    rolled: RolledForward
    staged: Path
    rejected: Rejected | None = None

    @property
    def restored(self) -> Restored:
        """The restore point; its check is that of the staged file."""
        return self.rolled.restored

    @property
    def reached(self) -> Reached:
        """How far its history was applied."""
        return self.rolled.reached

    @property
    def wanting(self) -> bool:
        """Whether commits are missing from it that are known or must be assumed to exist."""
        return self.rejected is not None or bool(self.reached.stopped)


class Recovery:
    """Stages databases for a boot."""

    def __init__(self, catalog: Catalog, reader: Reader, forward: RollForward) -> None:
        self._catalog = catalog
        self._reader = reader
        self._forward = forward

    async def stage(self, point: RestorePoint, database: Database, progress: Progress | None = None) -> Recovered:
        """Stage a restore point with its stream. Raises `DamagedRestorePoint`, `UnsupportedSegment`, and what the store raises."""
        found = await stage_ahead(self._reader, point, database, progress, self._forward.look_ahead)
        staged = found.path
        try:
            rolled = await self._forward.follow(found.restored, staged, ahead=found.ahead)
        except DamagedDatabase as damage:
            kept, reason = await self._keep_aside(database.path, staged), damage.message
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        else:
            return Recovered(rolled, staged)
        try:
            restored, staged = await self._reader.stage(point, database, progress)
        except NoRoom:  # the store still has what it was made of, and the app needs its database
            await to_thread.run_sync(kept.unlink)
            restored, staged = await self._reader.stage(point, database, progress)
            return Recovered(RolledForward.without_tail(restored), staged, Rejected(None, reason))
        return Recovered(RolledForward.without_tail(restored), staged, Rejected(kept, reason))

    async def stage_alone(self, point: RestorePoint, database: Database) -> Path:
        """Stage a restore point without its stream. Raises `DamagedRestorePoint` and what the store raises."""
        return (await self._reader.stage(point, database))[1]

    def images(self, history: History, file: Path) -> AsyncGenerator[Mapping[int, Bytes], None]:
        """The pages that each commit of a history wrote, by their numbers. Raises `DamagedSegment`.

        `file` has the state with which the history starts, and is unusable afterwards.
        """
        return self._forward.images(history, file)

    async def contains(self, recovered: Recovered, damaged: RestorePoint) -> bool:
        """Whether a state has everything that was in this damaged restore point, if its metadata still shows that."""
        position = await self._catalog.position(damaged)
        return position is not None and recovered.rolled.contains(position)

    async def missing(self, recovered: Recovered, database: str) -> Streamed | None:
        """The last commit that is known to have been stored, if the state lacks it. A later restore point includes it."""
        last = await self._catalog.streamed(database)
        point = recovered.restored.point
        if last is None or point.timestamp.instant.timestamp() * 1e6 >= last.time:
            return None
        return None if recovered.rolled.contains(last.position) else last

    async def _keep_aside(self, path: Path, staged: Path) -> Path:
        at = Timestamp.of(await self._catalog.store.now())
        with local_errors(path):
            return await to_thread.run_sync(_rename, path, staged, at)


def _rename(path: Path, staged: Path, at: Timestamp) -> Path:
    kept = aside(path, "diverged", at)
    staged.rename(kept)
    return kept
