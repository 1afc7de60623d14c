"""Composition root: the only place that builds services. The process that calls it stays as it is."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio

from sidecar import __version__
from sidecar.backup.loop import Backup
from sidecar.backup.tools import Tools
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database.base import Snapshotter
from sidecar.database.driver import Driver, default_driver
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.lineage import Lineage, StorePlace
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError
from sidecar.host.accounts import to_become
from sidecar.host.clock import Clock, SystemClock
from sidecar.host.files import is_durable
from sidecar.host.locks import local_locks
from sidecar.host.mounts import mount_of
from sidecar.host.ownership import hand_over
from sidecar.lease.disabled import NoLease
from sidecar.lease.fence import Fence, WriterLease
from sidecar.lease.lease import Lease
from sidecar.lease.rules import Identity
from sidecar.model import Account, Database
from sidecar.monitoring.incidents import Incidents
from sidecar.monitoring.listing import StoreListing
from sidecar.monitoring.notifier import Notifier
from sidecar.monitoring.webhook import Webhook
from sidecar.progress import Show, progress_log
from sidecar.repository.catalog import Catalog
from sidecar.repository.existence import LOOK_EVERY
from sidecar.repository.reader import Reader
from sidecar.repository.writer import Publisher, PublisherIdentity
from sidecar.restore.boot import Boot
from sidecar.restore.drill import Drill, Prover
from sidecar.restore.mount_guard import require_origin
from sidecar.settings.configuration import Configuration
from sidecar.status.model import Status
from sidecar.storage.base import Credentials, FileBacked, ObjectStore, Probe, Prunable, StoreAccess, StoreLocation
from sidecar.storage.metering import Metered
from sidecar.storage.open import parse_location
from sidecar.storage.retry import Retrying, RetryPolicy
from sidecar.storage.urls import without_password

CYCLE_PATIENCE = 30.0
AT_ONCE = 2  # cycles of different databases: one that is stalled does not hold up all others, and memory stays bounded


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a command works with, wired to one store."""

    configuration: Configuration
    databases: tuple[Database, ...]
    clock: Clock
    status: Status
    store: ObjectStore
    driver: Driver
    snapshotter: Snapshotter
    staging: Staging
    turn: ConcurrencyLimit
    location: StoreLocation
    prunable: Prunable | None
    file_backed: FileBacked | None = None
    credentials: Credentials | None = None  # None: the SDK finds its own, or the store needs none
    probe: Probe | None = None

    @property
    def holder(self) -> str:
        """Who we are in the store."""
        return self.configuration.environment.holder

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of a cycle's requests."""
        return RetryPolicy(min(CYCLE_PATIENCE, max(1.0, self.configuration.settings.interval.total_seconds() / 4)))

    def catalog(self, policy: RetryPolicy | None = None) -> Catalog:
        """The store's restore points, its requests retried by this policy, by default a cycle's."""
        return Catalog(Retrying(self.store, self.clock, policy or self.retry_policy))

    def fence(self, *, returning: bool = True) -> WriterLease:
        """What makes us the only writer: the lease, acquired with the retry policy of a boot; see `Identity.returning`."""
        settings = self.configuration.settings
        later = Retrying(self.store, self.clock, RetryPolicy(settings.lease_ttl.total_seconds() / 6))
        if settings.lease == "off":
            return NoLease(self.catalog(self.boot_retry_policy).store)
        patient = Retrying(self.store, self.clock, self.boot_retry_policy)
        self.status.lease.enabled, self.status.lease.holder = True, self.holder
        me = Identity(self.holder, secrets.token_hex(8), settings.lease_ttl, returning)
        names = [database.name for database in self.databases]
        known = partial(self.catalog(self.boot_retry_policy).highest_epoch, names)
        return Lease(later, patient, self.clock, self.status.lease, me, known)

    @property
    def boot_retry_policy(self) -> RetryPolicy:
        """The retry policy of a boot's requests, and of a command that needs the lease."""
        return RetryPolicy(self.configuration.settings.restore_timeout.total_seconds(), hard_deadline=True)

    def locks(self, control: Path | None) -> AbstractContextManager[None]:
        """Be the only sidecar of these databases, and with a lease of this store, on this machine."""
        holder = None if self.configuration.settings.lease == "off" else self.holder
        return local_locks(self.databases, control, self.store.url, holder)

    def entrust(self) -> Account | None:
        """Let `app_user` own the databases; returns who that is, unless it is who we are. Raises `ConfigurationError`."""
        settings = self.configuration.settings
        account = to_become(settings.app_user)
        if account:
            hand_over([each.path for each in self.databases], account, settings.databases)
        return account

    def tools(self, fence: Fence, show: Show = progress_log) -> Tools:
        """What backups work with; `show` is told how far a publish is."""
        settings = self.configuration.settings
        catalog = self.catalog()
        publisher = Publisher(
            catalog.store,
            PublisherIdentity(self.holder, __version__),
            part_size=settings.part_size,
            concurrency=settings.concurrency,
            level=settings.compression_level,
            show=show,
        )
        reader = self.reader(catalog)
        return Tools(
            catalog,
            publisher,
            reader,
            self.snapshotter,
            self.status,
            self.clock,
            fence,
            self.turn,
            self.prunable,
            LOOK_EVERY if self.prunable is None else 0.0,  # a directory is looked at by every cycle: that costs nothing
        )

    def reader(self, catalog: Catalog, *, integrity: str | None = None, concurrency: int | None = None) -> Reader:
        """Reads the restore points of this catalog, with the configured check and concurrency or the given ones."""
        settings = self.configuration.settings
        return Reader(
            catalog.store,
            SqliteIntegrity(self.driver),
            part_size=settings.part_size,
            concurrency=concurrency or settings.concurrency,
            integrity=integrity or settings.integrity_check,
        )

    def boot(self, tools: Tools, *, alone: bool) -> Boot:
        """What happens before the app starts, as patient with the store as `restore_timeout` says.

        `alone` says that nobody can have the databases open yet: the app is ours to start.
        """
        settings = self.configuration.settings
        catalog = self.catalog(self.boot_retry_policy)
        return Boot(
            catalog,
            self.reader(catalog),
            tools,
            durable=self.durable,
            on_empty=settings.on_empty_store,
            on_conflict=settings.on_conflict,
            alone=alone,
        )

    def backup(self, database: Database, tools: Tools) -> Backup:
        """The backup of one database."""
        return Backup(database, self.lineage(database), tools)

    def drill(self, backup: Backup, tools: Tools, alone: anyio.Lock) -> Drill:
        """The drills of one database: one range at a time, the full integrity check."""
        prover = self.prover(
            tools.catalog, backup.database, "drill", share=3
        )  # scratch, a snapshot, and room for the app
        return Drill(backup, tools, tools.catalog, prover, alone)

    def prover(self, catalog: Catalog, database: Database, name: str, share: int = 1, concurrency: int = 1) -> Prover:
        """Restores to scratch; `name` keeps those apart that work at once, `share` says how many need room there."""
        reader = self.reader(catalog, integrity="full", concurrency=concurrency)
        return Prover(reader, self.staging, database, name, share)

    def notifier(self) -> Notifier:
        """Who is told of what `status` reports."""
        settings = self.configuration.settings
        beat = settings.heartbeat_url
        return Notifier(
            self.status,
            self.clock,
            [Webhook(f"notify[{each}]", url.get_secret_value()) for each, url in enumerate(settings.notify, 1)],
            heartbeat=Webhook("heartbeat_url", beat.get_secret_value()) if beat else None,
            growth=settings.alert_growth,
            holder=self.holder,
        )

    def inspector(self) -> Snapshotter:
        """A snapshotter that changes nothing about a database."""
        return SqliteSnapshotter(self.staging, driver=self.driver, switch_to_wal=False)

    def lineage(self, database: Database) -> Lineage:
        """The lineage marker of one database."""
        durable = self.durable(database.path)
        return Lineage(database.path, self.store.url, durable=durable, place=partial(_place_of, self.file_backed))

    async def require_origin(self) -> None:
        """See that the store's file system is there, where the local databases say that it was. Raises `StoreMissing`."""
        lineages = {database: self.lineage(database) for database in self.databases}
        await require_origin(lineages, self.catalog(self.boot_retry_policy), self.file_backed)

    def incidents(self, tools: Tools) -> Incidents:
        """The open incidents, kept over restarts."""
        return Incidents(tools.catalog, self.status, tools.fence)

    def listing(self, catalog: Catalog) -> StoreListing:
        """The listing of the store, with the options that `sidecar restore` needs beside this process's environment."""
        sources, store = self.configuration.sources, without_password(self.configuration.settings.store)
        options = ["--store", store] if sources["store"] == "flag" else []
        named = len(self.databases) > 1 or sources["databases"] == "flag"
        each = {one.name: [*options, *(["--database", str(one.path)] if named else [])] for one in self.databases}
        return StoreListing(catalog, self.status, self.holder, each)

    def durable(self, path: Path) -> bool:
        """Whether what is written at a path must be fsynced."""
        mode = self.configuration.settings.durability
        return is_durable(path.parent, mode, ephemeral_root=self.configuration.environment.on_fly)


@asynccontextmanager
async def open_services(configuration: Configuration, driver: Driver | None = None) -> AsyncIterator[Services]:
    """Services for this configuration. Opens no connection yet: a store that is down fails at its first request.

    `driver` is the SQLite library that this process uses for the databases already, if it does (see `database.driver`).
    """
    driver = driver or default_driver()
    settings = configuration.settings
    clock = SystemClock()
    databases = settings.database_list()
    location, shown = parse_location(settings.store), without_password(settings.store)
    status = Status(databases, shown, __version__, clock.now, billable=location.billable)
    if settings.staging_dir != "auto" and not Path(settings.staging_dir).is_dir():
        raise ConfigurationError(
            f"staging_dir: {settings.staging_dir} is no directory", "create it, or leave staging_dir out"
        )
    staging = Staging(None if settings.staging_dir == "auto" else Path(settings.staging_dir))
    snapshotter = SqliteSnapshotter(staging, driver=driver, switch_to_wal=settings.journal_mode == "wal")
    status.sqlite_version = snapshotter.sqlite_version()
    status.interval, status.final_backup_timeout = settings.interval, settings.final_backup_timeout
    status.drill_interval = settings.drill_interval
    async with location.open(_access(configuration, clock, status)) as found:
        metered, turn = Metered(found.store, clock, status), ConcurrencyLimit(AT_ONCE)
        yield Services(
            configuration,
            databases,
            clock,
            status,
            metered,
            driver,
            snapshotter,
            staging,
            turn,
            location,
            found.prunable,
            found.file_backed,
            found.credentials,
            found.probe,
        )


def _place_of(store: FileBacked | None) -> StorePlace | None:
    if store is None:
        return None
    mount = mount_of(store.directory)
    return StorePlace(store.identity, *(mount or ()))


def _access(configuration: Configuration, clock: Clock, status: Status) -> StoreAccess:
    environment, settings = configuration.environment, configuration.settings

    def renewed(expires: datetime) -> None:
        status.credentials_expiry = expires

    return StoreAccess(
        clock,
        renewed,
        endpoint=environment.endpoint,
        region=environment.region,
        connections=2 * settings.concurrency + 2,
        role_arn=environment.role_arn,
        session_name=environment.session_name,
        sts_endpoint=environment.sts_endpoint,
        token_file=Path(environment.token_file) if environment.token_file else None,
        machine_api=Path(settings.fly_api_socket),
        machine_api_expected=environment.on_fly or configuration.sources["fly_api_socket"] != "default",
    )
