"""The newest restore point of a database, and those that it superseded, from this and other machines."""

from dataclasses import dataclass
from itertools import pairwise

from sidecar.errors import NotFound
from sidecar.model import Position, RestorePoint, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.format.index import position_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.suspicion import Extent


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A restore point and how much its database contains.

    `ours`: this process made it, so it has no tags that this process did not set.
    """

    point: RestorePoint
    extent: Extent
    ours: bool


@dataclass(frozen=True, slots=True)
class Superseded:
    """A restore point that is no longer the newest, with the timestamp of its successor.

    `position` is its position in a stream, known only if it is `ours`.
    """

    key: str
    timestamp: Timestamp
    successor: Timestamp
    ours: bool
    position: Position | None = None


class NewestPoint:
    """The newest restore point of one database, as far as this process knows."""

    def __init__(self, database: str, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog
        self._known: KnownPoint | None = None

    @property
    def known(self) -> KnownPoint | None:
        """The newest restore point as of the last request, without asking the store again."""
        return self._known

    async def find(self) -> KnownPoint | None:
        """The newest restore point: the known one, or else the one in the store."""
        self._known = self._known or await self._look_up()
        return self._known

    async def refresh(self) -> list[Superseded]:
        """Ask the store for newer restore points. Returns the ones that these superseded."""
        if self._known is None:
            self._known = await self._look_up()
            return []
        newer = await self._catalog.since(self._database, self._known.point.key)
        found = await self._look_up() if newer else None
        if found is None or found.point.timestamp <= self._known.point.timestamp:
            return []  # restore points of a fenced machine supersede nothing, although their timestamps are later
        chain = [point for point in newer if point.timestamp <= found.point.timestamp]
        superseded = [_superseded(self._known.point, chain[0], ours=self._known.ours)]
        superseded += [_superseded(older, successor, ours=False) for older, successor in pairwise(chain)]
        self._known = found
        return superseded

    def add(self, published: KnownPoint) -> tuple[KnownPoint, Superseded] | None:
        """Record that a restore point was published. Returns the one that it superseded, or that superseded it."""
        if self._known is None:
            self._known = published
            return None
        older, self._known = sorted((self._known, published), key=lambda each: each.point.timestamp)
        return older, _superseded(older.point, self._known.point, ours=older.ours)

    async def keep(self) -> None:
        """See that no lifecycle rule reaches the newest restore point, where it lies where one does. Raises `SidecarError`."""
        store = self._catalog.store
        if self._known and isinstance(store, PlacedStore):
            await store.keep_newest(self._known.point.key)

    def forget(self, key: str) -> None:
        """Forget a restore point that is damaged or gone: the newest one is looked up again when it is needed."""
        if self._known and self._known.point.key == key:
            self._known = None

    async def _look_up(self) -> KnownPoint | None:
        """The newest restore point that exists: the one that the lease names may have been deleted by hand."""
        newest = await self._catalog.newest(self._database)
        if newest is None:
            return None
        found = await self._described(newest)
        if found is None:
            older = [point for point in await self._catalog.up_to(newest) if point.timestamp < newest.timestamp]
            found = await self._described(older[-1]) if older else None
        return found

    async def _described(self, point: RestorePoint) -> KnownPoint | None:
        try:
            info = await self._catalog.store.head(point.key)
        except NotFound:
            return None
        return KnownPoint(point, Extent.written(info.metadata, info.size), ours=False)


def _superseded(older: RestorePoint, newer: RestorePoint, *, ours: bool) -> Superseded:
    return Superseded(older.key, older.timestamp, newer.timestamp, ours, position_of(older.metadata))
