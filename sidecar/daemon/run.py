"""`sidecar run`: the nested scopes of the daemon. Their nesting is the shutdown order.

signals, HTTP                from the first moment to the last
  lease                      renewed until all below has ended, then released
    boot                     cancelled by a signal, or when the lease is lost
    backup loops and app     until the app has ended; it is stopped when the lease is lost or handed over
    final backup             shielded from everything but its own timeout
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup

from sidecar.backup.diverged import Diverged
from sidecar.backup.final import FinalBackup
from sidecar.backup.history import Start
from sidecar.backup.on_demand import OnDemand, shown_in
from sidecar.bootstrap import Services, build_listing, build_notifier, open_services
from sidecar.concurrency import first_failure
from sidecar.daemon.background import Background
from sidecar.daemon.control import control_socket
from sidecar.daemon.signals import PASSED_ON, STOPPING, Signals, until_ended
from sidecar.daemon.silence import log_silence
from sidecar.errors import ConfigurationError, FinalBackupFailed, LeaseLost
from sidecar.host.accounts import to_become
from sidecar.host.files import kept_aside
from sidecar.host.locks import control_path
from sidecar.host.process import App, require_command, take_terminal_back
from sidecar.host.runtime import resume_collection, tune_process
from sidecar.model import Account
from sidecar.monitoring.app_metrics import AppMetrics
from sidecar.monitoring.http import HttpInterface
from sidecar.monitoring.incidents import Incidents
from sidecar.monitoring.metrics import Metrics, acceptable
from sidecar.policies import OnLeaseLost
from sidecar.progress import progress_bar
from sidecar.restore.boot import Booted
from sidecar.settings.configuration import Configuration
from sidecar.settings.environment import app_environment
from sidecar.settings.fields import listen_address
from sidecar.status.problems import Kind

log = structlog.get_logger()

IDLE_LOOK_SECONDS = 15.0
ON_THIS_DISK = (
    "restore points are kept on this machine's own disk and are lost with it",
    "set SIDECAR_STORE to s3://bucket/prefix, or to a file:// directory on another disk",
)


async def run(configuration: Configuration, command: Sequence[str]) -> int:
    """Protect the databases while the command runs; without a command, until a signal says stop.

    Returns the exit status. Raises `SidecarError` for what keeps the app from starting, and `FinalBackupFailed`.
    """
    if command:
        require_command(command)
    to_become(configuration.settings.app_user)
    try:
        with anyio.open_signal_receiver(*STOPPING, *PASSED_ON, signal.SIGCHLD) as received:
            tune_process()
            async with open_services(configuration) as parts:
                resume_collection()
                return await _Daemon(parts, command).run(received)
    except BaseExceptionGroup as group:
        raise first_failure(group) from group
    finally:
        for number in STOPPING:  # the status is decided: no signal may change it any more
            signal.signal(number, signal.SIG_IGN)


class _Daemon:
    def __init__(self, parts: Services, command: Sequence[str]) -> None:
        self._parts = parts
        self._settings = parts.configuration.settings
        self._command = command
        self._status = parts.status
        self._fence = parts.fence()
        show = partial(shown_in, self._status)
        self._backups = parts.backups(self._fence, show)
        self._incidents = Incidents(parts.catalog(), self._status, self._fence)
        self._listing = build_listing(parts)
        self._background = Background(self._backups, self._fence, self._status, self._settings.final_backup_timeout)
        self._diverged_line = parts.diverged_line(self._fence, show)
        self._final = FinalBackup(self._backups, self._diverged_line, self._fence, self._status)
        self._started = anyio.Event()
        self._signals = Signals()
        self._on_demand = OnDemand(self._backups, self._status)

    async def run(self, received: AsyncIterator[signal.Signals]) -> int:
        async with anyio.create_task_group() as outermost:
            outermost.start_soon(self._signals.listen, received)
            async with AsyncExitStack() as stack:
                await self._serve(stack)
                notifier = build_notifier(self._parts)
                await stack.enter_async_context(notifier.running())
                try:
                    status = await self._boot_and_run()
                except (Exception, BaseExceptionGroup) as error:
                    notifier.report_end(error)
                    raise
                finally:
                    take_terminal_back()
            outermost.cancel_scope.cancel()
        return status

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Locks, HTTP and the control socket, before anything else is done."""
        control = control_path(self._settings.control_socket, self._parts.databases)
        stack.enter_context(self._parts.locks(control))
        url = self._settings.app_metrics_url
        app_metrics = AppMetrics(url, acceptable) if url else None
        http = HttpInterface(self._status, Metrics(self._status).render, self._background.observe, app_metrics)
        if address := listen_address(self._settings.listen):
            await stack.enter_async_context(http.listening(*address))
        if control:
            await self._control(stack, http, control)

    async def _control(self, stack: AsyncExitStack, http: HttpInterface, path: Path) -> None:
        """The control socket; where it was not asked for by name, doing without is better than not starting."""
        try:
            served = control_socket(path, http.application(), self._status, self._on_demand.backup)
            await stack.enter_async_context(served)
        except ConfigurationError as error:
            if self._settings.control_socket != "auto":
                raise
            log.warning("no control socket", error=error.message, hint=error.hint)

    async def _boot_and_run(self) -> int:
        if self._parts.configuration.sources["store"] == "default":
            self._status.remark = ON_THIS_DISK
            log.warning(ON_THIS_DISK[0], store=self._parts.store.url, hint=ON_THIS_DISK[1])
        self._status.enter("restoring")
        async with anyio.create_task_group() as group:
            group.start_soon(log_silence, self._status, self._parts.boot_retry_policy)
            status = await self._with_lease()
            group.cancel_scope.cancel()
        return status

    async def _with_lease(self) -> int:
        ask = self._settings.lease_handoff == "request"
        try:
            await self._unless_stopped(self._parts.require_origin)  # before the lease is written to another store
            await self._unless_stopped(partial(self._fence.acquire, self._settings.lease_wait, ask=ask))
            if self._signals.stop.is_set():
                return self._never_started()
            async with self._fence.renewing(), anyio.create_task_group() as watching:
                watching.start_soon(self._stop_when_lost)
                watching.start_soon(self._stop_when_asked)
                status = await self._as_holder()
                watching.cancel_scope.cancel()
        finally:
            await self._fence.release()
        if self._fence.handed_over:
            await self._idle()
        return status

    def _never_started(self) -> int:
        self._status.enter("stopped")
        log.info("stopped before the app was started")
        return 128 + (self._signals.first or signal.SIGTERM)

    async def _as_holder(self) -> int:
        """Restore, run, back up: everything that only the holder of the lease may do. Returns the app's status."""
        self._parts.entrust()  # before anything is downloaded in vain
        booted: list[Booted] = []
        await self._unless_stopped(partial(self._boot, booted))
        if self._signals.stop.is_set():
            self._fence.require_held()
            return self._never_started()
        started = self._parts.clock.monotonic()
        account = self._parts.entrust()
        if self._command:
            self._signals.app = self._start_app(account)
        self._fence.retain = True  # until all is published, whatever ends this process
        self._fence.acknowledge_unfinished()
        self._status.enter("running", ready=True)
        self._started.set()
        status = await self._run_beside_backups(booted)
        stopping = self._parts.clock.monotonic()
        self._on_demand.cancel()
        protected = await self._final.run(self._settings.final_backup_timeout.total_seconds())
        now = self._parts.clock.monotonic()
        self._status.enter("stopped")
        if not protected and not self._fence.lost.is_set():  # of that was told what became of the state
            self._final.report_failure()
        await self._incidents.store_last()
        waiting = self._waiting()
        (log.warning if waiting or not protected else log.info)(
            "shutdown",
            app_status=status if self._command else None,
            protected=protected and not waiting,
            app_seconds=round(stopping - started, 3),
            final_backup_seconds=round(now - stopping, 3),
        )
        self._fence.retain = self._final.disk_has_more
        return self._exit_status(status, protected=protected)

    def _start_app(self, account: Account | None) -> App:
        environment = app_environment(withhold=self._settings.app_credentials == "withhold")
        return App(self._command, self._signals.reaper, environment, account)

    async def _run_beside_backups(self, booted: list[Booted]) -> int:
        try:
            async with anyio.create_task_group() as group:
                for backup, how in zip(self._backups, booted, strict=True):
                    loop = partial(backup.run, self._settings.interval, at_once=how.at_once)
                    group.start_soon(self._guarded, loop)
                self._start_drills(group)
                for watch in (
                    self._listing.run,
                    self._background.keep_observing,
                    self._background.look_when_doubted,
                    self._incidents.run,
                    self._incidents.keep_looking_for_diverged,
                    self._final.publish_diverged,
                ):
                    group.start_soon(self._guarded, watch)
                if self._settings.on_lease_lost is OnLeaseLost.CONTINUE:
                    saving = partial(self._final.keep_saving_fenced, self._settings.interval.total_seconds())
                    group.start_soon(self._guarded, saving)
                grace, drain = self._settings.shutdown_grace.total_seconds(), self._settings.drain.total_seconds()
                status = await until_ended(self._signals, self._status, grace=grace, drain=drain)
                group.cancel_scope.cancel()
        finally:
            if self._signals.app:
                self._signals.app.kill_group()
        return status

    def _start_drills(self, group: TaskGroup) -> None:
        alone, interval = anyio.Lock(), self._settings.drill_interval
        for backup in self._backups if interval else ():
            drill = self._parts.drill(backup, alone)
            group.start_soon(self._guarded, partial(drill.run, interval))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the app; a bug in it ends it alone, never the app or the final backup."""
        try:
            await work()
        except Exception as error:
            log.exception("a part of sidecar failed by a bug; the app goes on, and a final backup will be tried")
            self._status.report("", f"bug: {error!r}", "please report it with the log", Kind.FAILURE)

    async def _boot(self, booted: list[Booted]) -> None:
        """Carry out the boot table for each database, and write down what this term begins from."""
        boot = self._parts.boot(self._fence, alone=bool(self._command))
        for backup in self._backups:
            with progress_bar(f"restore {backup.database.name}") as progress:
                how = await boot.boot(backup.database, self._parts.lineage(backup.database), progress)
            backup.cycle.start_from(Start(how.newest, how.marker, how.restored, how.publish))
            self._final.diverged += [
                Diverged(backup.database, path, at, self._diverged_line, self._status)
                for path, at in kept_aside(backup.database.path, "diverged")
            ]
            booted.append(how)
        names = (backup.database.name for backup in self._backups)
        newest = {name: how.newest.key for name, how in zip(names, booted, strict=True) if how.newest}
        await self._fence.record_start(newest, running=True)

    async def _unless_stopped(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that a request to stop cancels."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_on_stop, group.cancel_scope)
            await work()
            group.cancel_scope.cancel()

    async def _cancel_on_stop(self, scope: anyio.CancelScope) -> None:
        await self._signals.stop.wait()
        scope.cancel()

    async def _stop_when_lost(self) -> None:
        """Another machine took over: the app stops, unless it is to go on without restore points."""
        await self._fence.lost.wait()
        try:
            self._fence.require_held()
        except LeaseLost as error:
            self._status.report("", error.message, error.hint, Kind.DIVERGENCE)
        if self._settings.on_lease_lost is OnLeaseLost.STOP or not self._status.ready:
            log.error("the app is stopped: another machine has taken over")
            self._signals.request_stop()
        else:
            self._status.enter("fenced", ready=True)

    async def _stop_when_asked(self) -> None:
        """Another machine asks to take over: stop, publish, release, and stay idle."""
        await self._fence.asked.wait()
        await self._started.wait()  # before, there may be local changes that only a backup of ours would publish
        if not self._command:
            log.warning("asked to hand over, but the writers are not ours to stop", by=self._fence.asked_by)
            return
        if self._status.phase != "running":  # it stops already, for good
            return
        log.info("handing over", to=self._fence.asked_by)
        self._fence.handing_over = True
        self._signals.request_stop()

    async def _idle(self) -> None:
        """After handing over: nothing but saying so, until a signal. We never ask back.

        When the other machine died before it took over, this process ends, so that the platform starts it again.
        """
        self._status.enter("handed over")
        while not self._signals.received.is_set():
            with anyio.move_on_after(IDLE_LOOK_SECONDS):
                await self._signals.received.wait()
            if not self._signals.received.is_set() and await self._fence.is_handoff_abandoned():
                raise LeaseLost(
                    f"{self._fence.asked_by} asked for the lease and never took it",
                    "this machine ends, so that the platform starts it again, with the app",
                )
        self._status.enter("stopped")

    def _waiting(self) -> list[str]:
        """Databases that the app has never created: probably their paths are wrong."""
        return [name for name, each in self._status.databases.items() if each.last_outcome == "waiting"]

    def _exit_status(self, status: int, *, protected: bool) -> int:
        if self._fence.lost.is_set() and (status == 0 or self._settings.on_lease_lost is OnLeaseLost.STOP):
            self._fence.require_held()
        if not protected and status == 0:
            raise FinalBackupFailed(*self._final.describe_failure())
        return status
