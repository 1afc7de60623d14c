"""Retries and meters pruning, as `retry` and `metering` do with all other requests."""

from collections.abc import Sequence

from sidecar.errors import SidecarError, Transient
from sidecar.host import Clock
from sidecar.status import Status
from sidecar.storage.base import Expired, Prunable
from sidecar.storage.retry import RetryPolicy, retry_transient


class RetryingPrunable:
    """A `Prunable` around another one. What an attempt has deleted whose reply was lost is simply gone in the next one."""

    def __init__(self, inner: Prunable, clock: Clock, policy: RetryPolicy, status: Status) -> None:
        self._inner = inner
        self._clock = clock
        self._policy = policy
        self._status = status

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""

        async def once() -> tuple[str, ...]:  # tenacity only awaits coroutine functions
            started = self._clock.monotonic()
            try:
                deleted = await self._inner.prune(expired)
            except SidecarError as error:
                outcome = "unavailable" if isinstance(error, Transient) else "failed"
                self._status.count_request("prune", outcome, self._clock.monotonic() - started)
                raise
            self._status.count_request("prune", "ok", self._clock.monotonic() - started)
            return deleted

        return await retry_transient(self._clock, self._policy, "store request prune")(once)
