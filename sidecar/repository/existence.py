"""Whether the restore point that protects a database still exists in the store.

While an app writes nothing, nothing else would notice that someone emptied the prefix, or that a lifecycle rule has no
filter.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

from sidecar.errors import NotFound, SidecarError, StoreUnavailable, Transient
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import ObjectInfo, RestorePoint
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import point_of
from sidecar.status import Status

CHECK_EVERY = 590.0  # seconds: every second five-minute cycle, with some slack because cycles are not exact
TRUSTED_FOR = 3600.0
LIST_SECONDS = 3.0  # only to report how many are left
GONE = "is gone from the store"
UNKNOWN = "is unknown"
HINT = (
    "a full replacement is published at once; a person or a lifecycle rule without a tag filter may have deleted it: "
    "a bucket with versioning still has it"
)


@dataclass(frozen=True, slots=True)
class ExistenceResult:
    """The result of a check: empty if all is well; else the lost restore point and its problem, or why it is unknown."""

    lost: RestorePoint | None = None
    problem: str = ""
    error: SidecarError | None = None


class ExistenceCheck:
    """Periodically checks that one database's newest restore point exists. Not for use by two tasks at once."""

    def __init__(
        self,
        database: str,
        catalog: Catalog,
        status: Status,
        clock: Clock,
        *,
        exclusive: bool,
        check_every: float = CHECK_EVERY,
    ) -> None:
        """`exclusive`: no other machine publishes, so the newest restore point can only be deleted by mistake.

        A result is trusted for `check_every` seconds.
        """
        self._database = database
        self._catalog = catalog
        self._status = status
        self._clock = clock
        self._exclusive = exclusive
        self._check_every = check_every
        self._confirmed_at: float | None = None

    def confirm(self) -> None:
        """Record that it exists: it was just published or read."""
        self._confirmed_at = self._clock.monotonic()

    def doubt(self) -> None:
        """Distrust earlier results, so that the next check asks the store."""
        self._confirmed_at = None

    @property
    def is_confirmed(self) -> bool:
        """Whether it was confirmed and has not been doubted since."""
        return self._confirmed_at is not None

    def is_trusted_despite(self, error: SidecarError) -> bool:
        """Whether it may be assumed to exist although a check failed with this error."""
        return isinstance(error, Transient) and self._confirmed_within(TRUSTED_FOR)

    async def check(self, key: str, size: int, within: float = math.inf) -> ExistenceResult:
        """Ask the store, unless the last answer is recent. Takes at most `within` seconds, or twice that if it is gone."""
        if self._confirmed_within(self._check_every):
            return ExistenceResult()
        problem: str | None = UNKNOWN
        with anyio.move_on_after(within):
            try:
                problem = await self._problem(key, size)
            except SidecarError as error:
                log.info("restore point not checked", key=key, error=error.message)
                return ExistenceResult(error=error)
        if problem == UNKNOWN:
            message = f"the store did not answer within {within:.0f} s whether {key} exists"
            return ExistenceResult(error=StoreUnavailable(message))
        with anyio.move_on_after(
            within
        ):  # a deadline of its own: the first request must not use up the time for this one
            if problem == GONE and await self._is_superseded(key):
                problem = None
        if problem is None:
            self.confirm()
            return ExistenceResult()
        self.doubt()
        return ExistenceResult(point_of(ObjectInfo(key, 0, "", datetime.now(UTC))), problem)

    async def report_loss(self, result: ExistenceResult) -> None:
        """Log the lost restore point, and show it on the page."""
        if result.lost is None:
            return
        left = await self._format_left() if result.problem == GONE else ""
        problem = f"{result.problem}{left}"
        self._status.damaged(self._database, f"restore point {result.lost.key} {problem}", HINT)
        log.error("restore point lost", database=self._database, key=result.lost.key, trouble=problem, hint=HINT)

    def _confirmed_within(self, seconds: float) -> bool:
        return self._confirmed_at is not None and self._clock.monotonic() - self._confirmed_at < seconds

    async def _problem(self, key: str, size: int) -> str | None:
        """The problem with the object, for a message; None if it exists and is complete."""
        try:
            found = await self._catalog.store.head(key)
        except NotFound:
            return GONE
        return None if found.size == size > 0 else f"was overwritten: it has {found.size} bytes instead of {size}"

    async def _is_superseded(self, key: str) -> bool:
        """Whether another machine superseded it (`lease=off`): then it may have expired and must not be replaced.

        If that is unknown, it counts as lost.
        """
        if self._exclusive:
            return False
        with suppress(SidecarError):
            newest = await self._catalog.newest(self._database)
            return newest is not None and newest.key > key
        return False

    async def _format_left(self) -> str:
        with suppress(SidecarError), anyio.move_on_after(LIST_SECONDS):
            left = [point async for point in self._catalog.points(self._database)]
            return f"; {len(left)} others are left, up to {left[-1].key}" if left else ", along with all others"
        return ""
