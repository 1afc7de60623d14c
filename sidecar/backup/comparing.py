"""Compares with the live database what restore points have taken over unread, so that a write past the log is found."""

from math import inf

import anyio

from sidecar.backup.in_place import Offer
from sidecar.backup.source import Source
from sidecar.errors import ReuseFailed
from sidecar.log import log
from sidecar.model import Snapshot
from sidecar.status import Status

SHARE = 0.5  # of the final backup's time: what commits have written must be published in the rest


class Comparing:
    """Compares the chunks of one database. What takes too long is left for the next time."""

    def __init__(self, source: Source, status: Status) -> None:
        self._source = source
        self._report = status
        self._status = status.databases[source.database.name]

    def learn(self, offer: Offer, snapshot: Snapshot) -> None:
        """Record what was compared during a copy."""
        self._learn(offer, snapshot.compared, snapshot.written_past)

    async def go_on(self, offer: Offer, *, last: bool) -> None:
        """Compare some more of what is left; at the `last` time all of it, in a share of the time that all final backups have.

        Raises as `Snapshotter.compare`.
        """
        source, until = self._source, self._until() if last else inf
        with anyio.CancelScope(deadline=until):
            while offer.left and not offer.differing and anyio.current_time() < until:
                found = await source.snapshotter.compare(source.database.path, offer.choose_some)
                if found is None:
                    return
                self._learn(offer, found.compared, found.differing)
                if not last:
                    return
        if offer.left and not offer.differing:
            offer.late = True
            hint = "no commit is missing; a write past the log would be. Raise final_backup_timeout"
            log.warning("database compared in part", database=source.database.name, mib_left=len(offer.left), hint=hint)

    async def finish(self, offer: Offer) -> None:
        """Compare the rest for the last restore point. Raises `ReuseFailed` if everything must be copied instead."""
        await self.go_on(offer, last=True)
        if offer.differing:
            raise ReuseFailed(f"MiB {offer.differing[0]} was written past the log")
        if offer.left and not offer.late:
            raise ReuseFailed("what it would take over cannot be compared with the database now")

    def _until(self) -> float:
        """When comparing for the final backup ends, for all databases and all its attempts."""
        timeout, began = self._report.final_backup_timeout, self._report.final_began
        return (anyio.current_time() if began is None else began) + timeout.total_seconds() * SHARE if timeout else inf

    def _learn(self, offer: Offer, compared: frozenset[int], differing: tuple[int, ...]) -> None:
        self._status.chunks["compared"] += len(compared)
        offer.learn(compared, differing)
