"""Retries requests to a store. Nothing else in the program retries a request.

If the reply to a conditional write is lost, the second attempt finds our own object and is refused, as if another writer
had been faster. So every write has a unique request id in the object's metadata, and a refusal after a failed attempt is
checked against it.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import anyio
import tenacity

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    Transient,
)
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import ObjectInfo
from sidecar.storage.base import ObjectStore
from sidecar.storage.decorator import Decorated

T = TypeVar("T")


REQUEST_ID = "sidecar-request"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many seconds an operation is retried, and the backoff between attempts (with full jitter)."""

    give_up_after: float
    first: float = 0.2
    longest: float = 10.0
    hard_deadline: bool = False  # whether an attempt in progress is also interrupted


class Retrying(Decorated):
    """Retries `Transient` failures until the policy gives up, and recognizes its own writes whose reply was lost."""

    def __init__(self, inner: ObjectStore, clock: Clock, policy: RetryPolicy) -> None:
        super().__init__(inner)
        self._clock = clock
        self._policy = policy

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """See `Decorated`."""
        last: Transient | None = None
        started = self._clock.monotonic()

        async def persist() -> T:
            nonlocal last
            try:  # most attempts succeed, and tenacity alone takes longer than a request to a directory
                return await attempt()
            except Transient as error:
                last = first = error
            pending: Transient | None = first

            async def once() -> T:  # tenacity only awaits coroutine functions
                nonlocal last, pending
                if pending:  # the attempt that was made already counts as the first one
                    failed, pending = pending, None
                    raise failed
                try:
                    return await attempt()
                except Transient as error:
                    last = error
                    raise

            return await retry_transient(self._clock, self._policy, f"store request {operation}", started)(once)

        if not self._policy.hard_deadline:
            return await persist()
        with anyio.move_on_after(self._policy.give_up_after):
            return await persist()
        if last:
            raise last
        raise StoreUnavailable(
            f"{self.url} did not answer within {self._policy.give_up_after:.0f} s",
            "check the network and the endpoint",
        )

    def _sign(self, metadata: Mapping[str, str] | None) -> Mapping[str, str]:
        return {**(metadata or {}), REQUEST_ID: secrets.token_hex(8)}

    async def _write(
        self,
        operation: str,
        key: str,
        metadata: Mapping[str, str],
        attempt: Callable[[], Awaitable[ObjectInfo]],
        size: int | None = None,
    ) -> ObjectInfo:
        uncertain = unanswered = False

        async def once() -> ObjectInfo:
            nonlocal uncertain, unanswered
            try:
                return await attempt()
            except Transient as error:
                uncertain, unanswered = True, unanswered or isinstance(error, OutcomeUnknown)
                raise
            except (PreconditionFailed, NotFound) as refusal:
                if not uncertain:
                    raise
                return await self._mine(key, metadata, size, refusal)

        try:
            return await self.around(operation, once)
        except (AccessDenied, ConfigurationError, StoreMissing) as refusal:  # of the last attempt alone
            if unanswered:
                raise OutcomeUnknown(refusal.message, refusal.hint) from refusal
            raise

    async def _mine(self, key: str, metadata: Mapping[str, str], size: int | None, refusal: SidecarError) -> ObjectInfo:
        """The object under `key` if an earlier attempt wrote all of it; else raise the refusal.

        Some stores (SeaweedFS 4.48) keep an empty object if the client of a PUT disconnects before the body.
        """
        try:
            found = await self._inner.head(key)
        except NotFound:
            raise refusal from None
        if found.metadata.get(REQUEST_ID) != metadata[REQUEST_ID] or size not in {None, found.size}:
            raise refusal
        return found


def retry_transient(
    clock: Clock, policy: RetryPolicy, what: str, started: float | None = None
) -> tenacity.AsyncRetrying:
    """A retry policy for the `Transient` family: exponential backoff, full jitter, bounded in time since `started`."""
    began = clock.monotonic() if started is None else started

    def wait(state: tenacity.RetryCallState) -> float:
        return clock.random() * float(min(policy.longest, policy.first * 2 ** min(state.attempt_number, 30)))

    def out_of_time(state: tenacity.RetryCallState) -> bool:
        return clock.monotonic() - began + state.upcoming_sleep > policy.give_up_after

    def log_retry(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("retry scheduled", what=what, attempt=state.attempt_number, error=str(error))

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=wait,
        stop=out_of_time,
        sleep=clock.sleep,
        before_sleep=log_retry,
        reraise=True,
    )
