"""After the app has ended: the final backup, what it leaves behind, and the exit status."""

from datetime import timedelta

from sidecar.backup import FinalBackup, OnDemand
from sidecar.errors import FinalBackupFailed
from sidecar.host import Clock
from sidecar.lease import WriterLease
from sidecar.log import log
from sidecar.monitoring import Incidents
from sidecar.policies import OnLeaseLost
from sidecar.status import Status


class Shutdown:
    """Publishes the last state, and decides how the process exits."""

    def __init__(
        self,
        final: FinalBackup,
        on_demand: OnDemand,
        incidents: Incidents,
        fence: WriterLease,
        status: Status,
        clock: Clock,
        timeout: timedelta,
        on_lost: OnLeaseLost,
    ) -> None:
        self._final = final
        self._on_demand = on_demand
        self._incidents = incidents
        self._fence = fence
        self._status = status
        self._clock = clock
        self._timeout = timeout
        self._on_lost = on_lost

    async def run(self, app_status: int | None, app_seconds: float) -> int:
        """Back up once more. `app_status` is the app's, None without one. Returns the exit status.

        Raises `LeaseLost`, and `FinalBackupFailed` when the app's own status would say that all is well.
        """
        stopping = self._clock.monotonic()
        self._on_demand.cancel()
        protected = await self._final.run(self._timeout.total_seconds())
        seconds = self._clock.monotonic() - stopping
        self._status.enter("stopped")
        if not protected and not self._fence.lost.is_set():  # a lost lease has reported what happened to the state
            self._final.report_failure()
        await self._incidents.store_last()
        waiting = self._waiting()
        (log.warning if waiting or not protected else log.info)(
            "shutdown",
            app_status=app_status,
            protected=protected and not waiting,
            app_seconds=round(app_seconds, 3),
            final_backup_seconds=round(seconds, 3),
        )
        self._fence.retain = self._final.disk_has_more or self._final.unsettled
        return self._exit_status(app_status or 0, protected=protected)

    def _waiting(self) -> list[str]:
        """The databases that the app has never created. Their paths are probably wrong."""
        return [name for name, each in self._status.databases.items() if each.last_outcome == "waiting"]

    def _exit_status(self, status: int, *, protected: bool) -> int:
        if self._fence.lost.is_set() and (status == 0 or self._on_lost is OnLeaseLost.STOP):
            self._fence.require_held()
        if not protected and status == 0:
            raise FinalBackupFailed(*self._final.describe_failure())
        return status
