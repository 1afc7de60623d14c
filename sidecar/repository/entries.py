"""Restore points that are the only entry to a stream: without them its segments are useless, however long they are kept.

A stream whose start is not proved is entered through a restore point that names it. Most restore points expire soon,
segments late. So the first restore point that names such a stream is kept longer: all of the stream can be
reached from it.
"""

from sidecar.model import Position
from sidecar.repository.catalog import Catalog
from sidecar.repository.increments import Increments
from sidecar.repository.newest import Superseded


class Entries:
    """The streams of one database for which this process has already seen an entry among superseded restore points."""

    def __init__(self, database: str, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog
        self._increments = Increments(catalog.store)
        self._entered: set[str] = set()

    async def is_first(self, superseded: Superseded) -> bool:
        """Whether this restore point is the first known entry to a stream that continues no other stream.

        Call it oldest restore point first. Takes two requests for each stream, and one for each restore point of another
        process. Raises `SidecarError`.
        """
        position = superseded.position if superseded.ours else await self._catalog.position_at(superseded.key)
        if position is None or position.stream in self._entered:
            return False
        first = await self._increments.first_of(self._database, position.stream)
        if first is None:  # nothing to enter yet
            return False
        after = await self._increments.after_of(first)
        self._entered.add(position.stream)
        return not isinstance(after, Position)
