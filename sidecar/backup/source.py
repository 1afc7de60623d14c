"""The database to be backed up: whether it exists, whether it changed since the last restore point, and copies of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from sidecar.backup.snapshot_check import SnapshotCheck, Unchecked
from sidecar.backup.stream import Stream
from sidecar.backup.unexplained import unexplained
from sidecar.database import ChangeTracker, CheckReport, Choose, Snapshotter, describe_links
from sidecar.database.wal import CutCause
from sidecar.errors import SidecarError
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Database, Position, RestorePoint, Signature, Snapshot
from sidecar.repository import Index, Parent
from sidecar.status import Kind, Status


class Source:
    """One local database and its changes that are in no restore point."""

    def __init__(
        self,
        database: Database,
        snapshotter: Snapshotter,
        status: Status,
        clock: Clock,
        check: SnapshotCheck | None = None,
        stream: Stream | None = None,
    ) -> None:
        """`check` runs SQLite's check on copies; `stream` publishes the commits in between."""
        self.stream = stream
        self.database = database
        self._check = check
        self.snapshotter = snapshotter
        self._report = status
        self._status = status.databases[database.name]
        self._clock = clock
        self._changes = ChangeTracker(self._status)
        self._inode: int | None = None

    def signature(self) -> Signature | None:
        """The stat signature of the files; None if there is no database, or an empty file."""
        return self.snapshotter.signature(self.database.path)

    def observe(self) -> None:
        """Record, by stat alone, whether the database has changes that are in no restore point, and since when."""
        self._observe_links()
        signature = self.signature()
        if signature is None:
            self._status.size = self._status.wal_size = 0
            return
        self._status.size = signature.database.size
        self._status.wal_size = signature.wal.size if signature.wal else 0
        self._changes.observe(signature, self._clock.now(), self._clock.monotonic())
        if pending := self._status.stream.pending_since:
            self._changes.mark_pending(pending)

    def _observe_links(self) -> None:
        """Report other names of the database: writes under another name use another WAL and cannot be protected."""
        links, name = describe_links(self.database.path), self.database.name
        if links is None:
            self._report.remarks.pop(name, None)
        elif name not in self._report.remarks:
            log.warning("database has other names", database=name, error=links[0], hint=links[1])
            self._report.remarks[name] = links

    def changed_since(self, signature: Signature) -> bool:
        """Whether files with this signature may contain changes that are not in the store."""
        return self._changes.has_changes(signature)

    def changed(self) -> bool:
        """Whether the database may contain changes that are in no restore point, not even a diverged one."""
        signature = self.signature()
        return signature is not None and self.changed_since(signature)

    async def check(self, snapshot: Snapshot, *, last: bool, later: Unchecked | None) -> CheckReport | None:
        """What is known about the content of a copy. Raises `SidecarError` if it must not be published."""
        return await self._check.report(snapshot, last=last, later=later) if self._check else None

    async def check_later(self, snapshot: Snapshot) -> SidecarError | None:
        """See `SnapshotCheck.check_later`."""
        return await self._check.check_later(snapshot) if self._check else None

    async def position(self, snapshot: Snapshot) -> Position | None:
        """The place of a copy in the stream, if it has one. Raises what asking the store raises."""
        return await self.stream.locate(snapshot) if self.stream else None

    def written_past(self, snapshot: Snapshot, before: Parent | RestorePoint | None, now: Index) -> str:
        """What differs in a copy from a restore point although no commit wrote it, if that is known; else empty."""
        followed, chunks = snapshot.followed, list[int]()
        if followed and isinstance(before, Parent):
            chunks = unexplained(before.contents.index, now, followed.wrote)
        chunks = chunks or list(snapshot.written_past)
        if not chunks:
            return ""
        if snapshot.read is None:  # else everything is copied now
            self._status.written_past += len(chunks)
        more = f" and {len(chunks) - 1} more" if len(chunks) > 1 else ""
        return f"MiB {chunks[0]}{more} of the file changed although no commit wrote there: was another file copied over it?"

    def distrust(self, reason: str) -> None:
        """The database was written past its log: what was streamed is not what it was."""
        if self.stream:
            self.stream.distrust(reason, CutCause.REPLACED)

    def entered(self, position: Position | None) -> None:
        """Record that a restore point names this place: a restore goes on from there, or with None from the restore point alone."""
        if self.stream:
            self.stream.entered(position)
            if position is None:
                self._changes.mark_unstreamed()

    def begin(self, *, restored: bool, check: CheckReport | None = None) -> None:
        """Start from the database as it is now.

        `restored`: it was just restored and has no changes of its own; `check` is what is known about it.
        """
        if check and self._check:
            self._check.start_from(check)
        signature = self.signature()
        self._inode = signature.database.inode if signature else None
        if restored:
            self._changes.mark_held(signature, self._clock.now())

    @asynccontextmanager
    async def copy(self, keeper: AsyncExitStack | None = None, choose: Choose | None = None) -> AsyncIterator[Snapshot]:
        """Take a snapshot for a restore point; call `protected` once it is stored. Raises what `Snapshotter.snapshot` raises.

        `choose` may leave out what it knows. It is removed at the end of the block, or if `keeper` is given, when that is closed.
        """
        self._changes.begin_copy()
        if self.stream:
            self.stream.copying()
        try:
            async with AsyncExitStack() as own:
                stack = own if keeper is None else keeper
                snapshot = await stack.enter_async_context(self.snapshotter.snapshot(self.database.path, choose))
                if self.stream:
                    self.stream.copies.place(snapshot.followed)
                self._changes.end_copy(snapshot, self._clock.now())
                self._notice_replaced(snapshot.signature.database.inode)
                yield replace(snapshot, suspicion=self.stream.mixing.suspect()) if self.stream else snapshot
        finally:
            self._changes.discard_copy()
            if self.stream:
                self.stream.copies.place(None)

    def protected(self) -> None:
        """Record that a restore point has the last copy. Changes since the copy are not protected."""
        self._changes.mark_copy_held()
        if self.stream:
            self.stream.mixing.copied()

    def held_at(self, instant: datetime) -> None:
        """Record that there is a restore point from this time, from which the database may descend."""
        self._changes.mark_held_at(instant)

    def streamed(self, looked: float) -> None:
        """A stream that can be restored has everything that was committed by this instant, in monotonic seconds."""
        at = self._clock.now() - timedelta(seconds=self._clock.monotonic() - looked)
        self._changes.mark_streamed(at, looked)

    def kept_aside(self, snapshot: Snapshot) -> None:
        """Record that the store has this snapshot, but not as a restore point of the main line."""
        self._changes.mark_kept(snapshot.signature)

    def unprotected(self, since: datetime) -> None:
        """Record that the restore point from this time is damaged or gone: later changes are not protected."""
        self._changes.mark_lost(since)

    def _notice_replaced(self, inode: int) -> None:
        """Report a file that was replaced: an app may still write to the old file, which is in no backup."""
        before, self._inode = self._inode, inode
        if before in {None, inode}:
            return
        message = f"{self.database.path} is not the same file as before: it was deleted and created again, or replaced, while sidecar ran"
        hint = (
            "if the app was not restarted then, it may still write to the old file, which is in no backup: restart it"
        )
        self._report.report(self.database.name, message, hint, Kind.SUSPICION)
        log.warning("database file replaced", database=self.database.name, error=message, hint=hint)
