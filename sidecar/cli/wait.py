"""`sidecar wait`: return once what was committed is in the store."""

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode
from sidecar.host.control import wait_timeout
from sidecar.settings import Configuration


async def wait(configuration: Configuration, *, timeout: str) -> int:
    """Ask this machine's daemon. Raises `NotDurable` when it is not known to be stored."""
    limit = wait_timeout(timeout)
    async with attended(configuration) as services:
        done = await Sidecar(services).durable(timeout=limit.total_seconds())
    for name, commit in done.commits.items():
        say(f"{name}: stored up to commit {commit} of its stream, after {done.seconds:.2f} s")
    return ExitCode.OK
