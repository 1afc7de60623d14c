"""Parts for a command that somebody waits for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog

from sidecar.bootstrap import Parts, opened
from sidecar.concurrency import first_failure
from sidecar.settings.fields import Configuration
from sidecar.storage.base import FIRST_WORD
from sidecar.storage.retry import Patience

log = structlog.get_logger()

SILENCE_SECONDS = 3.0
_ANSWERS = {"ok", "not_found", "precondition_failed"}


@asynccontextmanager
async def attended(configuration: Configuration, *, as_boot: bool = False) -> AsyncIterator[Parts]:
    """When the store is silent that is logged once, with the time after which the command ends.

    `as_boot` says that the first request is made with a boot's patience, else with a cycle's.
    """
    try:
        async with opened(configuration) as parts, anyio.create_task_group() as group:
            group.start_soon(tell_of_silence, parts, parts.boot_patience if as_boot else parts.patience)
            yield parts
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures


async def tell_of_silence(parts: Parts, patience: Patience) -> None:
    """Once, in the log and on the page, when the store has answered nothing for a while."""
    await anyio.sleep(SILENCE_SECONDS)
    status = parts.status
    asked = status.in_flight or status.requests
    if asked and not any(outcome in _ANSWERS for _, outcome in status.requests):
        most = _at_most(patience, refused=bool(status.requests))
        status.trouble = status.trouble or f"{status.store} does not answer"
        log.warning(f"the store {status.store} does not answer yet; giving up within {most:.0f} s")


def _at_most(patience: Patience, *, refused: bool) -> float:
    """Seconds until the first request is given up: the last attempt begins within the patience, and may wait for a word."""
    return patience.give_up_after + (0.0 if refused or patience.cut else FIRST_WORD)
