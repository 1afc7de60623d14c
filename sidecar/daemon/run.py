"""`sidecar run`: protects the databases while a command runs."""

import signal
from collections.abc import Sequence
from typing import cast

import anyio

from sidecar.bootstrap import open_services
from sidecar.concurrency import first_failure
from sidecar.daemon.composition import compose
from sidecar.database import require_own_name
from sidecar.host import STOPPING, passed_on, require_command, resume_collection, to_become, tune_process
from sidecar.settings import Configuration


async def run(configuration: Configuration, command: Sequence[str]) -> int:
    """Protect the databases while the command runs; without a command, until a signal stops it.

    Returns the exit status. Raises `SidecarError` for what keeps the app from starting, and `FinalBackupFailed`.
    """
    if command:
        require_command(command)
    to_become(configuration.settings.app_user)
    for database in configuration.settings.database_list():
        require_own_name(database.path)
    handled = (*STOPPING, *passed_on())
    receivable = cast("tuple[signal.Signals, ...]", (*handled, signal.SIGCHLD))  # real-time signals have no names there
    try:
        with anyio.open_signal_receiver(*receivable) as received:
            tune_process()
            async with open_services(configuration) as services:
                resume_collection()
                return await compose(services, command).run(received)
    except BaseExceptionGroup as group:
        raise first_failure(group) from group
    finally:
        for number in handled:  # the status is decided: no signal may change it any more
            signal.signal(number, signal.SIG_IGN)
