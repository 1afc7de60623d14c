"""States outside the main line: databases that lost a conflict, and what a fenced machine wrote. Published under `diverged/`."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio

from sidecar.backup.cycle import Cycle
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import Snapshotter
from sidecar.errors import (
    DamagedDatabase,
    DamagedRestorePoint,
    NotFound,
    PreconditionFailed,
    SidecarError,
    Transient,
    UnsupportedRestorePoint,
)
from sidecar.host import mark_done
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Database, Snapshot, Timestamp
from sidecar.repository import Catalog, Publisher, Reader, diverged_key_of, point_of
from sidecar.status import Kind, Status


class DivergedLine:
    """Publishes states of this machine that must not become the newest restore point."""

    def __init__(
        self,
        holder: str,
        snapshotter: Snapshotter,
        catalog: Catalog,
        publisher: Publisher,
        reader: Reader,
        fence: Fence,
        turn: ConcurrencyLimit,
    ) -> None:
        self._holder = holder
        self._snapshotter = snapshotter
        self._catalog = catalog
        self._publisher = publisher
        self._reader = reader
        self._fence = fence
        self._turn = turn

    def key(self, database: str, timestamp: Timestamp) -> str:
        """The key of a state of this machine."""
        return diverged_key_of(database, timestamp, self._holder)

    async def now(self) -> Timestamp:
        """The time by the store's clock. Raises `SidecarError`."""
        return Timestamp.of(await self._catalog.store.now())

    async def publish(
        self, database: Database, path: Path, timestamp: Timestamp | None = None, parent: str | None = None
    ) -> tuple[str, Snapshot]:
        """Publish the file at `path`; by default its timestamp is the time after the copy. Returns the key and the snapshot.

        Raises `SidecarError`; `PreconditionFailed` if the key exists.
        """
        async with self._turn, self._snapshotter.snapshot(path) as snapshot:
            index = await self._publisher.index(snapshot, database.name)
            at = timestamp or await self.now()
            key = self.key(database.name, at)
            named = replace(index, timestamp=str(at), parent=parent, epoch=self._fence.epoch)
            await self._publisher.publish(snapshot, named, key)
            return key, snapshot

    async def publish_file(self, database: Database, path: Path, timestamp: Timestamp) -> None:
        """Publish a file that was moved aside. Raises what `publish` raises, and `DamagedDatabase` if it is damaged."""
        # Damage is detected here, before SQLite would delete the WAL beside it.
        await self._snapshotter.settle(path)
        await self.publish(database, path, timestamp)

    async def is_whole(self, key: str) -> bool | None:
        """Whether the object under this key can be read: an earlier attempt may have left part of it. None if unknown."""
        try:
            point = point_of(await self._catalog.store.head(key))
            if point:
                await self._reader.contents(point)
        except (DamagedRestorePoint, NotFound) as error:
            log.warning("diverged database incomplete in the store", key=key, error=error.message)
            return False
        except UnsupportedRestorePoint:
            return True
        except SidecarError as error:
            log.info("diverged database not checked", key=key, error=error.message)
            return None
        return point is not None


class Diverged:
    """A local database that lost a conflict. It is kept beside the winner, and published once."""

    def __init__(
        self, database: Database, kept_at: Path, timestamp: Timestamp, line: DivergedLine, status: Status
    ) -> None:
        self._database = database
        self._kept_at = kept_at
        self._timestamp = timestamp
        self._line = line
        self._status = status
        self._published = False

    @property
    def _key(self) -> str:
        return self._line.key(self._database.name, self._timestamp)

    async def publish(self) -> bool:
        """Publish it unless that was already done. Returns False after a failure, which is logged; the file stays where it is."""
        if self._published:
            return True
        try:
            done = await self._publish()
        except DamagedDatabase as error:
            self._report_damage(error)
            self._published = True  # trying again is pointless
            return True
        except SidecarError as error:
            self._report_failure(error)
            return False
        except Exception:  # a loop boundary: a bug here must not stop the app
            log.exception("diverged database not published because of a bug", key=self._key, kept_at=str(self._kept_at))
            return False
        if not done:
            return False
        self._published = True
        with suppress(OSError):  # at worst it is published again
            mark_done(self._kept_at)
        log.warning("diverged database published", key=self._key, kept_at=str(self._kept_at))
        return True

    async def _publish(self) -> bool:
        """Publish it. Returns False if it is unknown whether an earlier attempt succeeded."""
        while True:
            try:
                await self._line.publish_file(self._database, self._kept_at, self._timestamp)
            except PreconditionFailed:
                whole = await self._line.is_whole(self._key)
                if whole is False:
                    self._timestamp = self._timestamp.next()
                    continue
                if whole:
                    log.info("diverged database found in the store", key=self._key)
                return bool(whole)
            return True

    def _report_damage(self, error: SidecarError) -> None:
        hint = f"it is kept unchanged at {self._kept_at}"
        message = f"a diverged database is damaged: {error.message}"
        self._status.report(self._database.name, message, hint, Kind.DIVERGENCE)
        log.error("damaged diverged database not published", error=error.message, hint=hint)

    def _report_failure(self, error: SidecarError) -> None:
        hint = f"it is kept at {self._kept_at}; {error.hint}"
        message = f"diverged database not published: {error.message}"
        self._status.report(self._database.name, message, hint, Kind.DIVERGENCE)
        log.error("diverged database not published", key=self._key, error=error.message, hint=hint)


class FencedState:
    """The live database of a machine that lost the lease. Changes that are in no restore point go under `diverged/`."""

    def __init__(self, cycle: Cycle, line: DivergedLine, status: Status) -> None:
        self._cycle = cycle
        self._line = line
        self._status = status

    async def publish_until_done(self, pause: float) -> None:
        """Publish what changed, retrying every `pause` seconds as long as that makes sense."""
        while not await self.publish():
            await anyio.sleep(pause)

    async def publish(self) -> bool:
        """Publish what changed since the last restore point or call. Returns False to be retried; failures are logged."""
        database = self._cycle.database
        try:
            if not self._cycle.source.changed():
                return True
            async with self._cycle.alone:
                key, snapshot = await self._line.publish(database, database.path, parent=self._cycle.newest_key)
                self._cycle.source.kept_aside(snapshot)
        except SidecarError as error:
            hint = f"it is kept at {database.path}; {error.hint}"
            self._report(f"the state of a fenced machine is not published: {error.message}", hint)
            log.error("fenced database not published", database=database.name, error=error.message, hint=hint)
            return not isinstance(error, Transient | PreconditionFailed)
        except Exception:  # a loop boundary: a bug with one database must not prevent publishing another one
            self._report(
                "the state of a fenced machine is not published, because of a bug",
                f"do not destroy this machine: only {database.path} has it",
            )
            log.exception("fenced database not published because of a bug", database=database.name)
            return True
        hint = "`sidecar list --diverged` shows it, `sidecar restore --key` restores it"
        self._report(f"what this machine wrote since its last restore point is kept as {key}", hint)
        log.warning("fenced database published", database=database.name, key=key, hint=hint)
        return True

    def _report(self, message: str, hint: str) -> None:
        self._status.report(self._cycle.database.name, message, hint, Kind.DIVERGENCE)
