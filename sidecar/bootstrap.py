"""Composition root: the only place that builds services. The process that calls it stays as it is.

One file, although a long one, so that all connections between services can be read in one place.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from sidecar import __version__
from sidecar.backup import (
    Backup,
    DivergedLine,
    Gate,
    ImageCache,
    Pace,
    Repository,
    SnapshotCheck,
    Stream,
    StreamOptions,
    build_backup,
    build_stream,
    looks,
)
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import (
    Driver,
    Feed,
    Lineage,
    Snapshotter,
    SqliteIntegrity,
    SqliteSnapshotter,
    StorePlace,
    WalOrigins,
    default_driver,
)
from sidecar.database.staging import Staging, available_memory
from sidecar.database.wal import Capture, unsuitable
from sidecar.errors import ConfigurationError
from sidecar.host import (
    Clock,
    SystemClock,
    give_restored,
    hand_over,
    is_durable,
    local_errors,
    local_locks,
    make_directory,
    mount_of,
    to_become,
)
from sidecar.lease import Fence, FormerLease, Identity, Lease, NoLease, WriterLease, read_lease
from sidecar.lease.site import LeaseSite, Place, open_site
from sidecar.log import log
from sidecar.model import Account, Database, Permissions
from sidecar.monitoring import StoreListing
from sidecar.policies import Expires
from sidecar.progress import Show, progress_log
from sidecar.repository import CHECK_EVERY, Catalog, PlacedStore, Publisher, PublisherIdentity, Reader
from sidecar.repository.expiry import what_expires
from sidecar.repository.holds import Holds
from sidecar.repository.increments import Increments
from sidecar.restore import (
    Boot,
    DescentLook,
    Drill,
    Placement,
    Prover,
    Recovery,
    RollForward,
    StreamProof,
    Survey,
    Throttle,
    require_mounted,
)
from sidecar.restore.fetching import AT_ONCE as SEGMENTS_AT_ONCE
from sidecar.settings import Configuration
from sidecar.settings.access import lease_access, store_access
from sidecar.status import Status
from sidecar.storage import (
    Credentials,
    FileBacked,
    Learner,
    Lifecycle,
    LookedUp,
    Metered,
    Neighbours,
    ObjectStore,
    Probe,
    Prunable,
    Retrying,
    RetryingPrunable,
    RetryPolicy,
    StoreLocation,
    parse_location,
    without_password,
)

CYCLE_PATIENCE = 30.0
AT_ONCE = 2  # cycles of different databases: one that is stalled does not hold up all others, and memory stays bounded


@dataclass(frozen=True, slots=True)
class Streams:
    """The stream of each database, by name. Inside `following` their commits can be captured."""

    by_name: Mapping[str, Stream]
    following: Callable[[], AbstractAsyncContextManager[None]] = nullcontext


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
    prunable: Prunable
    file_backed: FileBacked | None = None
    credentials: Credentials | None = None  # None: the SDK finds its own, or the store needs none
    probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    endpoint: str = ""  # the store's server, without a password; empty for a store on this machine
    neighbours: Neighbours | None = None
    learner: Learner | None = None  # None: a store on this machine, of which all is known
    feeds: dict[Path, Feed] = field(default_factory=dict)  # of the databases that are followed, by path
    origins: WalOrigins = field(default_factory=WalOrigins)
    lease_site: LeaseSite | None = None  # None: the lease is in the store itself

    @property
    def holder(self) -> str:
        """Our identity in the store."""
        return self.configuration.environment.holder

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of a cycle's requests."""
        return RetryPolicy(min(CYCLE_PATIENCE, max(1.0, self.configuration.settings.interval.total_seconds() / 4)))

    def catalog(self, policy: RetryPolicy | None = None) -> Catalog:
        """The store's restore points, its requests retried by this policy, by default a cycle's."""
        policy, site = policy or self.retry_policy, self.lease_site
        placing = self.status.expires is Expires.PREFIXES
        store = PlacedStore(Retrying(LookedUp(self.store), self.clock, policy), placing=placing)
        return Catalog(store, Retrying(site.store, self.clock, policy), site.of) if site else Catalog(store)

    def fence(self, *, returning: bool = True) -> WriterLease:
        """The lease that makes us the only writer, acquired with the retry policy of a boot; see `Identity.returning`."""
        settings, site = self.configuration.settings, self.lease_site
        catalog = self.catalog(self.boot_retry_policy)
        if settings.lease == "off":
            return NoLease(catalog.store, partial(read_lease, catalog.lease_store, catalog.name))
        policy = RetryPolicy(settings.lease_ttl.total_seconds() / 6)
        plain = site.store if site else self.store  # never one that looks up first instead of a condition
        store, boot_store = (Retrying(plain, self.clock, each) for each in (policy, self.boot_retry_policy))
        self.status.lease.enabled, self.status.lease.holder = True, self.holder
        me = Identity(self.holder, secrets.token_hex(8), settings.lease_ttl, returning, site.of if site else "")
        highest_epoch = partial(catalog.highest_epoch, [database.name for database in self.databases])
        former = FormerLease(catalog.store, site.store.url) if site else None
        return Lease(store, boot_store, self.clock, self.status.lease, me, highest_epoch, former)

    @property
    def boot_retry_policy(self) -> RetryPolicy:
        """The retry policy of a boot's requests, and of a command that needs the lease."""
        return RetryPolicy(self.configuration.settings.restore_timeout.total_seconds(), hard_deadline=True)

    def locks(self, control: Path | None) -> AbstractContextManager[None]:
        """Be the only sidecar of these databases, and with a lease of this store, on this machine."""
        holder = None if self.configuration.settings.lease == "off" else self.holder
        return local_locks(self.databases, control, self.store.url, holder, self.endpoint)

    def entrust(self) -> Account | None:
        """Let `app_user` own the databases; returns who that is, unless it is who we are. Raises `ConfigurationError`."""
        settings = self.configuration.settings
        account = to_become(settings.app_user)
        if account:
            for each in self.databases:
                with local_errors(each.path):
                    make_directory(each.path.parent, Permissions(account.uid, account.gid, 0))
            hand_over([each.path for each in self.databases], account, settings.databases)
        return account

    def give(self, database: Path, recorded: Permissions | None, restored: Path) -> None:
        """Give a restored file, not yet in its database's place, the owner and mode that it is to have."""
        give_restored(database, recorded, restored, to_become(self.configuration.settings.app_user))

    def publisher(self, catalog: Catalog, show: Show = progress_log) -> Publisher:
        """Publishes in our name; `show` displays the progress of a publish."""
        settings = self.configuration.settings
        return Publisher(
            catalog.store,
            PublisherIdentity(self.holder, __version__),
            part_size=settings.part_size,
            concurrency=settings.concurrency,
            level=settings.compression_level,
            show=show,
        )

    def reader(
        self, catalog: Catalog, *, integrity: str | None = None, concurrency: int | None = None, trusting: bool = False
    ) -> Reader:
        """Reads the restore points of this catalog, with the configured check and concurrency or the given ones."""
        settings = self.configuration.settings
        return Reader(
            catalog.store,
            SqliteIntegrity(self.driver),
            part_size=settings.part_size,
            concurrency=concurrency or settings.concurrency,
            integrity=integrity or settings.integrity_check,
            trusting=trusting,
        )

    def survey(self, policy: RetryPolicy | None = None) -> Survey:
        """Looks at databases as a boot does, with the configured boot table."""
        settings = self.configuration.settings
        catalog, policies = self.catalog(policy), (settings.on_empty_store, settings.on_conflict)
        descent = DescentLook(catalog, build_roll_forward(self, catalog), Increments(catalog.store), self.driver)
        return Survey(catalog, self.snapshotter, *policies, self.neighbours, descent)

    def boot(self, fence: Fence, *, alone: bool) -> Boot:
        """The boot of one database, before the app starts, with the retry policy that `restore_timeout` sets.

        `alone` says that nobody can have the databases open yet: the app is ours to start.
        """
        policy = self.boot_retry_policy
        catalog = self.catalog(policy)
        reader, survey = self.reader(catalog, trusting=True), self.survey(policy)
        placement = Placement(self.snapshotter, catalog.store, self.durable, self.give, alone=alone)
        strict = self.configuration.settings.integrity_check == "strict"
        recovery = Recovery(catalog, reader, build_roll_forward(self, catalog))
        return Boot(survey, recovery, placement, self.snapshotter, fence, self.status, self.clock, strict=strict)

    def streams(self, fence: Fence) -> Streams:
        """The streams of the databases; none where nothing is to be streamed."""
        settings = self.configuration.settings
        reason = settings.why_not_streamed
        for each in self.status.databases.values():
            each.stream.setting, each.stream.reason = settings.stream, reason or "the daemon is starting"
        if reason:
            if settings.stream != "off":
                log.info("not streaming", reason=reason)
            return Streams({})
        self.status.stream_interval = settings.stream_interval
        capture = Capture(self.driver)
        self.feeds.update((each.path, capture.feed(each.path)) for each in self.databases)
        pace = Pace(settings.stream_interval.total_seconds(), self.clock)
        options = StreamOptions(
            self.holder, self.driver.version, settings.interval, pace, ImageCache.within(available_memory())
        )
        increments, status, clock = Increments(self.catalog().store), self.status, self.clock
        always, never, look = settings.stream == "on", partial(unsuitable, driver=self.driver), looks()
        gates = {
            each.name: Gate(each.path, self.origins, settings.interval, clock, always=always, never=never, look=look)
            for each in self.databases
        }
        streams = {
            each.name: build_stream(
                each,
                self.feeds[each.path],
                gates[each.name],
                increments,
                self.lineage(each),
                fence,
                options,
                status,
                clock,
            )
            for each in self.databases
        }
        return Streams(streams, capture.running)

    def backups(
        self, fence: Fence, show: Show = progress_log, streams: Mapping[str, Stream] | None = None
    ) -> list[Backup]:
        """The backup of each database, with its stream; `show` displays the progress of a publish."""
        catalog = self.catalog()
        # A directory is looked at and pruned by every cycle: that costs nothing. Elsewhere a task of its own prunes, if any.
        check_every, prunable = (0.0, self.prunable) if self.file_backed else (CHECK_EVERY, None)
        holds = None if self.file_backed else Holds(catalog.store)
        publisher, reader, settings = self.publisher(catalog, show), self.reader(catalog), self.configuration.settings
        repository = Repository(catalog, publisher, reader, settings.retention_days, prunable, holds, check_every)
        checker, mode = SqliteIntegrity(self.driver, self.feeds), settings.integrity_check
        return [
            build_backup(
                each,
                self.lineage(each),
                repository,
                self.snapshotter,
                self.status,
                self.clock,
                fence,
                self.turn,
                SnapshotCheck(each, checker, mode, self.status, self.clock),
                (streams or {}).get(each.name),
            )
            for each in self.databases
        ]

    def diverged_line(self, fence: Fence, show: Show = progress_log) -> DivergedLine:
        """Publishes databases that were moved aside, under `diverged/`."""
        catalog = self.catalog()
        publisher, reader = self.publisher(catalog, show), self.reader(catalog)
        return DivergedLine(self.holder, self.snapshotter, catalog, publisher, reader, fence, self.turn)

    def drill(self, backup: Backup, alone: anyio.Lock) -> Drill:
        """The drills of one database: one range at a time, the full integrity check. Those that share `alone` take turns."""
        catalog, database, share = self.catalog(), backup.database, 3  # scratch, a snapshot, and room for the app
        prover = self.prover(catalog, database, "drill", share)
        forward, reader = build_roll_forward(self, catalog), self.reader(catalog, integrity="none", concurrency=1)
        prover.stream = StreamProof(catalog, reader, forward, self.staging, database.path, share, self.status.keep)
        throttle, mark = Throttle(self.turn, self.clock, alone), backup.cycle.mark
        return Drill(database.name, catalog, prover, throttle, self.status, self.clock, backup, mark)

    def prover(
        self,
        catalog: Catalog,
        database: Database,
        name: str,
        share: int = 1,
        concurrency: int = 1,
        *,
        tail: bool = True,
    ) -> Prover:
        """Restores to scratch; `name` keeps those apart that work at once, `share` says how many need room there.

        With `tail` the stream is applied to the restore point as a boot does it.
        """
        reader = self.reader(catalog, integrity="full", concurrency=concurrency)
        forward = build_roll_forward(self, catalog, "full") if tail else None
        return Prover(reader, self.staging, database, name, share, forward)

    def lineage(self, database: Database) -> Lineage:
        """The lineage marker of one database."""
        durable = self.durable(database.path)
        place = partial(_place_of, self.file_backed)
        return Lineage(database.path, self.store.url, durable=durable, place=place, endpoint=self.endpoint)

    async def require_mounted(self) -> None:
        """Raise `StoreMissing` when the local databases come from a file system that is not mounted now."""
        lineages = {database: self.lineage(database) for database in self.databases}
        await require_mounted(lineages, self.catalog(self.boot_retry_policy), self.file_backed)

    def durable(self, path: Path) -> bool:
        """Whether files at a path must be fsynced."""
        mode = self.configuration.settings.durability
        return is_durable(path.parent, mode, ephemeral_root=self.configuration.environment.on_fly)


def build_roll_forward(services: Services, catalog: Catalog, integrity: str | None = None) -> RollForward:
    """Applies the streams of this catalog's store to restore points, with the configured check or the given one."""
    mode = integrity or services.configuration.settings.integrity_check
    return RollForward(Increments(catalog.store), catalog.ends, SqliteIntegrity(services.driver), mode)


def build_inspector(services: Services) -> Snapshotter:
    """A snapshotter that changes nothing about a database."""
    return SqliteSnapshotter(services.staging, driver=services.driver, switch_to_wal=False)


def build_listing(services: Services, catalog: Catalog | None = None) -> StoreListing:
    """The listing of the store, with the options that `sidecar restore` needs beside this process's environment."""
    configuration, databases = services.configuration, services.databases
    sources, store = configuration.sources, without_password(configuration.settings.store)
    options = ["--store", store] if sources["store"] == "flag" else []
    named = len(databases) > 1 or sources["databases"] == "flag"
    each = {one.name: [*options, *(["--database", str(one.path)] if named else [])] for one in databases}
    keep, catalog = configuration.settings.retention_days, catalog or services.catalog()
    return StoreListing(catalog, services.status, services.holder, each, keep)


@asynccontextmanager
async def open_services(configuration: Configuration, driver: Driver | None = None) -> AsyncIterator[Services]:
    """Services for this configuration. Opens no connection yet: a store that is down fails at its first request.

    `driver` is the SQLite library that this process uses for the databases already, if it does (see `database.driver`).
    """
    driver, settings, clock = driver or default_driver(), configuration.settings, SystemClock()
    databases = settings.database_list()
    location, shown = parse_location(settings.store), without_password(settings.store)
    status = Status(databases, shown, __version__, clock.now, billable=location.billable)
    staging = _staging(settings.staging_dir)
    feeds: dict[Path, Feed] = {}
    switch_to_wal, origins = settings.journal_mode == "wal", WalOrigins()
    snapshotter = SqliteSnapshotter(staging, driver=driver, switch_to_wal=switch_to_wal, feeds=feeds, origins=origins)
    status.sqlite_version = snapshotter.sqlite_version()
    status.by_need, status.interval = settings.restore_points == "auto", settings.interval
    status.final_backup_timeout = settings.final_backup_timeout
    status.final_backup_timeout = settings.final_backup_timeout
    status.drill_interval, status.keep = settings.drill_interval, settings.retention_days
    connections = 2 * settings.concurrency + 2 + SEGMENTS_AT_ONCE
    access = store_access(configuration, clock, partial(setattr, status, "credentials_expiry"), connections)
    metered, turn = partial(Metered, clock=clock, status=status), ConcurrencyLimit(AT_ONCE)
    leases = settings.lease_store, lease_access(configuration, clock)
    async with (
        location.open(access) as found,
        open_site(*leases, Place(location, found.endpoint, found.store), metered) as site,
    ):
        status.expires = what_expires(found.store.traits, prunes=bool(found.file_backed) or settings.prune == "on")
        services = Services(
            configuration,
            databases,
            clock,
            status,
            metered(found.store),
            driver,
            snapshotter,
            staging,
            turn,
            location,
            RetryingPrunable(found.prunable, clock, RetryPolicy(CYCLE_PATIENCE), status),
            found.file_backed,
            found.credentials,
            found.probe,
            found.lifecycle,
            found.endpoint,
            found.neighbours,
            found.learner,
            feeds,
            origins,
            site,
        )
        origins.keep_in((each.path, services.lineage(each)) for each in databases)
        yield services


def _staging(directory: str) -> Staging:
    if directory == "auto":
        return Staging(None)
    if not Path(directory).is_dir():
        raise ConfigurationError(f"staging_dir: {directory} is not a directory", "create it, or leave staging_dir out")
    return Staging(Path(directory))


def _place_of(store: FileBacked | None) -> StorePlace | None:
    if store is None:
        return None
    mount = mount_of(store.directory)
    return StorePlace(store.identity, *(mount or ()))
