"""A restore on request: a state chosen by time, key or stream, to the database's own path or elsewhere."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.database import Lineage, Snapshotter, require_own_name
from sidecar.errors import (
    DamagedDatabase,
    LocalFailure,
    SidecarError,
    UsageError,
)
from sidecar.host import Entrust, Swap, aside, local_errors, local_locks, require_unused, require_writable, swap
from sidecar.log import log
from sidecar.model import Database, Position, RestorePoint, Timestamp
from sidecar.repository import Catalog
from sidecar.restore.reached import End, Reached
from sidecar.restore.roll_forward import RolledForward
from sidecar.restore.selection import Selection, Selector


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A database that was restored to `path`.

    `reached` is how far its history was applied to the restore point. `kept` is where the previous database is kept.
    `newer` is the key of the newest restore point if an older state was restored to the database's own path: a boot would
    restore that one.
    """

    database: str
    point: RestorePoint
    path: Path
    reached: Reached
    kept: Path | None = None
    newer: str | None = None


class RestoreByHand:
    """Restores databases one at a time. It never replaces a database that is in use, and keeps what it replaces."""

    def __init__(
        self,
        catalog: Catalog,
        selector: Selector,
        snapshotter: Snapshotter,
        lineage: Callable[[Database], Lineage],
        *,
        durable: Callable[[Path], bool],
        hand_over: Callable[[], object],
        entrust: Entrust,
    ) -> None:
        """`durable` decides whether a path is fsynced, `hand_over` gives the databases to `app_user`.

        `entrust` sets owner and mode of a file that is restored to its database's own path.
        """
        self._catalog = catalog
        self._selector = selector
        self._snapshotter = snapshotter
        self._lineage = lineage
        self._durable = durable
        self._hand_over = hand_over
        self._entrust = entrust

    async def restore(
        self,
        database: Database,
        *,
        at: datetime | None = None,
        key: str | None = None,
        stream: str | None = None,
        output: Path | None = None,
        force: bool = False,
    ) -> RestoreResult:
        """Restore the newest state, the state at `at`, the restore point with this key, or the end of this stream.

        It is written to `output`, by default to the database's own path. An existing file is replaced only with
        `force`, and then kept beside the new one. Raises `NothingToRestore`, `DamagedRestorePoint`, `DamagedDatabase` if SQLite
        cannot walk the result, `DatabaseBusy` if a process has the file open, and `UsageError` if the file exists and
        `force` is not given.
        """
        selection = await self._selector.select(database.name, at, key, stream)
        target = Database(database.name, output or database.path)
        if target.path == database.path:
            with local_locks([database], None, self._catalog.store.url):
                return await self._onto_own_path(database, selection, force=force)
        return await self._elsewhere(target, selection, force=force)

    async def _onto_own_path(self, database: Database, selection: Selection, *, force: bool) -> RestoreResult:
        """Write the marker before the file gets its name, and give the file to the app's user in the end."""
        require_own_name(database.path)
        if self._snapshotter.signature(database.path) is not None:
            _require_force(database.path, force=force)
            require_unused(database.path, own=True)
        self._hand_over()  # fails here rather than after the download
        rolled, kept = await self._replace(database, selection, self._lineage(database), self._entrust)
        self._hand_over()
        point, reached = rolled.restored.point, rolled.reached
        part = (
            reached.end is End.INSTANT
            or selection.history
            or (selection.alone and rolled.restored.contents.index.position)
        )
        newer = await self._newer_than(point, whole=not part)
        return RestoreResult(database.name, point, database.path, reached, kept, newer)

    async def _newer_than(self, point: RestorePoint, *, whole: bool) -> str | None:
        """The key of the newest restore point, if a boot would restore another state. `whole`: all of its history was applied.

        Never raises, because the restore has already succeeded.
        """
        try:
            newest = await self._catalog.newest(point.database)
        except SidecarError as error:
            log.warning("newest restore point not read", database=point.database, error=error.message)
            return None
        return newest.key if newest and (newest.key != point.key or not whole) else None

    async def _elsewhere(self, target: Database, selection: Selection, *, force: bool) -> RestoreResult:
        if target.path.is_dir():
            raise UsageError(f"the output {target.path} is a directory", "name a file")
        if target.path.exists():
            _require_force(target.path, force=force)
            require_unused(target.path, own=True)
        rolled, kept = await self._replace(target, selection)
        return RestoreResult(target.name, rolled.restored.point, target.path, rolled.reached, kept)

    async def _replace(
        self, target: Database, selection: Selection, lineage: Lineage | None = None, entrust: Entrust | None = None
    ) -> tuple[RolledForward, Path | None]:
        """Stage and verify first, then swap. Returns where the old file is kept.

        With `lineage`, the marker is written before the file is renamed. Without `entrust`, the file keeps the owner and
        mode of this process, like a copy made by other tools.
        """
        with local_errors(target.path):
            require_writable(target.path)
            if entrust is None:
                target.path.parent.mkdir(parents=True, exist_ok=True)
            rolled, staged = await self._selector.stage(selection, target)
            try:
                at = Timestamp.of(datetime.now(UTC))
                kept = await self._place_to_keep(target.path, at)
                index, key = rolled.restored.contents.index, rolled.restored.point.key
                place = rolled.reached.position if isinstance(rolled.reached.position, Position) else None
                before = (
                    partial(lineage.descends, key, index.root, by_hand=True, restored_to=place, wal_by=index.wal_by)
                    if lineage
                    else _unmarked
                )
                give = partial(entrust, target.path, index.permissions) if entrust else None
                durable = self._durable(target.path)
                await to_thread.run_sync(swap, Swap(staged, target.path, kept, at, durable, before, give))
                if kept:  # at once: if a later step fails or is interrupted, this would not be reported
                    log.info("replaced database kept", database=target.name, path=str(kept))
            finally:
                staged.unlink(missing_ok=True)
        return rolled, kept

    async def _place_to_keep(self, path: Path, at: Timestamp) -> Path | None:
        """Where the existing database is kept. Checks again that it is unused: an app may have opened it meanwhile."""
        if self._snapshotter.signature(path) is None:
            return None
        require_unused(path, own=True)
        with suppress(DamagedDatabase, LocalFailure):  # it is kept unchanged
            await self._snapshotter.settle(path)
        return aside(path, "replaced", at)


def _unmarked(_file: Path) -> None:
    """Write no marker: a copy elsewhere has no lineage."""


def _require_force(path: Path, *, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{path} exists",
            "`sidecar restore --force` replaces it and keeps the old one beside it, `sidecar restore --output` writes elsewhere",
        )
