"""Parts for a command that somebody waits for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import structlog

from sidecar.compose import CYCLE_PATIENCE, Parts, opened
from sidecar.config import Configuration
from sidecar.pipeline import first_failure

log = structlog.get_logger()

SILENCE_SECONDS = 3.0
_ANSWERS = {"ok", "not_found", "precondition_failed"}


@asynccontextmanager
async def attended(configuration: Configuration, patience: timedelta | None = None) -> AsyncIterator[Parts]:
    """When the store is silent that is logged once.

    `patience` is how long the first request is tried, if not as long as a cycle's.
    """
    try:
        async with opened(configuration) as parts, anyio.create_task_group() as group:
            group.start_soon(_tell_of_silence, parts, patience or timedelta(seconds=CYCLE_PATIENCE))
            yield parts
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures


async def _tell_of_silence(parts: Parts, patience: timedelta) -> None:
    await anyio.sleep(SILENCE_SECONDS)
    status = parts.status
    asked = status.in_flight or status.requests
    if asked and not any(outcome in _ANSWERS for _, outcome in status.requests):
        log.warning("the store does not answer yet", store=status.store, tried_for_seconds=patience.total_seconds())
