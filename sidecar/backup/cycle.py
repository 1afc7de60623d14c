"""One backup cycle of one database: look, copy, publish; and what is known of the database between two."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio
import structlog

from sidecar.backup.tools import Tools
from sidecar.database.changes import ChangeTracker
from sidecar.database.lineage import Lineage, Marker
from sidecar.errors import (
    DamagedRestorePoint,
    DatabaseMissing,
    PreconditionFailed,
    SidecarError,
    StoreUnavailable,
    Transient,
    UnsupportedRestorePoint,
)
from sidecar.model import Database, RestorePoint, Snapshot, Timestamp
from sidecar.repository.existence import Presence, Sight
from sidecar.repository.expiry import Predecessors
from sidecar.repository.format.index import Index
from sidecar.repository.keys import key_of
from sidecar.repository.reuse import Parent
from sidecar.repository.writer import Published
from sidecar.status.problems import Kind

log = structlog.get_logger()

LAST_LOOK_SECONDS = 10.0
OUTCOMES = ("published", "unchanged")


@dataclass(slots=True)
class Timing:
    """Seconds of a cycle, by phase."""

    clock: Callable[[], float]
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def elapsed(self) -> float:
        return self.clock() - self.started


class Cycle:
    """What one database is protected by, and a cycle of it. Cycles never overlap, and few of all databases run at once (`Tools.turn`)."""

    def __init__(self, database: Database, lineage: Lineage, tools: Tools) -> None:
        self.database = database
        self._lineage = lineage
        self._tools = tools
        self._status = tools.status.databases[database.name]
        self._predecessors = Predecessors(database.name, tools.catalog, tools.status, tools.clock, tools.prunable)
        self._newest: Timestamp | None = None
        self._parent: str | None = None
        self._root: str | None = None
        self._must_publish = False
        self._mine = anyio.Lock()
        self._base: Parent | RestorePoint | None = None
        self._changes = ChangeTracker(self._status)
        self._presence = Presence(
            database.name,
            tools.catalog,
            tools.status,
            tools.clock,
            exclusive=tools.fence.exclusive,
            look_every=tools.look_every,
        )
        self._seen_last: Sight | None = None
        self._inode: int | None = None

    def descends_from(self, key: str, timestamp: Timestamp, root: str | None, *, unchanged: bool) -> None:
        """The local database descends from this restore point; `unchanged` says that it was just restored from it."""
        self._parent, self._newest, self._root = key, timestamp, root
        self._status.restore_point = key
        signature = self._tools.snapshotter.signature(self.database.path)
        self._inode = signature.database.inode if signature else None
        if unchanged:
            self._changes.mark_held(signature, self._tools.clock.now())
            self._presence.confirm()

    def continues(self, newest: RestorePoint, marker: Marker | None) -> None:
        """Go on after this restore point, from which the local database may or may not descend."""
        if marker and marker.names(newest.key):
            root = marker.root if marker.last == newest.key else None
            self.descends_from(newest.key, newest.timestamp, root, unchanged=False)
        self._status.restore_point_size = newest.size
        self._newest = max(newest.timestamp, self._newest or newest.timestamp)
        self._base = self._base or newest
        self._changes.mark_held_at(newest.timestamp.instant)

    def reuses(self, base: Parent) -> None:
        """The next publish may copy from this restore point."""
        self._base = base

    @property
    def alone(self) -> anyio.Lock:
        """To be held by whoever copies this database beside the cycles: a process has one place to stage it."""
        return self._mine

    @property
    def newest_key(self) -> str | None:
        """The key of the restore point that the local database descends from."""
        return self._parent

    def observe(self) -> None:
        """Look, by stat alone, whether the database has changes that no restore point holds, and since when."""
        signature = self._tools.snapshotter.signature(self.database.path)
        if signature is None:
            self._status.size = self._status.wal_size = 0
            return
        self._status.size = signature.database.size
        self._status.wal_size = signature.wal.size if signature.wal else 0
        self._changes.observe(signature, self._tools.clock.now())

    def changed(self) -> bool:
        """Whether the database may have something that no restore point, nor a diverged one, holds."""
        signature = self._tools.snapshotter.signature(self.database.path)
        return signature is not None and self._changes.has_changes(signature)

    def is_gone(self) -> bool:
        """Whether there was a database and there is none any more."""
        with suppress(SidecarError):
            return self._parent is not None and self._tools.snapshotter.signature(self.database.path) is None
        return False

    def kept(self, snapshot: Snapshot) -> None:
        """What this snapshot holds is in the store, if not as a restore point."""
        self._changes.mark_kept(snapshot.signature)

    def must_publish(self) -> None:
        """The next cycle publishes even what seems to be published already."""
        self._must_publish = True

    async def distrust(self, damaged: RestorePoint) -> None:
        """This restore point is damaged: the next cycle publishes, and copies nothing from it or from what copied from it."""
        async with self._mine:
            self._distrust(damaged)

    def _distrust(self, damaged: RestorePoint) -> None:
        self._base = None
        self._must_publish = True
        self._changes.mark_lost(damaged.timestamp.instant)
        self._predecessors.forget(damaged.key)

    def doubt(self) -> None:
        """The next cycle looks whether the newest restore point is still there."""
        self._presence.doubt()

    async def mark(self, key: str, name: str, value: str) -> None:
        """Give a restore point a tag beside those it has; between cycles, because these tag, too. Raises `SidecarError`."""
        async with self._mine:
            await self._predecessors.mark(key, name, value)

    async def cycle(self, *, last: bool = False) -> str:
        """Publish a restore point unless nothing changed. Returns `published`, `unchanged` or `waiting`

        when the app has not created the database yet. The `last` one leaves the tags of what it supersedes to the next
        boot: a shutdown has no time for them.

        Raises `SidecarError` of any kind; the database is then as protected as before.
        """
        async with self._mine:
            self._seen_last = await self._look_once_more() if last else None  # before the turn: all databases at once
            async with self._tools.turn:
                outcome = await self._cycle(last=last)
            if outcome in OUTCOMES and not last:
                await self._predecessors.settle()
            return outcome

    async def _cycle(self, *, last: bool) -> str:
        self._tools.fence.require_held()
        self.observe()
        signature = self._tools.snapshotter.signature(self.database.path)
        if signature is None:
            return self._without_database()
        if not self._changes.has_changes(signature) and await self._is_held(last=last):
            return self._unchanged()
        return await self._snapshot_and_publish(last=last)

    def _unchanged(self) -> str:
        """Said to be protected only when the restore point was seen; a last cycle may have to do without."""
        if self._presence.is_known:
            self._tools.status.succeeded(self.database.name, "unchanged")
        return "unchanged"

    async def _look_once_more(self) -> Sight:
        """The last look of all: the disk may go with the machine."""
        if self._parent is None or self._must_publish:
            return Sight()
        timeout = self._tools.status.final_backup_timeout
        limit = min(LAST_LOOK_SECONDS, timeout.total_seconds() / 4) if timeout else LAST_LOOK_SECONDS
        self.doubt()
        return await self._presence.look(self._parent, self._status.restore_point_size, limit)

    async def _is_held(self, *, last: bool) -> bool:
        """Whether what did not change needs no restore point: there is one, and it is still there.

        Raises `SidecarError` when that cannot be known for long. A store that does not answer is no reason for the `last`
        cycle to fail, if all was well before.
        """
        if self._parent is None or self._must_publish:
            return not self._must_publish
        sight = self._seen_last or await self._presence.look(self._parent, self._status.restore_point_size)
        if sight.lost:
            await self._presence.tell(sight)
            self._distrust(sight.lost)
            return False
        if sight.error:
            well = last and self._status.failing_since is None and isinstance(sight.error, Transient)
            if not well and not self._presence.is_believed(sight.error):
                raise sight.error
        return True

    async def _snapshot_and_publish(self, *, last: bool) -> str:
        timing = Timing(self._tools.clock.monotonic)
        self._changes.begin_copy()
        try:
            async with self._tools.snapshotter.snapshot(self.database.path) as snapshot:
                self._changes.end_copy(snapshot, self._tools.clock.now())
                self._notice_another(snapshot.signature.database.inode)
                index = await self._tools.publisher.index(snapshot, self.database.name)
                if index.root == self._root and await self._is_held(last=last):
                    self._changes.mark_copy_held()
                    self.observe()
                    return self._unchanged()
                uploading = Timing(self._tools.clock.monotonic)
                published = await self._publish(snapshot, index)
                self._tell(snapshot, published, uploading.elapsed(), timing.elapsed())
                self._settle("published")
                return "published"
        finally:
            self._changes.discard_copy()

    def _notice_another(self, inode: int) -> None:
        """An app that has the file before this one open writes to what has no name any more, and no backup sees it."""
        before, self._inode = self._inode, inode
        if before in {None, inode}:
            return
        message = f"{self.database.path} is another file than before: it was deleted and made anew, or replaced, while sidecar ran"
        hint = "if the app was not restarted then, it may still write to the old one, which is in no backup: restart it"
        self._tools.status.report(self.database.name, message, hint, Kind.SUSPICION)
        log.warning(message, database=self.database.name, hint=hint)

    async def _publish(self, snapshot: Snapshot, index: Index) -> Published:
        await self._predecessors.guard(snapshot)
        fence = self._tools.fence
        timestamp = await self._tools.catalog.stamp(self.database.name, await fence.ensure_held(), self._newest)
        key = key_of(self.database.name, timestamp)
        self._newest = timestamp  # whatever becomes of it: its outcome may stay unknown, and the next one is above it
        self._lineage.pending(key)
        named = replace(index, timestamp=str(timestamp), parent=self._parent, epoch=fence.epoch)
        try:
            base = await self._reusable()
            published = await self._tools.publisher.publish(snapshot, named, key, base, fence.ensure_held)
        except PreconditionFailed as error:
            self._newest = None
            raise StoreUnavailable(f"{key} exists already: another machine publishes to this store") from error
        self._base = published.as_parent
        await fence.confirm(self.database.name, key)  # before it is, it may be in nobody's history and protects nothing
        self._presence.confirm()
        self._lineage.descends(key, named.root)
        self._predecessors.superseded_by(published.info, snapshot)
        self._must_publish = False
        self._parent, self._newest, self._root = key, timestamp, named.root
        return published

    async def _reusable(self) -> Parent | None:
        """The restore point to copy from; its index is read once, when this process neither made nor restored it."""
        if isinstance(self._base, RestorePoint):
            try:
                self._base = Parent(*await self._tools.reader.contents(self._base))
            except (DamagedRestorePoint, UnsupportedRestorePoint) as error:
                if isinstance(error, DamagedRestorePoint):
                    hint = "a whole one is published in its place now; `sidecar verify --all` shows which older ones are good"
                    self._tools.status.damaged(self.database.name, error.message, hint)
                log.warning(
                    "the newest restore point cannot be reused", database=self.database.name, error=error.message
                )
                self._base = None
        return self._base

    def _settle(self, outcome: str) -> None:
        """What the snapshot holds is protected now; what was written since is not."""
        self._changes.mark_copy_held()
        self._tools.status.succeeded(self.database.name, outcome)
        self.observe()

    def _tell(self, snapshot: Snapshot, published: Published, upload: float, total: float) -> None:
        seconds = {**snapshot.seconds, "upload": upload}
        for phase, value in seconds.items():
            self._status.phases[phase].observe(value)
        self._status.final_estimate = total
        info, name = published.info, self.database.name
        self._tools.status.published(
            name, info.key, info.size, published.uploaded, published.reused, snapshot.size, seconds
        )
        log.info(
            "restore point published",
            database=name,
            key=info.key,
            database_bytes=snapshot.size,
            object_bytes=info.size,
            uploaded_bytes=published.uploaded,
            reused_bytes=published.reused,
            staged_on_tmpfs=snapshot.on_tmpfs,
            **{f"{phase}_seconds": round(value, 3) for phase, value in seconds.items()},
            seconds=round(total, 3),
        )

    def _without_database(self) -> str:
        """No file, or one of zero bytes: fine as long as there never was one."""
        if self._parent is None:
            if self._status.last_outcome is None:
                hint = "the app may create it later; is `databases` right?"
                log.warning("there is no database yet: nothing is protected", path=str(self.database.path), hint=hint)
                self._tools.status.report(self.database.name, f"{self.database.path} does not exist yet", hint)
            self._status.last_outcome = "waiting"
            return "waiting"
        raise DatabaseMissing(
            f"{self.database.path} is gone or has zero bytes; the newest restore point stays {self._parent}",
            "has the app deleted it? The next start restores it, as `sidecar restore` does while sidecar is stopped; what was "
            "written after that restore point is lost then",
        )
