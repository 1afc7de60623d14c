"""The end of a run: the app exits, by itself or within its grace period, and then the processes that it has left."""

import time

import anyio

from sidecar.daemon.leftovers import Leftovers
from sidecar.daemon.signals import Signals
from sidecar.host import Child
from sidecar.log import log
from sidecar.status import Status


async def until_ended(
    signals: Signals, status: Status, leftovers: Leftovers | None, *, grace: float, drain: float
) -> int:
    """Wait until the app has exited, by itself or after a request to stop. Returns its exit status.

    No process that it started is left then; without `leftovers`, none of its process group. Without an app, wait for a
    request to stop, and `drain` seconds more. Times are in seconds.
    """
    app = signals.app
    if app is None:
        await signals.stop.wait()
        status.enter("stopping")
        with anyio.move_on_after(drain):
            await signals.hurry.wait()
        return 0
    async with anyio.create_task_group() as group:
        group.start_soon(_kill_after_grace, signals, status, app, grace)
        ended = await app.wait()
        group.cancel_scope.cancel()
    if leftovers is None:
        status.enter("stopping")
        await _stop_group(signals, app, grace)
        return ended
    if ended == 0 and not signals.stop.is_set():
        signals.launched = leftovers.pass_on
        await signals.unless_stopped(lambda: leftovers.follow(grace))
    status.enter("stopping")
    await leftovers.end(signals.stop_by(grace))
    return ended if leftovers.status is None else leftovers.status


async def _stop_group(signals: Signals, app: Child, grace: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_kill_on_hurry, signals, app)
        await app.stop_group(max(0.0, signals.stop_by(grace) - time.monotonic()))
        group.cancel_scope.cancel()


async def _kill_after_grace(signals: Signals, status: Status, app: Child, grace: float) -> None:
    await signals.stop.wait()
    status.enter("stopping")
    with anyio.move_on_after(grace) as waiting:
        await signals.hurry.wait()
    why = "it did not stop in time" if waiting.cancelled_caught else "a second signal ended its grace period"
    log.warning("app killed", why=why, shutdown_grace_seconds=grace)
    app.kill_group()


async def _kill_on_hurry(signals: Signals, app: Child) -> None:
    await signals.hurry.wait()
    app.kill_group()
