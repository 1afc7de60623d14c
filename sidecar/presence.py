"""Whether the restore point that protects a database is still in the store: one that is gone protects nothing.

An app that writes nothing would not notice otherwise: a prefix that somebody emptied, a lifecycle rule without a filter.
"""

from contextlib import suppress
from datetime import UTC, datetime

import anyio
import structlog

from sidecar.domain import ObjectInfo, RestorePoint
from sidecar.errors import NotFound, SidecarError, Transient
from sidecar.ports import Clock
from sidecar.replica import Replica, point_of
from sidecar.status import Status

log = structlog.get_logger()

LOOK_EVERY = 590.0  # seconds: every second cycle of five minutes, and a cycle is never to the second
BELIEVED_FOR = 3600.0
LIST_SECONDS = 3.0  # only to say how many are left
HINT = (
    "a whole one is published now; a person, or a lifecycle rule without a tag filter, may have deleted it: "
    "a bucket with versioning still has it"
)


class Presence:
    """What is known of one database's newest restore point. Not for use by two tasks at once."""

    def __init__(self, database: str, replica: Replica, status: Status, clock: Clock) -> None:
        self._database = database
        self._replica = replica
        self._status = status
        self._clock = clock
        self._seen: float | None = None

    def confirm(self) -> None:
        """It is there: just published, or read."""
        self._seen = self._clock.monotonic()

    def doubt(self) -> None:
        """There is reason to look again, and to believe nothing before."""
        self._seen = None

    async def look(self, key: str, size: int, *, required: bool) -> RestorePoint | None:
        """If it is time to: the restore point that is gone or of another size, which is told; None when it is there.

        Where an answer is `required`, raises `SidecarError` when there is none, unless it is one that may be waited for.
        """
        if self._seen is not None and self._clock.monotonic() - self._seen < LOOK_EVERY:
            return None
        try:
            trouble = await self._trouble(key, size)
        except SidecarError as error:
            if required and not self._is_believed(error):
                raise
            log.info("it is not known whether the restore point is there", key=key, error=error.message)
            return None
        if trouble is None:
            self.confirm()
            return None
        self._status.damaged(self._database, f"restore point {key} {trouble}", HINT)
        log.error("restore point is lost", database=self._database, key=key, trouble=trouble, hint=HINT)
        return point_of(ObjectInfo(key, 0, "", datetime.now(UTC)))

    def _is_believed(self, error: SidecarError) -> bool:
        recently = self._seen is not None and self._clock.monotonic() - self._seen < BELIEVED_FOR
        return recently and isinstance(error, Transient)

    async def _trouble(self, key: str, size: int) -> str | None:
        """What became of it, in words.

        One that another machine superseded (`lease=off`) may have expired: nothing is to be put above that one's.
        """
        try:
            found = await self._replica.store.head(key)
        except NotFound:
            return None if await self._is_superseded(key) else f"is gone from the store{await self._left()}"
        return None if found.size == size else f"was overwritten: it has {found.size} bytes and not {size}"

    async def _is_superseded(self, key: str) -> bool:
        newest = await self._replica.newest(self._database)
        return newest is not None and newest.key > key

    async def _left(self) -> str:
        with suppress(SidecarError), anyio.move_on_after(LIST_SECONDS):
            left = [point async for point in self._replica.points(self._database)]
            return f"; {len(left)} others are left, up to {left[-1].key}" if left else ", with all others"
        return ""
