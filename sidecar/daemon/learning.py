"""Finds out in the background what an unknown store can do. Nothing waits for it: until then less is relied upon."""

from collections.abc import Awaitable, Callable

from sidecar.errors import SidecarError, Transient
from sidecar.host import Clock
from sidecar.log import log
from sidecar.storage import Learner

RETRY_SECONDS = 300.0
SETTLE_SECONDS = 60.0  # one correction is often followed by another


async def keep_learning(learner: Learner, clock: Clock) -> None:
    """Recall what the store can do, or try it once; afterwards remember each correction."""
    if not await _succeeded(lambda: _learn(learner), clock):
        return
    while True:
        await learner.until_corrected()
        await clock.sleep(SETTLE_SECONDS)
        if not await _succeeded(learner.remember, clock):
            return


async def _learn(learner: Learner) -> None:
    if not await learner.recall():
        traits = await learner.probe()
        await learner.remember()
        log.info("store probed", store=traits.store)


async def _succeeded(attempt: Callable[[], Awaitable[None]], clock: Clock) -> bool:
    """Repeat while the store does not answer. False if it refuses: then nothing is remembered."""
    while True:
        try:
            await attempt()
        except Transient:
            await clock.sleep(RETRY_SECONDS)
        except SidecarError as error:
            log.info("store not probed", error=error.message)
            return False
        else:
            return True
