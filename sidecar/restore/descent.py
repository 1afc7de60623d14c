"""Determines whether a local database that descends from the newest restore point has all later commits of the streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from sidecar.database import Driver, Marker
from sidecar.database.wal.remains import log_has
from sidecar.errors import DamagedSegment
from sidecar.model import Bytes, Origin, Position, RestorePoint
from sidecar.repository import Catalog
from sidecar.repository.history import Leg
from sidecar.repository.history import Path as History
from sidecar.repository.increments import Increments
from sidecar.restore.decision import Tail
from sidecar.restore.roll_forward import RollForward

# What SQLite's backup rewrites in page 1 of a copy: format versions, counters, cookies and the library's version.
_REWRITTEN = (range(18, 20), range(24, 28), range(40, 44), range(92, 100))


@dataclass(frozen=True, slots=True)
class Descent:
    """What the streams have that a local database lacks, and where they end; `stopped` is the reason if that is too early."""

    tail: Tail
    end: Origin
    stopped: str = ""


class DescentLook:
    """Examines the streams that follow the newest restore point."""

    def __init__(self, catalog: Catalog, forward: RollForward, increments: Increments, driver: Driver) -> None:
        self._catalog = catalog
        self._forward = forward
        self._increments = increments
        self._driver = driver

    async def look(self, newest: RestorePoint, marker: Marker, database: Path) -> Descent:
        """Compare the streams with a local database whose marker names the newest restore point. Raises what the store raises."""
        history = await self._forward.look(newest, await self._catalog.position(newest))
        beyond = legs_beyond(history, marker)
        proved = bool(beyond) and await self._is_proved(beyond[-1], database)
        return Descent(tail_of(history, marker, proved=proved), history.end, history.stopped)

    async def _is_proved(self, last: Leg, database: Path) -> bool:
        """Whether the local database certainly has everything that was captured from it: its log has the last captured frame.

        That the kernel still runs which wrote it proves nothing: somebody may have removed the log, or cut it.
        """
        try:
            log = (await self._increments.read(last.segments[-1])).header.log
        except DamagedSegment:
            return False
        return log is not None and await to_thread.run_sync(log_has, database, log, self._driver)


def tail_of(history: History, marker: Marker, *, proved: bool) -> Tail:
    """Compare the history after the newest restore point with what the marker says about the local database. Pure.

    `proved`: the local database certainly has everything that was captured from it.
    """
    beyond = legs_beyond(history, marker)
    if not beyond:
        return Tail.INCLUDED
    if any(leg.stream.name not in marker.streams for leg in beyond):
        return Tail.FOREIGN
    return Tail.INCLUDED if proved else Tail.UNPROVED


def legs_beyond(history: History, marker: Marker) -> Sequence[Leg]:
    """The legs of a history that were not applied when the local database was restored. Pure."""
    legs, restored_to = history.legs, marker.restored_to
    if isinstance(restored_to, Position):
        for number, leg in enumerate(legs):
            if leg.stream.name == restored_to.stream:
                return legs[number + 1 :] if leg.upto <= restored_to.commit else legs[number:]
    return legs


def without_rewritten(beginning: Bytes) -> Bytes:
    """The beginning of a database file, with zeros for what SQLite's backup API rewrites in a copy."""
    changed = bytearray(beginning)
    for span in _REWRITTEN:
        changed[span.start : span.stop] = bytes(len(span))
    return changed
