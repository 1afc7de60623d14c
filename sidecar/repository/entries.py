"""Restore points through which a stream is entered: without them its segments cannot be restored, however long they stay.

A stream whose start is not proved is entered through a restore point that names it. Most restore points expire after two
days, segments after 35: the first one that names such a stream stays longer, because from there all of it is reached.
"""

from sidecar.model import Position
from sidecar.repository.catalog import Catalog
from sidecar.repository.increments import Increments
from sidecar.repository.newest import Superseded


class Entries:
    """The streams of one database that have an entry, as far as this process has seen superseded restore points."""

    def __init__(self, database: str, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog
        self._increments = Increments(catalog.store)
        self._entered: set[str] = set()

    async def is_first(self, superseded: Superseded) -> bool:
        """Whether a stream can be entered here, and through no older restore point and no other stream, as far as is known.

        Restore points are asked about oldest first. Two requests for each stream, and one for each restore point of another
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
