"""One backup cycle of one database: decide whether to publish, copy the database, publish the copy."""

from contextlib import suppress
from dataclasses import replace

import anyio

from sidecar.backup.comparing import Comparing
from sidecar.backup.coverage import Coverage
from sidecar.backup.history import History, Start
from sidecar.backup.in_place import Offer, count_chunks, seconds_to_compare
from sidecar.backup.main_line import MainLine
from sidecar.backup.outcome import CycleOutcome, Timing
from sidecar.backup.snapshot_check import Unchecked
from sidecar.backup.source import Source
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import CheckReport
from sidecar.errors import DatabaseMissing, ReuseFailed, SidecarError
from sidecar.host import Clock
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Database, RestorePoint, Snapshot
from sidecar.repository import Parent, Published, point_of
from sidecar.status import Status

PROTECTED = ("published", "unchanged", "streamed")


class Cycle:
    """Runs backup cycles of one database, which never overlap. `turn` limits the cycles of all databases."""

    def __init__(
        self,
        source: Source,
        history: History,
        coverage: Coverage,
        main_line: MainLine,
        fence: Fence,
        turn: ConcurrencyLimit,
        status: Status,
        clock: Clock,
    ) -> None:
        self.source = source
        self._history = history
        self.coverage = coverage
        self._main_line = main_line
        self._fence = fence
        self._turn = turn
        self._report = status
        self._status = status.databases[source.database.name]
        self._clock = clock
        self._alone = anyio.Lock()
        self._comparing = Comparing(source, status)

    @property
    def database(self) -> Database:
        """The database that is backed up."""
        return self.source.database

    @property
    def alone(self) -> anyio.Lock:
        """Hold this lock to copy the database outside of a cycle: a process can stage only one copy of it."""
        return self._alone

    @property
    def newest_key(self) -> str | None:
        """The key of the restore point that the local database descends from."""
        return self._history.parent

    def start_from(self, start: Start) -> None:
        """Continue from where a boot left off."""
        restored, newest = start.restored, start.newest
        if restored:
            self._history.descend_from(restored.point, restored.contents.index.root)
            self._history.base = Parent(restored.info, restored.contents)
            self._descends(restored=True, check=restored.check)
        self._main_line.start_from(start.end)
        if start.publish:
            self.coverage.demand(start.publish)
        if newest:
            if self._history.follow(newest, None if restored else start.marker):
                self._descends(restored=False)
            self._status.restore_point_size = newest.size
            self.source.held_at(newest.timestamp.instant)

    def _descends(self, *, restored: bool, check: CheckReport | None = None) -> None:
        self._status.restore_point = self._history.parent
        self.source.begin(restored=restored, check=check)
        if restored:
            self.coverage.confirm()

    def is_gone(self) -> bool:
        """Whether the database existed once and is missing now."""
        with suppress(SidecarError):
            return self._history.parent is not None and self.source.signature() is None
        return False

    async def distrust(self, damaged: RestorePoint) -> None:
        """Make the next cycle publish, copying nothing from this damaged restore point or those that copied from it."""
        async with self._alone:
            self.coverage.distrust(damaged)

    async def look(self) -> None:
        """Ask the store now whether the newest restore point still exists. Raises `SidecarError` like a cycle."""
        self.coverage.doubt()
        async with self._alone:
            self._fence.require_held()
            await self.coverage.is_held()

    async def mark(self, key: str, name: str, value: str) -> None:
        """Tag a restore point between cycles, because cycles also set tags. Raises `SidecarError`."""
        async with self._alone:
            await self._main_line.mark(key, name, value)

    async def settle(self) -> None:
        """Tag and prune superseded restore points. Never raises."""
        async with self._alone:
            await self._main_line.settle()

    async def run(self, *, last: bool = False, later: Unchecked | None = None, patient: bool = False) -> str:
        """Publish a restore point unless nothing has changed, or it is `patient` and the stream has what has changed.

        Returns the outcome: one of `PROTECTED`, or `waiting` if the app has not created the database yet. The `last` cycle
        leaves tagging to the next boot, because a shutdown has no time for it. With `later`, the first check of a snapshot may
        be left to the caller, who must close its stack. Raises `SidecarError` of any kind; nothing is less protected then.
        """
        ended, timing = CycleOutcome(), Timing(self._clock.monotonic)
        try:
            async with self._alone:
                if last:  # before the turn, so that all databases do so concurrently
                    await self.coverage.look_last()
                async with self._turn:
                    ended = await self._run(last=last, later=later, patient=patient)
                if ended.name in PROTECTED and not last:
                    await self._main_line.settle()
        except Exception as error:
            reason = error.message if isinstance(error, SidecarError) else "bug"
            ended = CycleOutcome("failed", f"{type(error).__name__}: {reason}")
            raise
        finally:
            log.debug(
                "backup cycle ended",
                database=self.database.name,
                outcome=ended.name,
                reason=ended.reason,
                seconds=round(timing.elapsed(), 3),
            )
        return ended.name

    async def _run(self, *, last: bool, later: Unchecked | None, patient: bool) -> CycleOutcome:
        self._fence.require_held()
        self.source.observe()
        signature = self.source.signature()
        if signature is None:
            return self._without_database()
        reason, offer = "files changed since the last restore point", self._offer(last=last)
        if not self.source.changed_since(signature):
            if not await self.coverage.is_held(last=last):
                reason = self.coverage.missing
            elif await self._agrees(offer, last=last):
                return self._unchanged("files unchanged since the last restore point")
            else:
                reason, offer = "what was taken over unread must be copied", None
        elif patient and await self.coverage.may_wait():
            self._report.succeeded(self.database.name, "streamed")
            return CycleOutcome("streamed", "the stream has all changes, and a restore point is not worth it yet")
        try:
            return await self._publish(reason, offer, last=last, later=later)
        except ReuseFailed as error:
            if offer is None:
                raise
            log.info("restore point begun again with a whole copy", database=self.database.name, reason=error.message)
            return await self._publish(reason, None, offer.differing, last=last, later=later)

    def _offer(self, *, last: bool) -> Offer | None:
        stream = self.source.stream
        trusted = stream and self._status.stream.protects and not stream.mixing.suspicion  # it may be about to be cut
        return self._main_line.offer(self._clock.monotonic(), last=last) if trusted else None

    async def _agrees(self, offer: Offer | None, *, last: bool) -> bool:
        """Whether nothing that the newest restore point took over unread is known to differ from the database.

        The last cycle also wants to know that of all of it, as far as there is time.
        """
        if not self._main_line.in_place.left:
            return True
        if offer is None:
            return not last
        await self._comparing.go_on(offer, last=last)
        self._main_line.in_place.learn(offer)
        return not offer.differing and (not last or not offer.left or offer.late)

    async def has_more(self) -> bool:
        """Whether the database has changes that its newest restore point does not. Raises `SidecarError`.

        Compares stat signatures, and the content only if they differ: a reader that ends may also change them.
        """
        self.source.observe()
        if self.source.signature() is None or self._status.changed_since is None:
            return False
        async with self._alone, self._turn, self.source.copy() as snapshot:
            index = await self._main_line.index(snapshot)
            if index.root != self._history.root:
                return True
            self.source.protected()
            return False

    def _unchanged(self, reason: str) -> CycleOutcome:
        """Counts as a success only if the restore point was seen, which a last cycle may not have been able to do."""
        if self.coverage.is_known:
            self._report.succeeded(self.database.name, "unchanged")
        return CycleOutcome("unchanged", reason)

    async def _publish(
        self, reason: str, offer: Offer | None, past: tuple[int, ...] = (), *, last: bool, later: Unchecked | None
    ) -> CycleOutcome:
        """`past` are chunks of which it is known that they were written past the log. Raises `ReuseFailed` with an offer only."""
        timing = Timing(self._clock.monotonic)
        self.coverage.begin()
        async with self.source.copy(later.stack if later else None, offer.choose if offer else None) as snapshot:
            if offer:
                self._comparing.learn(offer, snapshot)
                offer = offer if snapshot.read is not None else None
            if offer and last:  # nobody can compare it later
                await self._comparing.finish(offer)
            plan = offer.plan if offer else None
            checking = Timing(self._clock.monotonic)
            known = await self.source.check(snapshot, last=last, later=later)
            checked = checking.elapsed()
            position = await self.source.position(snapshot)
            if plan:
                plan.require_same_stream(position)
            index = replace(await self._main_line.index(snapshot, plan), check=known, position=position)
            if index.root == self._history.root:
                if await self.coverage.is_held(last=last):
                    self._main_line.in_place.agrees(offer, self._clock.monotonic())
                    self.source.protected()
                    self.source.observe()
                    return self._unchanged("content unchanged since the last restore point")
                reason = self.coverage.missing
            snapshot = replace(snapshot, written_past=past or snapshot.written_past)
            found = self.source.written_past(snapshot, self._history.base, index)
            if found and offer:  # what is taken over may have been written, too
                raise ReuseFailed(found)
            uploading = Timing(self._clock.monotonic)
            suspected = replace(snapshot, suspicion=found or snapshot.suspicion)
            published = await self._main_line.publish(suspected, index, self._clock.monotonic(), offer)
            if later and later.snapshot:
                later.point = point_of(published.info)
            self.coverage.satisfy()
            self.source.entered(position)
            if found:
                self.source.distrust(found)
            # A final backup makes no long check, but compares what is not read.
            seconds = timing.elapsed() - checked + seconds_to_compare(snapshot)
            self._status.final.took(seconds, snapshot.size, in_place=offer is not None)
            self._status.takes_over = self._main_line.in_place.takes_over(snapshot.size)
            self._log_published(snapshot, published, uploading.elapsed(), timing.elapsed())
            self.source.protected()
            self._report.succeeded(self.database.name, "published")
            self.source.observe()
            return CycleOutcome("published", reason)

    def _log_published(self, snapshot: Snapshot, published: Published, upload: float, total: float) -> None:
        seconds = {**snapshot.seconds, "upload": upload}
        for phase, value in seconds.items():
            self._status.phases[phase].observe(value)
        info, name = published.info, self.database.name
        self._report.published(name, info.key, info.size, published.uploaded, published.reused, snapshot.size, seconds)
        chunks = count_chunks(snapshot)
        self._status.chunks.update(chunks)
        log.info(
            "restore point published",
            database=name,
            key=info.key,
            database_bytes=snapshot.size,
            object_bytes=info.size,
            uploaded_bytes=published.uploaded,
            reused_bytes=published.reused,
            staged_on_tmpfs=snapshot.on_tmpfs,
            chunks_read=chunks["read"],
            chunks_taken_over=chunks["taken_over"],
            **{f"{phase}_seconds": round(value, 3) for phase, value in seconds.items()},
            seconds=round(total, 3),
        )

    def _without_database(self) -> CycleOutcome:
        """Handle a missing or empty file, which is a failure only if the database existed before."""
        if self._history.parent is None:
            if self._status.last_outcome is None:
                hint = "the app may create it later; check `databases`"
                log.warning("database not created yet: nothing is protected", path=str(self.database.path), hint=hint)
                self._report.report(self.database.name, f"{self.database.path} does not exist yet", hint)
            self._status.last_outcome = "waiting"
            return CycleOutcome("waiting", "the app has not created the database yet")
        raise DatabaseMissing(
            f"{self.database.path} is gone or has zero bytes; the newest restore point is still {self._history.parent}",
            "check whether the app deleted it; the next start restores it, as `sidecar restore` does while sidecar is stopped. "
            "Changes after that restore point are then lost",
        )
