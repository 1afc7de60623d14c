"""One warning when the store has not answered anything yet, with the time after which we give up."""

import anyio

from sidecar.log import log
from sidecar.status import Status
from sidecar.storage import FIRST_BYTE_TIMEOUT, RetryPolicy

SILENCE_SECONDS = 3.0
_ANSWERS = {"ok", "not_found", "precondition_failed"}


async def log_silence(status: Status, policy: RetryPolicy) -> None:
    """Warn once, in the log and on the page, when the store stays silent. `policy` is that of the first request."""
    await anyio.sleep(SILENCE_SECONDS)
    asked = status.in_flight or status.requests
    if asked and not any(outcome in _ANSWERS for _, outcome in status.requests):
        most = _at_most(policy, refused=bool(status.requests))
        status.trouble = status.trouble or f"{status.store} does not answer"
        log.warning(f"the store {status.store} does not answer yet; giving up within {most:.0f} s")


def _at_most(policy: RetryPolicy, *, refused: bool) -> float:
    """Seconds until the first request is given up: its last attempt starts within that time and may then wait for a reply."""
    return policy.give_up_after + (0.0 if refused or policy.hard_deadline else FIRST_BYTE_TIMEOUT)
