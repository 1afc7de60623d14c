"""Puts a restored file in place of a database; an existing local database is kept aside, never overwritten."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.database import Lineage, Marker, Snapshotter
from sidecar.errors import ConfigurationError, DamagedDatabase, LocalFailure
from sidecar.host import Entrust, Swap, aside, local_errors, require_unused, swap
from sidecar.log import log
from sidecar.model import Database, Origin, Position, Timestamp
from sidecar.repository import Restored
from sidecar.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Displaced:
    """A local database that gave way: where it is kept, whether it is newer than the restore point, and its origin."""

    kept: Path
    newer: bool
    origin: Marker | None


class Placement:
    """Moves files at a database's path, in an order that survives a crash at any point."""

    def __init__(
        self,
        snapshotter: Snapshotter,
        store: ObjectStore,
        durable: Callable[[Path], bool],
        entrust: Entrust,
        *,
        alone: bool,
    ) -> None:
        """`alone`: no process can have the database open yet, because sidecar starts the app."""
        self._snapshotter = snapshotter
        self._store = store
        self._durable = durable
        self._entrust = entrust
        self.alone = alone

    async def put(
        self, database: Database, lineage: Lineage, restored: Restored, staged: Path, reached: Origin | None = None
    ) -> Displaced | None:
        """Move the local database aside, and the staged file into its place.

        `reached` is the position to which the history was applied. Returns the database that was moved aside, if any. Raises
        `ConfigurationError` or `DatabaseBusy` if it may be in use.
        """
        try:
            with local_errors(database.path):
                return await self._put(database, lineage, restored, staged, reached)
        finally:
            staged.unlink(missing_ok=True)

    async def _put(
        self, database: Database, lineage: Lineage, restored: Restored, staged: Path, reached: Origin | None
    ) -> Displaced | None:
        at = Timestamp.of(await self._store.now())
        newer = self._written(database.path) > restored.point.timestamp.instant.timestamp() + 1
        origin = lineage.elsewhere()
        kept = await self._way_out(database, at)
        # Before the rename, because a crash in between must not turn the restored database into a conflict.
        index = restored.contents.index
        place = reached if isinstance(reached, Position) else None
        mark = partial(lineage.descends, restored.point.key, index.root, restored_to=place, wal_by=index.wal_by)
        entrust = partial(self._entrust, database.path, index.permissions)
        what = Swap(staged, database.path, kept, at, self._durable(database.path), mark, entrust)
        for orphan in await to_thread.run_sync(swap, what):
            log.warning("orphaned WAL or journal kept aside", path=str(orphan))
        return Displaced(kept, newer, origin) if kept else None

    def _written(self, path: Path) -> float:
        """When a local database was last written, in seconds by this machine's clock; 0 if there is none."""
        signature = self._snapshotter.signature(path)
        files = (signature.database, signature.wal) if signature else ()
        return max((each.mtime_ns for each in files if each), default=0) / 1e9

    async def _way_out(self, database: Database, at: Timestamp) -> Path | None:
        """The path to which the local database is moved, after its WAL is folded into it; None if there is none."""
        if self._snapshotter.signature(database.path) is None:
            return None
        if not self.alone:
            raise ConfigurationError(
                f"{database.path} does not descend from the newest restore point, and another container may have it open",
                "stop that one and run `sidecar restore --force`, or keep the local file with on_conflict=local",
            )
        require_unused(database.path)
        try:
            await self._snapshotter.settle(database.path)
        except LocalFailure as error:
            log.warning("unreadable local database kept unchanged", error=error.message)
        except DamagedDatabase as error:
            log.warning("damaged local database kept unchanged", error=error.message)
        return aside(database.path, "diverged", at)
