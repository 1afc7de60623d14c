"""Determines whether the newest restore point still covers a database: it exists, is intact and is in the store.

A database that did not change needs nothing else; one that changed needs a stream that has the changes, and `Spacing`.
"""

from sidecar.backup.history import History
from sidecar.backup.need import Spacing
from sidecar.backup.source import Source
from sidecar.errors import SidecarError, Transient
from sidecar.model import RestorePoint
from sidecar.repository import ExistenceCheck, ExistenceResult, Expiry
from sidecar.status import Status

LAST_LOOK_SECONDS = 10.0


class Coverage:
    """Decides whether a database must be published although it did not change. `missing` is the reason if `is_held` is False."""

    def __init__(
        self,
        history: History,
        source: Source,
        existence: ExistenceCheck,
        expiry: Expiry,
        status: Status,
        spacing: Spacing | None = None,
    ) -> None:
        """Without `spacing`, every change needs a restore point."""
        self._spacing = spacing
        self.missing = ""
        self._history = history
        self._source = source
        self._existence = existence
        self._expiry = expiry
        self._settings = status
        self._status = status.databases[history.database]
        self._demand = ""
        self._demanded_late = False
        self._last_look: ExistenceResult | None = None

    @property
    def must_publish(self) -> bool:
        """Whether the next cycle publishes even if nothing seems to have changed."""
        return bool(self._demand)

    @property
    def is_known(self) -> bool:
        """Whether the newest restore point was seen in the store and has not been doubted since."""
        return self._existence.is_confirmed

    def demand(self, reason: str) -> None:
        """Make the next cycle publish in any case, even if a cycle in progress has already made its copy."""
        self._demand, self._demanded_late = reason, True

    def begin(self) -> None:
        """Note that a copy is about to be made: its restore point satisfies earlier demands."""
        self._demanded_late = False
        if self._spacing:
            self._spacing.begin()

    def doubt(self) -> None:
        """Make the next cycle ask the store whether the newest restore point still exists."""
        self._existence.doubt()

    def confirm(self) -> None:
        """Note that the newest restore point is in the store: it was just published or restored."""
        self._existence.confirm()

    def satisfy(self) -> None:
        """Note that a restore point of the database was published."""
        self._existence.confirm()
        if self._spacing:
            self._spacing.published()
        if not self._demanded_late:
            self._demand = ""

    async def may_wait(self) -> bool:
        """Whether changes need no restore point yet: a stream has them, and what it continues is in the store.

        Raises what `is_held` raises.
        """
        stream = self._source.stream
        if self._spacing is None or stream is None or stream.mixing.suspicion or not self._spacing.may_wait():
            return False
        return await self.is_held()

    def distrust(self, damaged: RestorePoint) -> None:
        """Make the next cycle publish, copying nothing from this restore point or those that copied from it."""
        self._history.base = None
        self._demand = f"restore point {damaged.key} is damaged or gone"
        self._source.unprotected(damaged.timestamp.instant)
        self._expiry.forget(damaged.key)

    async def look_last(self) -> None:
        """Ask the store once more before the last cycle, because the disk may disappear with the machine."""
        if self._history.parent is None or self.must_publish:
            self._last_look = ExistenceResult()
            return
        timeout = self._settings.final_backup_timeout
        limit = min(LAST_LOOK_SECONDS, timeout.total_seconds() / 4) if timeout else LAST_LOOK_SECONDS
        self.doubt()
        self._last_look = await self._existence.check(self._history.parent, self._status.restore_point_size, limit)

    async def is_held(self, *, last: bool = False) -> bool:
        """Whether an unchanged database needs no restore point, because there is one that is still in the store.

        Raises `SidecarError` if that has been unknown for long. An unreachable store does not fail the `last` cycle if
        everything was fine before.
        """
        if self._history.parent is None or self.must_publish:
            self.missing = self._demand
            return not self.must_publish
        result = (self._last_look if last else None) or await self._existence.check(
            self._history.parent, self._status.restore_point_size
        )
        if result.lost:
            await self._existence.report_loss(result)
            self.distrust(result.lost)
            self.missing = self._demand
            return False
        if result.error:
            self._require_belief(result.error, last=last)
        return True

    def _require_belief(self, error: SidecarError, *, last: bool) -> None:
        well = last and self._status.failing_since is None and isinstance(error, Transient)
        if not well and not self._existence.is_trusted_despite(error):
            raise error
