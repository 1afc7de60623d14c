"""The restore points in a store: the newest one, those at a time or in a period, and the timestamp of the next one."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sidecar.errors import (
    ConfigurationError,
    DamagedLease,
    NotFound,
    NothingToRestore,
    UnsupportedLease,
    UnsupportedRestorePoint,
)
from sidecar.lease import KEY as LEASE_KEY
from sidecar.lease import Record, read_lease
from sidecar.log import log
from sidecar.model import ObjectInfo, Position, RestorePoint, Timestamp
from sidecar.repository.format.index import position_of
from sidecar.repository.history import is_beyond_end
from sidecar.repository.increments import WINDOWS, Increments
from sidecar.repository.keys import folder_of, is_point_of_the_future, point_of
from sidecar.repository.places import database_of_slot
from sidecar.repository.side_lines import SideLines, is_superseded
from sidecar.storage import ObjectStore
from sidecar.units import whole_number

OTHERS = 5  # databases to list when the requested one does not exist


def format_others(others: Iterable[str]) -> str:
    """The other databases in a store, for a message about one that was not found: they reveal a misspelt name."""
    names = ", ".join(others)
    return f", only of {names}" if names else ""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A commit that was stored, and its time by the store's clock, in microseconds since the epoch."""

    position: Position
    time: int


class Catalog:
    """The restore points in an object store."""

    def __init__(self, store: ObjectStore, lease_store: ObjectStore | None = None, name: str = "") -> None:
        """If the lease and the notices are in a `lease_store`, `name` is the URL by which the lease there names our store."""
        self.store = store
        self.lease_store = lease_store or store
        self.name = name

    async def newest(self, database: str) -> RestorePoint | None:
        """The newest restore point of the main line, in few requests however long the history is.

        The lease object names it or a recent predecessor, so one LIST of the keys after that and a HEAD suffice.
        Otherwise the keys of the last day are listed, then of longer and longer periods, never all at once. If the named
        one is gone and no newer one exists, a restore point of zero size is returned, which every reader treats as damaged.
        Restore points of a fenced machine, by their epoch or by a position beyond the recorded end of a stream, are skipped.

        Raises `UnsupportedLease` and `UnsupportedRestorePoint`, and `ConfigurationError` if the lease names a key that only a newer version can have
        written: such a store must never be taken for an empty one.
        """
        record = await _record(self)
        named = record.latest.get(database) if record else None
        if record is None or named is None:
            return await self._newest_by_time(database)
        _require_readable(named, database)
        page = await self.store.list(folder_of(database), start_after=named)
        if page.more:  # the named one is old: a machine publishes without the lease (lease=off)
            return await self._newest_by_time(database)
        for point in _known(page.objects, database):
            info = await self._head(point.key)
            if info and _is_main_line(info, record, database):
                return point_of(info)
            log.error("restore point of a fenced machine left out", key=point.key, newest=named)
        return point_of(await self._head(named) or ObjectInfo(named, 0, "", await self.store.now()))

    async def highest_epoch(self, databases: Iterable[str]) -> int:
        """The highest epoch among the newest restore points and streams, for when the lease object is missing."""
        highest = 0
        for database in databases:
            newest = await self._newest_by_time(database)
            info = await self._head(newest.key) if newest else None
            stream = await Increments(self.store).newest(database)
            highest = max(highest, (_epoch_of(info) or 0) if info else 0, stream.epoch if stream else 0)
        return highest

    async def _newest_by_time(self, database: str) -> RestorePoint | None:
        folder, now = folder_of(database), await self.store.now()
        for after in [*(f"{folder}{Timestamp.of(now - window)}" for window in WINDOWS), ""]:
            if points := _known([info async for info in self._objects(folder, after)], database):
                return points[0]
        return None

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self.store.head(key)
        except NotFound:
            return None

    async def position(self, point: RestorePoint) -> Position | None:
        """The position in a stream that a restore point names in its metadata, which works even if its data is damaged."""
        return await self.position_at(point.key)

    async def position_at(self, key: str) -> Position | None:
        """The same by the key of a restore point; None if it is gone."""
        info = await self._head(key)
        return position_of(info.metadata) if info else None

    async def streamed(self, database: str) -> Streamed | None:
        """The last commit that is known to be stored, according to the lease."""
        record = await _record(self)
        stream = record.streams.get(database) if record else None
        if stream is None or stream.stream is None or not stream.commit:
            return None
        return Streamed(Position(stream.stream, stream.commit), stream.time)

    async def ends(self) -> Mapping[str, int]:
        """The commit at which the main line left each stream, by stream name, according to the lease."""
        record = await _record(self)
        return record.ends if record else {}

    async def main_line(self, points: Iterable[RestorePoint]) -> AsyncIterator[RestorePoint]:
        """These restore points of one database without those that a fenced machine made, in order.

        Takes a HEAD for each, and once, for the oldest of them, two requests for each later stream.
        """
        side_lines: SideLines | None = None
        for point in points:
            side_lines = side_lines or await self.side_lines(point.database)
            info = await self._head(point.key)
            if info and await side_lines.has(point.key, info.metadata):
                log.error("restore point of a fenced machine left out", key=point.key)
            else:
                yield point

    async def side_lines(self, database: str) -> SideLines:
        """What tells which restore points of a database are off its main line."""

        async def positions(key: str) -> AsyncIterator[tuple[str, Position | None]]:
            async for point in self._points(folder_of(database), key):
                yield point.key, await self.position(point)

        return SideLines(database, await _record(self), partial(Increments(self.store).streams, database), positions)

    def points(
        self, database: str, *, diverged: bool = False, after: Timestamp | None = None
    ) -> AsyncIterator[RestorePoint]:
        """The restore points of a database, or those later than `after`, oldest first."""
        folder = folder_of(database, diverged=diverged)
        return self._points(folder, f"{folder}{after}" if after else "")

    async def names(self, limit: int) -> tuple[str, ...]:
        """The databases that have restore points, in key order. Takes one request for each, and one more."""
        found: list[str] = []
        after = ""
        while len(found) < limit:
            page = await self.store.list("", start_after=after, limit=1)
            for info in page.objects:
                point = point_of(info)
                if point and not point.diverged_holder:
                    found.append(point.database)
                elif slot_of := database_of_slot(info.key):
                    found.append(slot_of)
                after = f"{info.key.partition('/')[0]}0" if "/" in info.key else info.key  # "0" is next to "/"
            if not page.more:
                break
        return tuple(found)

    async def since(self, database: str, key: str) -> list[RestorePoint]:
        """The restore points after a key, oldest first. Usually a single request."""
        return [point async for point in self._points(folder_of(database), key)]

    async def up_to(self, newest: RestorePoint) -> list[RestorePoint]:
        """The restore points of the day before the newest one, with that one, oldest first. If there is no other one in that
        day, those of a longer period.
        """
        points: list[RestorePoint] = []
        for window in WINDOWS:
            after = f"{folder_of(newest.database)}{Timestamp.of(newest.timestamp.instant - window)}"
            points = [point async for point in self._points(folder_of(newest.database), after)]
            if len(points) > 1:
                break
        return points

    async def find(self, database: str, at: Timestamp) -> RestorePoint:
        """The newest restore point that is not newer than `at`. Raises `NothingToRestore`."""
        points = [point async for point in self.points(database)]
        async for point in self.main_line(point for point in reversed(points) if point.timestamp <= at):
            return point
        nearest = f"; the first one is {points[0].key}" if points else ""
        raise NothingToRestore(f"{database} has no restore point at or before {at}{nearest}", "see `sidecar list`")

    async def first_after(self, database: str, at: Timestamp) -> RestorePoint | None:
        """The oldest restore point of the main line that is newer than `at`."""
        async for point in self.main_line([point async for point in self.points(database, after=at)]):
            return point
        return None

    async def stamp(self, database: str, now: datetime, above: Timestamp | None) -> Timestamp:
        """The timestamp of the next restore point: `now` by the store's clock, and later than all existing ones."""
        if above is None:
            # The newest one by time may be from a fenced machine.
            found = [await self.newest(database), await self._newest_by_time(database)]
            above = max((point.timestamp for point in found if point), default=None)
        stamp = Timestamp.of(now)
        return max(stamp, above.next()) if above else stamp

    async def _points(self, folder: str, after: str) -> AsyncIterator[RestorePoint]:
        async for info in self._objects(folder, after):
            if point := point_of(info):
                yield point

    async def _objects(self, folder: str, after: str) -> AsyncIterator[ObjectInfo]:
        while True:
            page = await self.store.list(folder, start_after=after)
            for info in page.objects:
                yield info
            if not page.more:
                return
            after = page.objects[-1].key


async def _record(catalog: Catalog) -> Record | None:
    try:
        stored = await read_lease(catalog.lease_store, catalog.name)
    except UnsupportedLease:
        raise
    except DamagedLease as error:
        log.warning("lease object ignored", error=error.message)
        return None
    return stored.record if stored else None


def _known(objects: Sequence[ObjectInfo], database: str) -> list[RestorePoint]:
    """The restore points among these objects, newest first.

    Raises `UnsupportedRestorePoint` if a newer version may have written one that is newer than all of them.
    """
    points = [point for point in map(point_of, reversed(objects)) if point]
    for info in objects:
        if is_point_of_the_future(info.key, database) and not (points and points[0].key > info.key):
            raise UnsupportedRestorePoint(
                f"{info.key} is not a restore point of this version of sidecar",
                "a newer version wrote here: use it, or one that is newer still; move the object if it is a copy of yours",
            )
    return points


def _require_readable(key: str, database: str) -> None:
    """Raise `ConfigurationError` unless this is the key of a restore point of the database."""
    point = point_of(ObjectInfo(key, 0, "", datetime.now(UTC)))
    if point is None or point.database != database or point.diverged_holder:
        raise ConfigurationError(
            f"{LEASE_KEY} names {key!r} as the newest restore point of {database}, which this version cannot read",
            "a newer version of sidecar wrote to this store: use that version or a later one",
        )


def _is_main_line(info: ObjectInfo, record: Record, database: str) -> bool:
    """Whether the restore point is not from a fenced machine: its epoch is current, and it is not past its stream's end."""
    fenced = is_superseded(_epoch_of(info), record, database)
    return not fenced and not is_beyond_end(position_of(info.metadata), record.ends)


def _epoch_of(info: ObjectInfo) -> int | None:
    """The epoch in which a restore point was published, or None if it was copied here without its metadata."""
    return whole_number(info.metadata.get("epoch"))
