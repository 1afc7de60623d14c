"""A restore that a person asks for: a restore point chosen by time or key, onto the database's own path or elsewhere."""

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
    DamagedRestorePoint,
    LocalFailure,
    NotFound,
    NothingToRestore,
    SidecarError,
    UsageError,
)
from sidecar.host import Entrust, Swap, aside, local_errors, local_locks, require_unused, require_writable, swap
from sidecar.log import log
from sidecar.model import Database, RestorePoint, Timestamp
from sidecar.progress import Show
from sidecar.repository import OTHERS, Catalog, Reader, Restored, format_others, point_of
from sidecar.status import HINT


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A database that was restored to `path`.

    `kept` is where the database that was there before is now. `newer` is the key of the newest restore point when
    another one was restored onto the database's own path: a boot would restore that one.
    """

    database: str
    point: RestorePoint
    path: Path
    kept: Path | None = None
    newer: str | None = None


class RestoreByHand:
    """Restores databases one at a time. It never replaces a database that is in use, and keeps what it replaces."""

    def __init__(
        self,
        catalog: Catalog,
        reader: Reader,
        snapshotter: Snapshotter,
        lineage: Callable[[Database], Lineage],
        *,
        durable: Callable[[Path], bool],
        hand_over: Callable[[], object],
        entrust: Entrust,
        show: Show,
    ) -> None:
        """`durable` decides whether a path is fsynced, `hand_over` gives the databases to `app_user`.

        `entrust` sets owner and mode of a file that is restored onto its database's own path.
        """
        self._catalog = catalog
        self._reader = reader
        self._snapshotter = snapshotter
        self._lineage = lineage
        self._durable = durable
        self._hand_over = hand_over
        self._entrust = entrust
        self._show = show

    async def restore(
        self,
        database: Database,
        *,
        at: Timestamp | None = None,
        key: str | None = None,
        output: Path | None = None,
        force: bool = False,
    ) -> RestoreResult:
        """Restore the newest restore point, the newest at or before `at`, or the one with this key.

        It is written to `output`, by default to the database's own path. An existing file is replaced only with
        `force`, and then kept beside the new one. Raises `NothingToRestore`, `DamagedRestorePoint`, `DatabaseBusy`
        when a process has the file open, and `UsageError` when the file exists and `force` is not given.
        """
        point = await self._choose(database, at, key)
        target = Database(database.name, output or database.path)
        if target.path == database.path:
            with local_locks([database], None, self._catalog.store.url):
                return await self._onto_own_path(database, point, force=force)
        return await self._elsewhere(target, point, force=force)

    async def _choose(self, database: Database, at: Timestamp | None, key: str | None) -> RestorePoint:
        if key:
            return await self._by_key(database, key)
        if at:
            return await self._catalog.find(database.name, at)
        return await self._newest(database)

    async def _newest(self, database: Database) -> RestorePoint:
        newest = await self._catalog.newest(database.name)
        if newest is None:
            others = format_others(await self._catalog.names(OTHERS))
            raise NothingToRestore(
                f"{self._catalog.store.url} has no restore point of {database.name}{others}",
                "check `store` and the database's name",
            )
        if newest.gone:
            left = [point.key async for point in self._catalog.points(database.name) if point.key < newest.key]
            hint = (
                f"`sidecar restore --key {left[-1]}` restores the newest one that is left"
                if left
                else "no older one is left"
            )
            raise DamagedRestorePoint(f"the newest restore point {newest.key} is gone from the store", hint)
        return newest

    async def _by_key(self, database: Database, key: str) -> RestorePoint:
        url = self._catalog.store.url
        key = key.removeprefix(f"{url}/")  # as other tools write it
        try:
            point = point_of(await self._catalog.store.head(key))
        except NotFound:
            raise NothingToRestore(f"{key} does not exist in {url}", "see `sidecar list`") from None
        if point is None or point.database != database.name:
            raise UsageError(
                f"{key} is not a restore point of {database.name}",
                "see `sidecar list`, and name the database of the key",
            )
        return point

    async def _onto_own_path(self, database: Database, point: RestorePoint, *, force: bool) -> RestoreResult:
        """The lineage marker names the restore point before the file has its name; the app's user owns it in the end."""
        require_own_name(database.path)
        if self._snapshotter.signature(database.path) is not None:
            _require_force(database.path, force=force)
            require_unused(database.path, own=True)
        self._hand_over()  # before anything is downloaded in vain
        mark = partial(self._lineage(database).descends, point.key, by_hand=True)
        kept = await self._replace(database, point, mark, self._entrust)
        self._hand_over()
        return RestoreResult(database.name, point, database.path, kept, await self._newer_than(point))

    async def _newer_than(self, point: RestorePoint) -> str | None:
        """The key of the newest restore point, if that is another one. The restore is done, whatever the store answers."""
        try:
            newest = await self._catalog.newest(point.database)
        except SidecarError as error:
            log.warning("newest restore point not read", database=point.database, error=error.message)
            return None
        return newest.key if newest and newest.key != point.key else None

    async def _elsewhere(self, target: Database, point: RestorePoint, *, force: bool) -> RestoreResult:
        if target.path.is_dir():
            raise UsageError(f"the output {target.path} is a directory", "name a file")
        if target.path.exists():
            _require_force(target.path, force=force)
            require_unused(target.path, own=True)
        kept = await self._replace(target, point, lambda _root, _file: None)
        return RestoreResult(target.name, point, target.path, kept)

    async def _replace(
        self,
        target: Database,
        point: RestorePoint,
        mark: Callable[[str, Path], None],
        entrust: Entrust | None = None,
    ) -> Path | None:
        """Download and verify first, then swap; returns where the old file is kept.

        `mark` is called with the root digest and the restored file before that is renamed to its place. Without
        `entrust` the file stays ours, as other tools leave a copy.
        """
        with local_errors(target.path):
            require_writable(target.path)
            if entrust is None:
                target.path.parent.mkdir(parents=True, exist_ok=True)
            restored, staged = await self._stage(target, point)
            try:
                at = Timestamp.of(datetime.now(UTC))
                kept = await self._place_to_keep(target.path, at)
                index = restored.contents.index
                before = partial(mark, index.root)
                give = partial(entrust, target.path, index.permissions) if entrust else None
                durable = self._durable(target.path)
                await to_thread.run_sync(swap, Swap(staged, target.path, kept, at, durable, before, give))
                if kept:  # at once: what comes after it may fail or be interrupted, and nobody would be told
                    log.info("replaced database kept", database=target.name, path=str(kept))
            finally:
                staged.unlink(missing_ok=True)
        return kept

    async def _stage(self, target: Database, point: RestorePoint) -> tuple[Restored, Path]:
        with self._show(f"restore {point.key}") as progress:
            try:
                restored, staged = await self._reader.stage(point, target, progress)
            except DamagedRestorePoint as error:
                hint = error.hint or "restore an older one by its key; `sidecar list` shows them"
                raise DamagedRestorePoint(error.message, hint) from error
        if restored.check.findings:
            findings = list(restored.check.findings)
            log.warning(
                "restored database has findings", database=target.name, key=point.key, findings=findings, hint=HINT
            )
        return restored, staged

    async def _place_to_keep(self, path: Path, at: Timestamp) -> Path | None:
        """Where the database that is there goes. It is checked once more: an app may have opened it meanwhile."""
        if self._snapshotter.signature(path) is None:
            return None
        require_unused(path, own=True)
        with suppress(DamagedDatabase, LocalFailure):  # it is kept as it is
            await self._snapshotter.settle(path)
        return aside(path, "replaced", at)


def _require_force(path: Path, *, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{path} exists", "`force` replaces it and keeps the old one beside it; `output` writes elsewhere"
        )
