"""Finds commits of a fenced machine that reached the store only after our boot had read the streams.

A machine that was suspended, or whose network stalled, may complete a request after another one has taken over. Those
commits are not on the main line, and nothing would report them, because later boots start from newer restore points. So the
streams are checked once more, with the first restore point of a term.
"""

import anyio

from sidecar.database import Lineage
from sidecar.errors import SidecarError
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Origin, Position
from sidecar.repository.history import SideLine, format_side_line
from sidecar.repository.increments import Increments
from sidecar.status import Kind, Status

SECONDS = 10.0  # this may be during the final backup


class LateSegments:
    """Looks once for commits of one database after the end of the history that this term continues."""

    def __init__(self, database: str, increments: Increments, lineage: Lineage, fence: Fence, status: Status) -> None:
        self._database = database
        self._increments = increments
        self._lineage = lineage
        self._fence = fence
        self._status = status
        self._end: Origin | None = None

    def start_from(self, end: Origin | None) -> None:
        """Note that the boot has read the streams up to `end`, which this term continues, if there are any."""
        self._end = end

    async def look(self) -> None:
        """Look for such commits, and report them. Takes one LIST, and one GET for each later stream.

        Never raises: after a failure it is repeated with the next restore point.
        """
        if self._end is None:
            return
        try:
            with anyio.fail_after(SECONDS):
                found = await self._side_lines(self._end)
        except (SidecarError, TimeoutError) as error:
            log.warning("late segments not looked for", database=self._database, error=str(error))
            return
        self._end = None
        for side in found:
            self._report(side)

    async def _side_lines(self, end: Origin) -> list[SideLine]:
        position = end if isinstance(end, Position) else None
        key = "" if isinstance(end, Position) else end.key
        ends = {position.stream: position.commit} if position else {}
        history = await self._increments.look(self._database, key, position, ends)
        return [side for side in history.side_lines if not self._is_known(side)]

    def _is_known(self, side: SideLine) -> bool:
        """Whether the stream is ours, so that our database has its commits, or the boot has reported it."""
        marker, name = self._lineage.read(), side.stream.name
        ours = self._fence.exclusive and side.stream.epoch == self._fence.epoch
        told = any(each.database == self._database and name in each.message for each in self._status.problems)
        return ours or told or (marker is not None and name in marker.streams)

    def _report(self, side: SideLine) -> None:
        message, hint = format_side_line(side)
        self._status.report(self._database, message, hint, Kind.DIVERGENCE)
        log.warning("late segments found", database=self._database, error=message, hint=hint)
