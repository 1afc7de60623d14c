"""Services for a command that a person waits for."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import anyio

from sidecar.bootstrap import Services, open_services
from sidecar.concurrency import first_failure
from sidecar.daemon.silence import log_silence
from sidecar.host import STOPPING, resume_collection, tune_process
from sidecar.settings import Configuration


async def interruptible(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command so that a stop signal, or a terminal that is closed, cancels it cleanly: nothing half-done stays behind."""
    status, received = 0, 0
    closed = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)  # nohup(1)
    handled = cast("tuple[signal.Signals, ...]", (*STOPPING, *closed))

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal received
        with anyio.open_signal_receiver(*handled) as signals:
            async for number in signals:
                received = number
                scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            status = await command()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
    return 128 + received if received else status


@asynccontextmanager
async def attended(
    configuration: Configuration, *, as_boot: bool = False, silence: bool = True
) -> AsyncIterator[Services]:
    """Open the services of a command. While the store stays silent, one warning says how long the command waits.

    Without `silence` none does: the command does not wait. `as_boot` says that the first request is made with a boot's retry policy, else with a cycle's.
    """
    tune_process()
    try:
        async with open_services(configuration) as services, anyio.create_task_group() as group:
            resume_collection()
            if silence:
                policy = services.boot_retry_policy if as_boot else services.retry_policy
                group.start_soon(log_silence, services.status, policy)
            yield services
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from failures
