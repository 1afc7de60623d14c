"""Services for a command that a person waits for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from sidecar.bootstrap import Services, open_services
from sidecar.concurrency import first_failure
from sidecar.daemon.silence import log_silence
from sidecar.host.runtime import resume_collection, tune_process
from sidecar.settings.configuration import Configuration


@asynccontextmanager
async def attended(configuration: Configuration, *, as_boot: bool = False) -> AsyncIterator[Services]:
    """When the store is silent that is logged once, with the time after which the command ends.

    `as_boot` says that the first request is made with a boot's retry policy, else with a cycle's.
    """
    tune_process()
    try:
        async with open_services(configuration) as services, anyio.create_task_group() as group:
            resume_collection()
            group.start_soon(
                log_silence, services.status, services.boot_retry_policy if as_boot else services.retry_policy
            )
            yield services
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
