"""Whether the restore point that protects a database is still in the store: one that is gone protects nothing.

An app that writes nothing would not notice otherwise: a prefix that somebody emptied, a lifecycle rule without a filter.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import structlog

from sidecar.errors import NotFound, SidecarError, StoreUnavailable, Transient
from sidecar.host.clock import Clock
from sidecar.model import ObjectInfo, RestorePoint
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import point_of
from sidecar.status.model import Status

log = structlog.get_logger()

LOOK_EVERY = 590.0  # seconds: every second cycle of five minutes, and a cycle is never to the second
BELIEVED_FOR = 3600.0
LIST_SECONDS = 3.0  # only to say how many are left
GONE = "is gone from the store"
UNKNOWN = "is unknown"
HINT = (
    "a whole one is published in its place at once; a person, or a lifecycle rule without a tag filter, may have deleted it: "
    "a bucket with versioning still has it"
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look found: nothing to say, a restore point that is lost and how, or why that cannot be known."""

    lost: RestorePoint | None = None
    trouble: str = ""
    error: SidecarError | None = None


class Presence:
    """What is known of one database's newest restore point. Not for use by two tasks at once."""

    def __init__(
        self,
        database: str,
        catalog: Catalog,
        status: Status,
        clock: Clock,
        *,
        exclusive: bool,
        look_every: float = LOOK_EVERY,
    ) -> None:
        """`exclusive` says that no other machine publishes: then nothing but a mistake deletes the newest one.

        What was seen is believed for `look_every` seconds.
        """
        self._database = database
        self._catalog = catalog
        self._status = status
        self._clock = clock
        self._exclusive = exclusive
        self._look_every = look_every
        self._seen: float | None = None

    def confirm(self) -> None:
        """It is there: just published, or read."""
        self._seen = self._clock.monotonic()

    def doubt(self) -> None:
        """There is reason to look again, and to believe nothing before."""
        self._seen = None

    @property
    def is_known(self) -> bool:
        """Whether it was seen, and not doubted since."""
        return self._seen is not None

    def is_believed(self, error: SidecarError) -> bool:
        """Whether it may be taken for there although a look failed like this."""
        recently = self._seen is not None and self._clock.monotonic() - self._seen < BELIEVED_FOR
        return recently and isinstance(error, Transient)

    async def look(self, key: str, size: int, within: float = math.inf) -> Sight:
        """If it is time to: what the store says of it, within so many seconds."""
        if self._seen is not None and self._clock.monotonic() - self._seen < self._look_every:
            return Sight()
        trouble: str | None = UNKNOWN
        with anyio.move_on_after(within):
            try:
                trouble = await self._trouble(key, size)
            except SidecarError as error:
                log.info("it is not known whether the restore point is there", key=key, error=error.message)
                return Sight(error=error)
        if trouble == UNKNOWN:
            return Sight(error=StoreUnavailable(f"the store did not say within {within:.0f} s whether {key} is there"))
        with anyio.move_on_after(within):  # a time of its own: what is gone is not to be forgotten by a deadline
            if trouble == GONE and await self._is_superseded(key):
                trouble = None
        if trouble is None:
            self.confirm()
            return Sight()
        self.doubt()
        return Sight(point_of(ObjectInfo(key, 0, "", datetime.now(UTC))), trouble)

    async def tell(self, sight: Sight) -> None:
        """Tell people of what is lost."""
        if sight.lost is None:
            return
        left = await self._left() if sight.trouble == GONE else ""
        trouble = f"{sight.trouble}{left}"
        self._status.damaged(self._database, f"restore point {sight.lost.key} {trouble}", HINT)
        log.error("restore point is lost", database=self._database, key=sight.lost.key, trouble=trouble, hint=HINT)

    async def _trouble(self, key: str, size: int) -> str | None:
        """What became of it, in words."""
        try:
            found = await self._catalog.store.head(key)
        except NotFound:
            return GONE
        return None if found.size == size > 0 else f"was overwritten: it has {found.size} bytes and not {size}"

    async def _is_superseded(self, key: str) -> bool:
        """One that another machine superseded (`lease=off`) may have expired: nothing is to be put above that one's.

        When that cannot be known, what is gone is gone.
        """
        if self._exclusive:
            return False
        with suppress(SidecarError):
            newest = await self._catalog.newest(self._database)
            return newest is not None and newest.key > key
        return False

    async def _left(self) -> str:
        with suppress(SidecarError), anyio.move_on_after(LIST_SECONDS):
            left = [point async for point in self._catalog.points(self._database)]
            return f"; {len(left)} others are left, up to {left[-1].key}" if left else ", with all others"
        return ""
