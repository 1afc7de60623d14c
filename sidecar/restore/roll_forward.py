"""Applies the history of a restore point to its restored file: up to the end of the stream, or to an instant.

The result is a new state, so SQLite checks it again, whatever was checked before. This module looks up the history;
`PointInTime` writes.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from anyio import to_thread

from sidecar.concurrency import gathered
from sidecar.database import IntegrityCheck, YieldToApp
from sidecar.errors import DamagedDatabase, NotFound
from sidecar.host import local_errors
from sidecar.model import AtRestorePoint, Bytes, Origin, Position, RestorePoint
from sidecar.repository import Restored
from sidecar.repository.format.index import position_of
from sidecar.repository.history import Path as History
from sidecar.repository.history import SegmentInfo
from sidecar.repository.increments import Increments
from sidecar.restore.ahead import Ahead
from sidecar.restore.fetching import AHEAD, AT_ONCE
from sidecar.restore.pages import PageImages, opened_pages
from sidecar.restore.point_in_time import PointInTime, needed
from sidecar.restore.reached import Reached, format_reached

# The commit at which the main line left each stream, by stream name: `Catalog.ends`.
Ends = Callable[[], Awaitable[Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class RolledForward:
    """A restored file and how far its history was applied. The check in `restored` is that of the result."""

    restored: Restored
    history: History
    reached: Reached

    @classmethod
    def without_tail(cls, restored: Restored) -> Self:
        """A restore point without its stream."""
        start = restored.contents.index.position or AtRestorePoint(restored.point.key)
        return cls(restored, History(start, (), start), Reached(start))

    def contains(self, position: Position) -> bool:
        """Whether everything up to this position is in the file."""
        return contains(self.history, self.reached, position)


class RollForward:
    """Looks up the histories of restore points, and applies them."""

    def __init__(self, increments: Increments, ends: Ends, checker: IntegrityCheck, integrity: str = "quick") -> None:
        """`integrity` is the mode of SQLite's check of a result: none, quick or full."""
        self._increments = increments
        self._checker = checker
        self._integrity = integrity
        self._ends = ends

    async def look(self, point: RestorePoint, position: Position | None, until: int | None = None) -> History:
        """The history that follows a restore point, which names this position. Takes few requests, however long it is."""
        return await self._increments.look(point.database, point.key, position, await self._ends(), until)

    async def look_ahead(self, point: RestorePoint, until: int | None = None) -> Ahead | None:
        """What follows a restore point by its metadata, for `follow`; None where its metadata is not known."""
        if not point.metadata:
            return None
        position = position_of(point.metadata)
        history = await self.look(point, position, until)
        found: dict[str, Bytes] = {}

        async def fetch(info: SegmentInfo) -> None:
            with suppress(NotFound):  # the replay reports it
                found[info.key] = await self._fetch(info)

        await gathered(_first(needed(history, until)), fetch, at_once=AT_ONCE)
        return Ahead(position, history, found)

    async def follow(
        self, restored: Restored, file: Path, until: int | None = None, ahead: Ahead | None = None
    ) -> RolledForward:
        """Look up the history of a restored file, unless `ahead` has it, and apply it. Raises what `apply` raises."""
        position = restored.contents.index.position
        if ahead is None or ahead.position != position:
            ahead = Ahead(position, await self.look(restored.point, position, until), {})
        return await self.apply(restored, file, ahead.history, until, segments=ahead.segments)

    async def apply(
        self,
        restored: Restored,
        file: Path,
        history: History,
        until: int | None = None,
        yield_to_app: YieldToApp | None = None,
        segments: dict[str, Bytes] | None = None,
    ) -> RolledForward:
        """Apply a history to a restored file, and check the result. `segments` were already fetched; they are consumed.

        Raises `DamagedDatabase` if that cannot be walked although its restore point could, `UnsupportedSegment`, `NoRoom`
        and what the store raises; the file is then unusable.
        """
        if not history.legs:
            return RolledForward(restored, history, Reached(history.start, stopped=history.stopped))
        reached = await self.write(restored, file, history, until, segments)
        if not reached.commits:
            return RolledForward(restored, history, reached)
        report = await self._checker.check(file, self._integrity, yield_to_app)
        if report.unreadable and not restored.check.unreadable:
            raise DamagedDatabase(
                f"{restored.point.key} with {format_reached(reached)} applied is not walkable: {report.unreadable}",
                f"`sidecar restore --key {restored.point.key}` restores only the restore point",
            )
        return RolledForward(replace(restored, check=report), history, reached)

    async def write(
        self,
        restored: Restored,
        file: Path,
        history: History,
        until: int | None = None,
        segments: dict[str, Bytes] | None = None,
    ) -> Reached:
        """Apply a history to a restored file without checking the result. Raises what `apply` raises."""
        if not history.legs:
            return Reached(history.start, stopped=history.stopped)
        fetched = segments or {}

        async def fetch(info: SegmentInfo) -> Bytes:
            return fetched.pop(info.key, None) or await self._fetch(info)

        return await PointInTime(fetch).apply(file, restored.point.database, history, until)

    async def apply_to(self, pages: PageImages, database: str, history: History, until: int | None = None) -> Reached:
        """Apply a history to the pages of a restore point, which need not be here. Raises what `apply` raises."""
        return await PointInTime(self._fetch).apply_to(pages, database, history, until)

    async def images(self, history: History, file: Path) -> AsyncGenerator[Mapping[int, Bytes], None]:
        """The pages that each commit of a history wrote, by their numbers, one segment after the other.

        `file` has the state with which the history starts, and is unusable afterwards. Raises `DamagedSegment`, `NoRoom`.
        """
        with local_errors(file), opened_pages(file) as pages:
            for leg in history.legs:
                for info in leg.segments:
                    for record in (await self._increments.read(info)).records:
                        if leg.after < record.number <= leg.upto:
                            commit = await to_thread.run_sync(record.commit, pages.image)
                            yield commit.images
                            await to_thread.run_sync(pages.add, commit)

    async def _fetch(self, info: SegmentInfo) -> Bytes:
        return (await self._increments.store.get(info.key)).data


def _first(infos: Iterable[SegmentInfo]) -> Iterator[SegmentInfo]:
    """As many of these segments as are fetched ahead."""
    size = 0
    for info in infos:
        size += info.size
        if size > AHEAD:
            return
        yield info


def contains(history: History, reached: Reached, position: Position) -> bool:
    """Whether a history, applied as far as `reached`, includes everything up to this position."""
    end: Origin = reached.position
    if end == history.start and not isinstance(end, Position):
        return False
    for leg in history.legs:
        here = isinstance(end, Position) and end.stream == leg.stream.name
        upto = end.commit if isinstance(end, Position) and here else leg.upto
        if leg.stream.name == position.stream:
            return position.commit <= upto
        if here:
            return False
    return isinstance(end, Position) and end.stream == position.stream and position.commit <= end.commit
