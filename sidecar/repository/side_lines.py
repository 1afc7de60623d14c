"""Determines which restore points of a database are off its main line: a machine published them after it was fenced.

The lease shows that of those which are later than what the last boot started from. Of earlier ones the streams show it: most
restore points name a position in a stream, and what later streams continue shows whether the main line went through it.
The main line went past one without a position if the stream of a later term continues something older.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from sidecar.lease import Record
from sidecar.model import Position
from sidecar.repository.format.index import position_of
from sidecar.repository.history import StreamInfo, is_side_line, passing_by
from sidecar.units import whole_number

Streams = Callable[[str], Awaitable[list[StreamInfo]]]
Positions = Callable[[str], AsyncIterator[tuple[str, Position | None]]]


class SideLines:
    """The restore points of one database that are off its main line."""

    def __init__(self, database: str, record: Record | None, streams: Streams, positions: Positions) -> None:
        """`record` is that of the lease, if there is one.

        `streams` lists the streams whose names sort after a name; `positions` the restore points after a key, in order, each
        with its position.
        """
        self._database = database
        self._record = record
        self._ends = record.ends if record else {}
        self._streams = streams
        self._positions = positions
        self._later: list[StreamInfo] = []
        self._listed = ""

    async def has(self, key: str, metadata: Mapping[str, str]) -> bool:
        """Whether the restore point of this key is certainly off the main line. Raises what the store raises.

        Takes two requests for each later stream, once, if the oldest restore point is asked for first.
        """
        epoch, position = whole_number(metadata.get("epoch")), position_of(metadata)
        if self._is_fenced(key, epoch):
            return True
        if position:
            return is_side_line(position, await self._after(position.stream), self._ends)
        return epoch is not None and await self._is_passed(key, epoch)

    def _is_fenced(self, key: str, epoch: int | None) -> bool:
        """Whether a machine published it above the one from which a later term started."""
        named = self._record.latest.get(self._database) if self._record else None
        return bool(named and key > named and is_superseded(epoch, self._record, self._database))

    async def _is_passed(self, key: str, epoch: int) -> bool:
        """The same for one without a position, which is in the stream itself if a later one names a position before its end."""
        name = key.rpartition("/")[2]
        passing = passing_by(name, await self._after(name), self._ends)
        if passing is None or passing.epoch <= epoch or passing.after is None:
            return False
        if not isinstance(passing.after, Position):
            return passing.after.key != key
        async for later, position in self._positions(key):
            if later.rpartition("/")[2] > passing.name:
                break
            if position and position.stream == passing.after.stream and position.commit <= passing.after.commit:
                return False
        return True

    async def _after(self, name: str) -> list[StreamInfo]:
        if not self._listed or name < self._listed:
            self._later, self._listed = await self._streams(name), name
        return [each for each in self._later if each.name > name]


def is_superseded(epoch: int | None, record: Record | None, database: str) -> bool:
    """Whether a later term has started than the one of this epoch."""
    return record is not None and epoch is not None and epoch < record.settled.get(database, 0)
