"""The check before a publish: if a snapshot looks as if data had been lost, an earlier restore point is held."""

from sidecar.errors import NotFound, StoreUnavailable
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Snapshot
from sidecar.repository.newest import KnownPoint
from sidecar.repository.suspicion import Extent, LossMemory, Sized, Suspicion
from sidecar.repository.tags import RestorePointTags
from sidecar.status import Status, documentation

REPLACING = "remove -wal and -shm before you replace a database file, or set stream=off"


class SuspicionGuard:
    """Holds restore points of one database before a suspicious snapshot is published, and reports that."""

    def __init__(self, database: str, tags: RestorePointTags, status: Status, clock: Clock) -> None:
        self._database = database
        self._tags = tags
        self._status = status
        self._clock = clock
        self._memory = LossMemory()

    async def check(self, previous: KnownPoint, snapshot: Snapshot) -> None:
        """Hold the restore points that a suspicious snapshot must not displace, including those of other machines.

        They are held before the publish begins, so that a crash in between cannot let them expire. Raises `SidecarError`
        if one cannot be held; then nothing may be published.
        """
        before, now, at = _sized(previous), Extent.of(snapshot), self._clock.now()
        found = self._memory.assess(before, now, at)
        if snapshot.suspicion:
            reason = f"{snapshot.suspicion}; the previous restore point is held"
            found = Suspicion(reason, holds_previous=True, larger=found.larger if found else (), hint=REPLACING)
        if self._tags.is_held(before.key) or found is None:
            return
        larger = await self._hold_first(found.larger)
        if found.holds_previous:
            await self._hold_previous(before.key)
        elif larger is None:
            return
        self._memory.report(found, before, now, at)
        self._report(found, before.key, larger)

    def remember(self, superseded: KnownPoint) -> None:
        """Remember a superseded restore point for later comparisons, unless it is held as part of a reported loss."""
        if not self._tags.is_held(superseded.point.key):
            self._memory.remember(_sized(superseded))

    async def _hold_previous(self, key: str) -> None:
        try:
            await self._tags.hold(key)
        except NotFound as error:
            raise StoreUnavailable(
                f"{key} cannot be held because it is gone", "the newest restore point is looked up again"
            ) from error

    async def _hold_first(self, keys: tuple[str, ...]) -> str | None:
        """Hold the first of these that exists. Returns its key."""
        for key in keys:
            try:
                await self._tags.hold(key)
            except NotFound:
                self._memory.forget(key)
            else:
                return key
        return None

    def _report(self, found: Suspicion, previous: str, larger: str | None) -> None:
        key = previous if found.holds_previous else str(larger)
        hint = f"it is published anyway; what is gone: sidecar diff {key} newest; if data was lost: sidecar restore --key {key}"
        message = f"suspicious snapshot: {found.reason}: {key}"
        held = {"held": key}
        if found.holds_previous and larger:
            hint += f", or sidecar restore --key {larger}, which has the most data of the last day"
            message += f", and the largest of the last day: {larger}"
            held["larger"] = larger
        if found.hint:
            hint += f"; next time: {found.hint}"
        hint += f"; steps before and after that: {documentation.GO_BACK}"
        self._status.suspected(self._database, message, hint)
        log.error("suspicious snapshot", database=self._database, reason=found.reason, hint=hint, **held)


def _sized(known: KnownPoint) -> Sized:
    return Sized(known.point.key, known.point.timestamp.instant, known.extent)
