"""Builds the daemon from the services: the only place below `run` that sees all of them."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import SecretStr

from sidecar.backup import Backup, FinalBackup, OnDemand, shown_in
from sidecar.bootstrap import Services, build_listing
from sidecar.daemon.app import AppRunner
from sidecar.daemon.background import Background
from sidecar.daemon.booting import BootSequence
from sidecar.daemon.learning import keep_learning
from sidecar.daemon.lease_watch import LeaseWatch
from sidecar.daemon.leftovers import Leftovers
from sidecar.daemon.pruning import PRUNE_EVERY, keep_pruning
from sidecar.daemon.scopes import Daemon, Holder
from sidecar.daemon.server import Server
from sidecar.daemon.shutdown import Shutdown
from sidecar.daemon.signals import Signals
from sidecar.daemon.silence import log_silence
from sidecar.daemon.sockets import listen, listen_privately
from sidecar.daemon.stream_cost import log_stream_cost
from sidecar.daemon.workers import Work, Workers
from sidecar.errors import ConfigurationError
from sidecar.host import Descendants, Proc, become_subreaper, control_path
from sidecar.lease import WriterLease
from sidecar.log import log
from sidecar.monitoring import Incidents, Notifier
from sidecar.monitoring.receiver import Receiver
from sidecar.policies import Expires, OnLeaseLost
from sidecar.repository.pruning import Pruning, pruner_of
from sidecar.settings import app_environment, listen_address
from sidecar.status import Status

if TYPE_CHECKING:
    from sidecar.monitoring.app_metrics import AppMetrics

ON_THIS_DISK = (
    "restore points are kept on this machine's own disk and are lost with it",
    "set SIDECAR_STORE to s3://bucket/prefix, or to a file:// directory on another disk",
)


def compose(services: Services, command: Sequence[str]) -> Daemon:
    """The daemon of these services. Nothing is started, locked or asked for yet."""
    settings, status = services.configuration.settings, services.status
    signals, fence = Signals(), services.fence()
    show = partial(shown_in, status)
    streams = services.streams(fence)
    backups, line = services.backups(fence, show, streams.by_name), services.diverged_line(fence, show)
    final, on_demand = FinalBackup(backups, line, fence, status), OnDemand(backups, status)
    background = Background(backups, fence, status, settings.final_backup_timeout)
    server = _server(services, background, on_demand)
    incidents = Incidents(services.catalog(), status, fence)
    app = _app_runner(services, command, signals)
    alone = app.is_ours
    boot = services.boot(fence, alone=alone)
    boots = BootSequence(boot, backups, services.lineage, final, line, fence, status, alone=alone)
    others: list[Work] = [
        build_listing(services).run,
        background.keep_observing,
        background.look_when_doubted,
        *incidents.work,
        server.load,
        partial(log_stream_cost, status),
        final.publish_diverged,
        *_drills(services, backups),
        *_prunings(services),
    ]
    if services.learner and not services.learner.known:
        others.append(partial(keep_learning, services.learner, services.clock))
    if settings.on_lease_lost is OnLeaseLost.CONTINUE:
        others.append(partial(final.keep_saving_fenced, settings.interval.total_seconds()))
    lease = _lease_watch(services, fence, signals, owns_app=app.is_ours)
    timeout, on_lost = settings.final_backup_timeout, settings.on_lease_lost
    shutdown = Shutdown(final, on_demand, incidents, fence, status, services.clock, timeout, on_lost)
    workers = Workers(backups, settings.interval, others, status)
    return Daemon(
        signals,
        _outermost(services, server),
        partial(log_silence, status, services.boot_retry_policy),
        lease,
        Holder(signals, lease, boots, app, workers, shutdown, status, streams.following),
        status,
    )


def _prunings(services: Services) -> list[Work]:
    if services.file_backed or services.status.expires is not Expires.PRUNE:
        return []
    catalog, clock = services.catalog(), services.clock
    pruner = pruner_of(catalog, services.prunable, services.configuration.settings.retention_days, clock)
    prunings = [Pruning(each.name, catalog.store, pruner, clock, PRUNE_EVERY) for each in services.databases]
    return [partial(keep_pruning, prunings)]


def _app_runner(services: Services, command: Sequence[str], signals: Signals) -> AppRunner:
    settings = services.configuration.settings
    return AppRunner(
        command,
        signals,
        services.status,
        services.entrust,
        app_environment(withhold=settings.app_credentials == "withhold"),
        settings.shutdown_grace,
        settings.drain,
        _leftovers(services, signals) if command else None,
    )


def _lease_watch(services: Services, fence: WriterLease, signals: Signals, *, owns_app: bool) -> LeaseWatch:
    settings = services.configuration.settings
    return LeaseWatch(
        fence,
        signals,
        services.status,
        settings.on_lease_lost,
        services.require_mounted,
        settings.lease_wait,
        ask=settings.lease_handoff == "request",
        owns_app=owns_app,
    )


def _leftovers(services: Services, signals: Signals) -> Leftovers | None:
    """The app's descendants, if we are to look after them and the system lets us."""
    if services.configuration.settings.follow_descendants == "off" or not become_subreaper():
        return None
    databases = [database.path for database in services.databases]
    return Leftovers(Descendants(Proc(), services.clock), databases, signals)


def _drills(services: Services, backups: Sequence[Backup]) -> list[Work]:
    """The drills of all databases, one at a time."""
    alone, interval = anyio.Lock(), services.configuration.settings.drill_interval
    return [partial(services.drill(backup, alone).run, interval) for backup in backups if interval]


@asynccontextmanager
async def _outermost(services: Services, server: Server) -> AsyncIterator[None]:
    """The outermost scope: the locks of this machine, HTTP, the control socket and notifications."""
    settings, status = services.configuration.settings, services.status
    control = control_path(settings.control_socket, services.databases)
    notifier = _notifier(services)
    async with AsyncExitStack() as stack:
        stack.enter_context(services.locks(control))
        address = listen_address(settings.listen)
        public = await listen(*address) if address else []
        private = _listen_privately(control, optional=settings.control_socket == "auto") if control else []
        if control and private:
            stack.callback(control.unlink, missing_ok=True)
        await stack.enter_async_context(server.running(public, private))
        await stack.enter_async_context(notifier.running())
        if services.configuration.sources["store"] == "default":
            status.remark = ON_THIS_DISK
            log.warning(ON_THIS_DISK[0], store=services.store.url, hint=ON_THIS_DISK[1])
        try:
            yield
        except (Exception, BaseExceptionGroup) as error:
            notifier.report_end(error)
            raise


def _notifier(services: Services) -> Notifier:
    """The notifier, which sends what `status` reports to people."""
    settings = services.configuration.settings
    beat = settings.heartbeat_url
    return Notifier(
        services.status,
        services.clock,
        [_webhook(f"notify[{each}]", url) for each, url in enumerate(settings.notify, 1)],
        heartbeat=_webhook("heartbeat_url", beat) if beat else None,
        growth=settings.alert_growth,
        holder=services.holder,
    )


def _webhook(name: str, url: SecretStr) -> Receiver:
    from sidecar.monitoring.webhook import (
        Webhook,
    )  # with an HTTP client, which a daemon with nobody to tell does without

    return Webhook(name, url.get_secret_value())


def _listen_privately(path: Path, *, optional: bool) -> list[socket.socket]:
    """The control socket. One that was not asked for by name is optional: better none than not to start."""
    try:
        return [listen_privately(path)]
    except ConfigurationError as error:
        if not optional:
            raise
        log.warning("no control socket", error=error.message, hint=error.hint)
        return []


def _server(services: Services, background: Background, on_demand: OnDemand) -> Server:
    """The HTTP server, not loaded yet."""
    settings, status = services.configuration.settings, services.status
    app_metrics = _app_metrics(settings.app_metrics_url) if settings.app_metrics_url else None

    def load(public: Sequence[socket.socket], private: Sequence[socket.socket]) -> AbstractAsyncContextManager[None]:
        from sidecar.daemon.control import add_backup, add_wait
        from sidecar.monitoring.http import HttpInterface, serving

        http = HttpInterface(status, _metrics_of(status), background.observe, app_metrics)
        control = add_wait(add_backup(http.application(), status, on_demand.backup), on_demand.confirm)
        return serving([(add_wait(http.application(), on_demand.confirm), public), (control, private)])

    return Server(load, status)


def _app_metrics(url: str) -> "AppMetrics":
    from sidecar.monitoring.app_metrics import AppMetrics  # with an HTTP client, which others do without

    return AppMetrics(url, _is_acceptable)


def _is_acceptable(text: str) -> bool:
    from sidecar.monitoring.metrics import acceptable

    return acceptable(text)


def _metrics_of(status: Status) -> Callable[[], bytes]:
    """Renders the metrics. The Prometheus client is imported with the first scrape: no app waits for it."""

    @cache
    def renderer() -> Callable[[], bytes]:
        from sidecar.monitoring.metrics import Metrics

        return Metrics(status).render

    return lambda: renderer()()
