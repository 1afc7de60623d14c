"""Renews a lease in the background until it is lost."""

from contextlib import suppress

from sidecar.errors import LeaseLost, SidecarError, StoreUnsuitable, Transient
from sidecar.host import Clock
from sidecar.lease.acquisition import require_conditions
from sidecar.lease.term import LeaseEvents, Term
from sidecar.log import log
from sidecar.status import LeaseStatus
from sidecar.storage import ObjectStore

FIRST_RETRY_SECONDS = 1.0
PROVED_FOR = (
    3600.0  # seconds that the store is believed to obey conditional writes: somebody may put a proxy in front of it
)


class Renewal:
    """Renews a term every third of its ttl; sooner after a failure, with exponential backoff and jitter."""

    def __init__(self, term: Term, store: ObjectStore, clock: Clock, status: LeaseStatus, events: LeaseEvents) -> None:
        self._term = term
        self._store = store
        self._clock = clock
        self._status = status
        self._events = events
        self._third = term.record.ttl / 3
        self._proved = clock.monotonic()  # when the lease was acquired

    async def run(self) -> None:
        """Renew until the lease is lost."""
        delay, failures = self._third, 0
        while True:
            await self._clock.sleep(delay)
            try:
                renewed = await self._renew()
            except LeaseLost:
                return
            if renewed and self._clock.monotonic() - self._proved >= PROVED_FOR:
                await self._prove()
            failures = 0 if renewed else failures + 1
            delay = self._third if renewed else self._backoff(failures)
            if not renewed:
                await self._count_failure()

    async def _renew(self) -> bool:
        """Renew once; a failure is logged. Raises only `LeaseLost`."""
        try:
            await self._term.renew()
        except LeaseLost:
            raise
        except SidecarError as error:
            log.warning("lease not renewed", error=error.message, hint=error.hint)
            if not isinstance(error, Transient):
                self._events.doubt()
        except Exception:  # a loop boundary: a bug here must not stop the app
            log.exception("lease not renewed because of a bug")
        else:
            return True
        return False

    async def _prove(self) -> None:
        """Whether the store still obeys conditional writes. If it does not, that is told: this machine is not to blame for it."""
        try:
            await require_conditions(self._store, self._term.record)
        except StoreUnsuitable as error:
            if not self._status.unsuitable:
                log.error("conditional writes not obeyed", error=error.message, hint=error.hint)
            self._status.unsuitable = error.message
        except SidecarError as error:  # it is tried again with the next renewal
            log.info("conditional writes not tried", error=error.message)
            return
        else:
            self._status.unsuitable = ""
        self._proved = self._clock.monotonic()

    def _backoff(self, failures: int) -> float:
        ceiling: float = min(self._third, FIRST_RETRY_SECONDS * 2 ** min(failures, 10))
        return ceiling * (0.5 + 0.5 * self._clock.random())

    async def _count_failure(self) -> None:
        self._status.renewals["failed"] += 1
        with suppress(SidecarError):
            if await self._store.now() > self._term.ends:
                self._status.held = False  # nothing is published until it is renewed
