"""A local database that lost a conflict: kept beside the one that won, and published under `diverged/`."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.errors import (
    DamagedDatabase,
    DamagedRestorePoint,
    NotFound,
    PreconditionFailed,
    SidecarError,
    Transient,
    UnsupportedRestorePoint,
)
from sidecar.host.files import mark_done
from sidecar.model import Database, Timestamp
from sidecar.repository.keys import diverged_key_of, point_of
from sidecar.status.problems import Kind

log = structlog.get_logger()


class Diverged:
    """One of them, to be published once."""

    def __init__(self, database: Database, kept_at: Path, timestamp: Timestamp, holder: str, tools: Tools) -> None:
        self._database = database
        self._kept_at = kept_at
        self._timestamp = timestamp
        self._holder = holder
        self._key = diverged_key_of(database.name, timestamp, holder)
        self._tools = tools
        self._published = False

    async def publish(self) -> bool:
        """Publish it unless that is done. False when it failed, which is logged: the file stays where it is."""
        if self._published:
            return True
        try:
            # A damaged one is noticed here, before SQLite would delete the WAL beside it.
            await self._tools.snapshotter.settle(self._kept_at)
            async with self._tools.turn, self._tools.snapshotter.snapshot(self._kept_at) as snapshot:
                index = await self._tools.publisher.index(snapshot, self._database.name)
                named = replace(index, timestamp=str(self._timestamp), epoch=self._tools.fence.epoch)
                await self._tools.publisher.publish(snapshot, named, self._key)
        except PreconditionFailed:
            whole = await self._is_whole()
            if whole is None:
                return False
            if not whole:
                self._timestamp = self._timestamp.next()
                self._key = diverged_key_of(self._database.name, self._timestamp, self._holder)
                return await self.publish()
            log.info("the diverged database was published before", key=self._key)
        except DamagedDatabase as error:
            hint = f"it is kept as it is at {self._kept_at}"
            self._tools.status.report(
                self._database.name, f"a diverged database is damaged: {error.message}", hint, Kind.DIVERGENCE
            )
            log.error("a damaged diverged database cannot be published", error=error.message, hint=hint)
            self._published = True  # there is no point in trying again
            return True
        except SidecarError as error:
            hint = f"it is kept at {self._kept_at}; {error.hint}"
            self._tools.status.report(
                self._database.name, f"diverged database not published: {error.message}", hint, Kind.DIVERGENCE
            )
            log.error("diverged database not published", key=self._key, error=error.message, hint=hint)
            return False
        except Exception:  # a loop boundary: a bug here must not stop the app
            log.exception("diverged database not published because of a bug", key=self._key, kept_at=str(self._kept_at))
            return False
        self._published = True
        with suppress(OSError):  # at worst it is published once more
            mark_done(self._kept_at)
        log.warning("diverged database published", key=self._key, kept_at=str(self._kept_at))
        return True

    async def _is_whole(self) -> bool | None:
        """Whether what lies under its key can be read: an earlier try may have left a part of it. None: not known now."""
        try:
            point = point_of(await self._tools.catalog.store.head(self._key))
            if point:
                await self._tools.reader.contents(point)
        except (DamagedRestorePoint, NotFound) as error:
            log.warning("what lies under a diverged database's key is not whole", key=self._key, error=error.message)
            return False
        except UnsupportedRestorePoint:
            return True
        except SidecarError as error:
            log.info("it is not known whether a diverged database is whole", key=self._key, error=error.message)
            return None
        return point is not None


class FencedState:
    """The live database of a machine that lost the lease: what no restore point holds is published under `diverged/`."""

    def __init__(self, backup: Backup, holder: str, tools: Tools) -> None:
        self._backup = backup
        self._holder = holder
        self._tools = tools

    async def publish(self) -> bool:
        """Publish what changed since the last restore point, or the last time. False when it failed, which is logged."""
        name = self._backup.database.name
        try:
            if not self._backup.changed():
                return True
            path = self._backup.database.path
            async with self._backup.alone, self._tools.turn, self._tools.snapshotter.snapshot(path) as snapshot:
                index = await self._tools.publisher.index(snapshot, name)
                at = Timestamp.of(await self._tools.catalog.store.now())
                key = diverged_key_of(name, at, self._holder)
                epoch = self._tools.fence.epoch
                named = replace(index, timestamp=str(at), parent=self._backup.newest_key, epoch=epoch)
                await self._tools.publisher.publish(snapshot, named, key)
                self._backup.kept(snapshot)
        except SidecarError as error:
            hint = f"it is kept at {self._backup.database.path}; {error.hint}"
            self._tools.status.report(
                name, f"the state of a fenced machine is not published: {error.message}", hint, Kind.DIVERGENCE
            )
            log.error("fenced database not published", database=name, error=error.message, hint=hint)
            return not isinstance(error, Transient | PreconditionFailed)
        except Exception:  # a loop boundary: a bug with one database must not cost another one its state
            hint = f"do not destroy this machine: only {self._backup.database.path} has it"
            self._tools.status.report(
                name, "the state of a fenced machine is not published, by a bug", hint, Kind.DIVERGENCE
            )
            log.exception("fenced database not published because of a bug", database=name)
            return True
        hint = "`sidecar list --diverged` shows it, `sidecar restore --key` gets it"
        self._tools.status.report(
            name, f"what this machine wrote since its last restore point is kept as {key}", hint, Kind.DIVERGENCE
        )
        log.warning("fenced database published", database=name, key=key, hint=hint)
        return True
