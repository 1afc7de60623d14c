"""Counts and times every request to a store."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sidecar.errors import NotFound, PreconditionFailed, SidecarError, Throttled, Transient
from sidecar.host import Clock
from sidecar.status import Status
from sidecar.storage.base import ObjectStore
from sidecar.storage.decorator import Decorated

T = TypeVar("T")


class Metered(Decorated):
    """Counts and times every attempt, and the bytes that it transfers, in `Status`."""

    def __init__(self, inner: ObjectStore, clock: Clock, status: Status) -> None:
        super().__init__(inner)
        self._clock = clock
        self._status = status

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """See `Decorated`."""
        started = self._clock.monotonic()
        outcome = "cancelled"
        self._status.in_flight += 1
        try:
            result = await attempt()
            outcome = "ok"
        except SidecarError as error:
            outcome = _OUTCOMES.get(type(error), "failed")
            self._status.trouble = error.message if isinstance(error, Transient) else None
            raise
        else:
            self._status.trouble = None
        finally:
            self._status.in_flight -= 1
            self._status.count_request(operation, outcome, self._clock.monotonic() - started)
        return result

    def moved(self, *, sent: int = 0, received: int = 0) -> None:
        """See `Decorated`. A part or object whose upload fails is counted in full."""
        self._status.sent += sent
        self._status.received += received


_OUTCOMES = {NotFound: "not_found", PreconditionFailed: "precondition_failed", Throttled: "throttled"}
