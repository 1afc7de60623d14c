"""`sidecar run`: the nested scopes of the daemon. Their nesting is the shutdown order.

signals, HTTP              from the first moment to the last
  boot                     cancelled by a signal
  backup loops and app     until the app has ended
  final backup             shielded from everything but its own timeout
"""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import anyio
import structlog

from sidecar.adapters.accounts import to_become
from sidecar.adapters.http import AppMetrics, Http
from sidecar.adapters.metrics import Metrics, acceptable
from sidecar.adapters.process import App, Reaper, require_command, take_terminal_back
from sidecar.backup import Backup
from sidecar.boot import Booted
from sidecar.compose import Parts, opened
from sidecar.config import Configuration, listen_address
from sidecar.diverged import Diverged
from sidecar.domain import Account
from sidecar.environment import app_environment
from sidecar.errors import ConfigurationError, ExitCode, FinalBackupFailed, SidecarError
from sidecar.files import kept_aside
from sidecar.locks import control_path, local_locks
from sidecar.output import progress_bar
from sidecar.ownership import hand_over
from sidecar.pipeline import first_failure
from sidecar.ports import Child

log = structlog.get_logger()

STOPPING = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
OBSERVE_SECONDS = 1.0
DIVERGED_RETRY_SECONDS = 30.0


async def run(configuration: Configuration, command: Sequence[str]) -> int:
    """Protect the databases while the command runs; without a command, until a signal says stop.

    Returns the exit status. Raises `SidecarError` for what keeps the app from starting, and `FinalBackupFailed`.
    """
    if command:
        require_command(command)
        to_become(configuration.settings.app_user)
    try:
        with anyio.open_signal_receiver(*STOPPING, *PASSED_ON, signal.SIGCHLD) as received:
            async with opened(configuration) as parts:
                return await _Daemon(parts, command).run(received)
    except BaseExceptionGroup as group:
        raise first_failure(group) from group
    finally:
        for number in STOPPING:  # the status is decided: no signal may change it any more
            signal.signal(number, signal.SIG_IGN)


class _Signals:
    """What the signals have said so far."""

    def __init__(self) -> None:
        self.reaper = Reaper()
        self.app: Child | None = None
        self.first: int | None = None
        self._asked = 0.0
        self.stop = anyio.Event()
        self.hurry = anyio.Event()

    async def listen(self, received: AsyncIterator[signal.Signals]) -> None:
        """Relay the first request to stop to the app, once; a second one only shortens its grace."""
        async for number in received:
            if number == signal.SIGCHLD:
                self.reaper.collect()
            elif number in STOPPING:
                self._stopping(number)
            elif self.app:
                self.app.signal(number)

    def stop_by(self, grace: float) -> float:
        """When the grace ends, on the monotonic clock: it begins when we were asked to stop, or now."""
        return (time.monotonic() if self.first is None else self._asked) + grace

    def _stopping(self, number: int) -> None:
        if self.first is not None:
            self.hurry.set()
            return
        self.first = number
        self._asked = time.monotonic()
        log.info("asked to stop", signal=signal.Signals(number).name)
        self.stop.set()
        if self.app:
            self.app.signal(number)


class _Daemon:
    def __init__(self, parts: Parts, command: Sequence[str]) -> None:
        self._parts = parts
        self._settings = parts.configuration.settings
        self._command = command
        self._status = parts.status
        self._tools = parts.tools()
        self._backups = [parts.backup(database, self._tools) for database in parts.databases]
        self._diverged: list[Diverged] = []
        self._signals = _Signals()
        self._on_demand: set[anyio.CancelScope] = set()

    async def run(self, received: AsyncIterator[signal.Signals]) -> int:
        async with anyio.create_task_group() as outermost:
            outermost.start_soon(self._signals.listen, received)
            async with AsyncExitStack() as stack:
                await self._serve(stack)
                try:
                    status = await self._boot_and_run()
                finally:
                    take_terminal_back()
            outermost.cancel_scope.cancel()
        return status

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Locks, HTTP and the control socket, before anything else is done."""
        control = control_path(self._settings.control_socket, self._parts.databases)
        stack.enter_context(local_locks(self._parts.databases, control, self._parts.store.url))
        url = self._settings.app_metrics_url
        app_metrics = AppMetrics(url, acceptable) if url else None
        http = Http(self._status, Metrics(self._status).render, self._observe, app_metrics)
        if address := listen_address(self._settings.listen):
            await stack.enter_async_context(http.listening(*address))
        if control:
            await self._control(stack, http, control)

    async def _control(self, stack: AsyncExitStack, http: Http, path: Path) -> None:
        """The control socket; where it was not asked for by name, doing without is better than not starting."""
        try:
            await stack.enter_async_context(http.controlled(path, self._backup_now))
        except ConfigurationError as error:
            if self._settings.control_socket != "auto":
                raise
            log.warning("no control socket", error=error.message, hint=error.hint)

    async def _boot_and_run(self) -> int:
        if self._parts.configuration.sources["store"] == "default":
            log.warning(
                "restore points are kept on this machine's own disk and are lost with it",
                store=self._parts.store.url,
                hint="set SIDECAR_STORE to s3://bucket/prefix",
            )
        self._status.enter("restoring")
        self._hand_over()  # before anything is downloaded in vain
        booted = await self._boot_unless_stopped()
        if booted is None or self._signals.stop.is_set():
            self._status.enter("stopped")
            log.info("stopped before the app was started")
            return 128 + (self._signals.first or signal.SIGTERM)
        started = self._parts.clock.monotonic()
        if self._command:
            self._signals.app = self._start_app()
        self._status.enter("running", ready=True)
        status = await self._run_beside_backups(booted)
        stopping = self._parts.clock.monotonic()
        protected = await self._final_backup()
        now = self._parts.clock.monotonic()
        self._status.enter("stopped")
        log.info(
            "shutdown",
            app_status=status if self._command else None,
            protected=protected and not self._waiting(),
            app_seconds=round(stopping - started, 3),
            final_backup_seconds=round(now - stopping, 3),
        )
        return self._exit_status(status, protected=protected)

    def _start_app(self) -> App:
        account = self._hand_over()
        environment = app_environment(withhold=self._settings.app_credentials == "withhold")
        return App(self._command, self._signals.reaper, environment, account)

    def _hand_over(self) -> Account | None:
        """Let the app's user own what it works with; returns who that is, unless it is who we are."""
        account = to_become(self._settings.app_user) if self._command else None
        if account:
            hand_over([each.path for each in self._parts.databases], account)
        return account

    async def _run_beside_backups(self, booted: list[Booted]) -> int:
        try:
            async with anyio.create_task_group() as group:
                for backup, how in zip(self._backups, booted, strict=True):
                    loop = partial(backup.run, self._settings.interval, at_once=how.at_once)
                    group.start_soon(self._guarded, loop)
                group.start_soon(self._guarded, self._keep_observing)
                group.start_soon(self._guarded, self._publish_diverged)
                status = await self._until_app_ended()
                group.cancel_scope.cancel()
        finally:
            if self._signals.app:
                self._signals.app.kill_group()
        return status

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the app; a bug in it ends it alone, never the app or the final backup."""
        try:
            await work()
        except Exception as error:
            log.exception("a part of sidecar failed by a bug; the app goes on, and a final backup will be tried")
            self._status.report("", f"bug: {error!r}", "please report it with the log")

    async def _boot(self) -> list[Booted]:
        boot = self._parts.boot(self._tools, alone=bool(self._command))
        booted = []
        for backup in self._backups:
            with progress_bar(f"restore {backup.database.name}") as progress:
                how = await boot.boot(backup, self._parts.lineage(backup.database), progress)
            self._diverged += [
                Diverged(backup.database, path, at, self._parts.holder, self._tools)
                for path, at in kept_aside(backup.database.path, "diverged")
            ]
            booted.append(how)
        return booted

    async def _boot_unless_stopped(self) -> list[Booted] | None:
        """Boot, or None when a signal came first."""
        booted: list[Booted] | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_on_stop, group.cancel_scope)
            booted = await self._boot()
            group.cancel_scope.cancel()
        return booted

    async def _cancel_on_stop(self, scope: anyio.CancelScope) -> None:
        await self._signals.stop.wait()
        scope.cancel()

    async def _until_app_ended(self) -> int:
        """Wait for the app, or see it stopped after a signal. Returns its status; nothing of its group is left."""
        grace = self._settings.shutdown_grace.total_seconds()
        app = self._signals.app
        if app is None:
            await self._signals.stop.wait()
            self._status.enter("stopping")
            with anyio.move_on_after(self._settings.drain.total_seconds()):
                await self._signals.hurry.wait()
            return 0
        async with anyio.create_task_group() as group:
            group.start_soon(self._kill_after_grace, app, grace)
            status = await app.wait()
            group.cancel_scope.cancel()
        self._status.enter("stopping")
        async with anyio.create_task_group() as group:
            group.start_soon(self._kill_on_hurry, app)
            await app.stop_group(max(0.0, self._signals.stop_by(grace) - self._parts.clock.monotonic()))
            group.cancel_scope.cancel()
        return status

    async def _kill_after_grace(self, app: Child, grace: float) -> None:
        await self._signals.stop.wait()
        self._status.enter("stopping")
        with anyio.move_on_after(grace) as waiting:
            await self._signals.hurry.wait()
        why = "it did not stop in time" if waiting.cancelled_caught else "a second signal ended its grace"
        log.warning("the app is killed", why=why, shutdown_grace_seconds=grace)
        app.kill_group()

    async def _kill_on_hurry(self, app: Child) -> None:
        await self._signals.hurry.wait()
        app.kill_group()

    async def _final_backup(self) -> bool:
        """Back up once more, whatever signals come; False when a database could not be in time."""
        timeout = self._settings.final_backup_timeout.total_seconds()
        protected: list[bool] = []

        async def one(backup: Backup) -> None:
            protected.append(await backup.final())

        for under_way in self._on_demand:  # it would copy once more what is not the last state
            under_way.cancel()
        with anyio.move_on_after(timeout, shield=True) as scope:
            async with anyio.create_task_group() as group:
                for backup in self._backups:
                    group.start_soon(one, backup)
            for diverged in self._diverged:
                await diverged.publish()
        if scope.cancelled_caught:
            log.error("the final backup did not end in time", final_backup_timeout_seconds=timeout)
        return len(protected) == len(self._backups) and all(protected)

    def _waiting(self) -> list[str]:
        """Databases that the app has never created: probably their paths are wrong."""
        return [name for name, each in self._status.databases.items() if each.last_outcome == "waiting"]

    def _exit_status(self, status: int, *, protected: bool) -> int:
        if not protected and status == 0:
            raise FinalBackupFailed(
                "the app has stopped and its last changes could not be published",
                "they are still in the local file, if this machine's disk survives; the log says why",
            )
        return status

    async def _keep_observing(self) -> None:
        """Every second: what is unprotected, and whether a final backup would still fit its time."""
        warned = False
        while True:
            self._observe()
            estimate, limit = self._status.final_estimate() or 0.0, self._settings.final_backup_timeout.total_seconds()
            if estimate > limit and not warned:
                hint = "raise final_backup_timeout, and the time the platform waits before it kills"
                message = f"a final backup would take {estimate:.0f} s, final_backup_timeout is {limit:.0f} s"
                log.warning(message, hint=hint)
                self._status.report("", message, hint)
            warned = estimate > limit
            await anyio.sleep(OBSERVE_SECONDS)

    def _observe(self) -> None:
        for backup in self._backups:
            with suppress(SidecarError, OSError):  # the cycle reports it
                backup.observe()

    async def _publish_diverged(self) -> None:
        for diverged in self._diverged:
            while not await diverged.publish():
                await anyio.sleep(DIVERGED_RETRY_SECONDS)

    async def _backup_now(self) -> dict[str, object]:
        """For the control socket: a cycle of every database, and how each ended."""
        if not self._status.ready:  # before the boot table was carried out, the local files decide nothing
            refusal = {"outcome": "failed", "error": f"the daemon is {self._status.phase}", "hint": "try again later"}
            return {each.database.name: {**refusal, "exit_code": int(ExitCode.TRY_AGAIN)} for each in self._backups}
        with anyio.CancelScope() as scope:
            self._on_demand.add(scope)
            try:
                return {backup.database.name: await self._outcome(backup) for backup in self._backups}
            finally:
                self._on_demand.discard(scope)
        refusal = {"outcome": "failed", "error": "the daemon stops, and backs up once more", "hint": "see its log"}
        return {each.database.name: {**refusal, "exit_code": int(ExitCode.TRY_AGAIN)} for each in self._backups}

    async def _outcome(self, backup: Backup) -> dict[str, object]:
        try:
            return {
                "outcome": await backup.cycle(),
                "restore_point": self._status.databases[backup.database.name].restore_point,
            }
        except SidecarError as error:
            self._status.failed(backup.database.name, error.message, error.hint)
            return {"outcome": "failed", "error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
