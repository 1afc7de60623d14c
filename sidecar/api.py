"""The library: `sidecar.open` gives a session, whose methods do what the commands do and return values.

One file, so that what the library offers can be read in one place.

A session changes nothing about the process that it runs in: no signal handler, no allocator or collector setting, no
executor and no event loop of its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio

from sidecar.backup import Start
from sidecar.backup.by_hand import BackupResult, no_database, publish_by_hand
from sidecar.bootstrap import Services, build_listing, build_roll_forward, open_services
from sidecar.compare.exported import ExportedState
from sidecar.compare.options import Options
from sidecar.compare.reading import Result as Difference
from sidecar.concurrency import in_own_task
from sidecar.database import Driver, require_own_name, standard_driver
from sidecar.errors import ConfigurationError, NotDurable, SidecarError, UsageError
from sidecar.host.control import ask_for_backup, ask_for_status, ask_to_wait, wait_timeout
from sidecar.model import Database, Timestamp
from sidecar.monitoring.acknowledgement import KINDS, Acknowledged, acknowledge_all, require_kind
from sidecar.monitoring.events import Events
from sidecar.monitoring.incident_store import close_incidents
from sidecar.monitoring.store_status import StoreReader
from sidecar.progress import Show, no_progress
from sidecar.repository import OTHERS, Catalog, DatabaseHistory, History, describe, with_lines
from sidecar.repository.increments import Increments
from sidecar.repository.streams import ListedStream, Streams
from sidecar.restore import require_descent
from sidecar.restore.by_hand import RestoreByHand, RestoreResult
from sidecar.restore.selection import Selector
from sidecar.restore.verification import Verification, VerificationReport
from sidecar.settings import Configuration, Settings
from sidecar.settings.given import configure
from sidecar.states import difference, opened_state
from sidecar.states.chosen_tables import ChosenTables
from sidecar.status import Event, Health, Kind, Level
from sidecar.status.store import StoreStatus, status_of_machine
from sidecar.storage import RetryPolicy

STATUS_PATIENCE = RetryPolicy(2.0, hard_deadline=True)  # whoever asks for the status waits for it


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Whether the databases are protected, according to this machine's daemon, or else to the store.

    `values` is everything that is known, as `sidecar status --json` prints it.
    """

    health: Health
    values: Mapping[str, Any]

    @property
    def source(self) -> str:
        """`daemon` or `store`."""
        return str(self.values["source"])

    @property
    def databases(self) -> tuple[Mapping[str, Any], ...]:
        """One mapping for each database."""
        return tuple(self.values["databases"])


@dataclass(frozen=True, slots=True)
class Durable:
    """What was waited for is stored. `commits` has the number of the last commit of each database in its stream."""

    seconds: float
    commits: Mapping[str, int]


class Sidecar:
    """A session: databases and their store. Use `sidecar.open` to get one."""

    def __init__(self, services: Services, show: Show = no_progress) -> None:
        """`show` opens the progress of a piece of work under a title."""
        self._services = services
        self._show = show
        self._alone = anyio.Lock()
        self._listeners: list[Events] = []
        services.status.listener = self._report

    @property
    def databases(self) -> tuple[Database, ...]:
        """The databases, in the order of the settings."""
        return self._services.databases

    @property
    def place(self) -> str:
        """The store's URL without a password, and whether the directory is missing."""
        directory, shown = self._services.location.directory, self._services.status.store
        return shown if directory is None or directory.exists() else f"{shown}, which does not exist"

    @in_own_task
    async def backup(self, *, check: bool = True) -> BackupResult:
        """Publish a restore point of every database that has changed.

        The daemon of this machine does it when one runs; else this session becomes the holder for the time of one
        publish of each. Raises the first `SidecarError`; with `check=False` an outcome that a daemon reports as failed
        is returned like the others.
        """
        async with self._alone:
            url = self._services.store.url
            with self._show("backup") as progress:
                answer: Any = await ask_for_backup(self.databases, url, progress, self._services.endpoint)
            result = (
                BackupResult.of_answer(answer, self.databases)
                if answer
                else await _backup_here(self._services, self._show)
            )
        if check:
            result.require_success()
        return result

    @in_own_task
    async def restore(
        self,
        database: str | None = None,
        *,
        at: datetime | Timestamp | None = None,
        key: str | None = None,
        stream: str | None = None,
        output: str | os.PathLike[str] | None = None,
        force: bool = False,
    ) -> RestoreResult:
        """Restore the newest state of a database, that of the instant `at`, the restore point with `key`, or the end of a `stream`.

        The newest state is the newest restore point with the stream that follows it. `at` is exact to the commit where the
        database was streamed: `reached` in the result says which commit that is; else it is the newest restore point at or
        before it. It is written to `output`, by default to the database's own path. An existing file is replaced only with
        `force`, and kept beside the new one. `database` may be left out where there is only one. Raises
        `NothingToRestore`, also for an instant whose commits are lost, `DamagedRestorePoint`, `DamagedDatabase` when SQLite
        cannot walk the result, `UsageError`, and `DatabaseBusy` when a process has the file open, this one included.
        """
        if sum(each is not None for each in (at, key, stream)) > 1:
            raise UsageError("a time, a key and a stream exclude each other", "give one of them")
        chosen = self._database(database)
        services = self._services
        catalog = services.catalog()
        by_hand = RestoreByHand(
            catalog,
            Selector(
                catalog,
                services.reader(catalog),
                build_roll_forward(services, catalog),
                _streams(catalog),
                self._show,
            ),
            services.snapshotter,
            services.lineage,
            durable=services.durable,
            hand_over=services.entrust,
            entrust=services.give,
        )
        target = Path(output).resolve() if output else None
        async with self._alone:
            return await by_hand.restore(chosen, at=_instant(at), key=key, stream=stream, output=target, force=force)

    def tables(self, *names: str, database: str | None = None, state: str = "newest") -> ChosenTables:
        """These tables of a state, which is named as for `sidecar diff`: for a new database, or for the live one."""
        chosen = self._database(database)
        return ChosenTables(self._services, chosen, names, state, self._show, partial(_publish, self, chosen))

    @in_own_task
    async def list(self, *, diverged: bool = False) -> History:
        """List the restore points of every database, or the states that lost a conflict."""
        catalog = self._services.catalog()
        found = []
        for each in self.databases:
            points = [point async for point in catalog.points(each.name, diverged=diverged)]
            entries = await describe(catalog, points)
            known = entries if diverged else await with_lines(catalog, each.name, entries)
            found.append(DatabaseHistory(each.name, tuple(known)))
        now = await self._services.store.now()
        missing = not diverged and not all(each.restore_points for each in found)
        others = tuple(await catalog.names(OTHERS)) if missing else ()
        return History(self._services.store.url, now, tuple(found), others)

    @in_own_task
    async def streams(self) -> Mapping[str, tuple[ListedStream, ...]]:
        """The streams of every database by its name, oldest first, and which of them the main line went through."""
        streams = _streams(self._services.catalog())
        return {each.name: await streams.listing(each.name) for each in self.databases}

    def diff(
        self,
        *states: str,
        database: str | None = None,
        tables: Sequence[str] = (),
        ignore: Sequence[str] = (),
        keys: Mapping[str, Sequence[str]] | None = None,
        everything: bool = False,
        skip_damaged: bool = False,
    ) -> AbstractAsyncContextManager[Difference]:
        """Compare two states, which are named as for `sidecar diff`; the difference can be read inside the block.

        By default the newest state in the store and the live database. `ignore` are columns whose differences are none, `keys`
        what rows of a table are matched by. At most 100,000 rows of a table are kept, and long values are shortened, unless
        `everything` is kept. With `skip_damaged`, tables that cannot be read are listed as not compared.

        Raises `UsageError`, `NothingToRestore`, `DamagedRestorePoint`, `DamagedDatabase`, `NoRoom`.
        """
        chosen = {table: tuple(columns) for table, columns in (keys or {}).items()}
        options = Options(tuple(tables), tuple(ignore), chosen, skip_damaged=skip_damaged)
        found = self._database(database)
        return difference(self._services, found, states, options, self._show, everything=everything)

    @asynccontextmanager
    async def export(self, state: str | None = None, *, database: str | None = None) -> AsyncIterator[ExportedState]:
        """Read the rows of a state, by default of the live database, inside the block. Raises as `diff`."""
        async with opened_state(self._services, self._database(database), state, self._show) as opened:
            yield ExportedState(opened)

    @in_own_task
    async def verify(self, *, all: bool = False) -> VerificationReport:  # noqa: A002 - the option's name
        """Prove the newest restore point of every database, or all: restore it to scratch, check digests and SQLite's integrity.

        The newest has the stream that follows it applied; with `all` every segment of every stream is verified, too. Raises
        `NothingToRestore` when there is none; `VerificationReport.require_good` raises for those that are bad.
        """
        services, catalog = self._services, self._services.catalog()
        concurrency = services.configuration.settings.concurrency
        verification = Verification(
            catalog,
            partial(services.prover, catalog, tail=not all),
            self._show,
            concurrency=concurrency,
            increments=Increments(catalog.store),
        )
        return await verification.verify(self.databases, every=all)

    @in_own_task
    async def status(self) -> StatusReport:
        """Whether the databases are protected, according to this machine's daemon, or else to the store."""
        values: Any = await ask_for_status(self.databases, self._services.store.url, self._services.endpoint)
        values = values or (await _status_of_store(self._services, self._names, self.place)).as_dict()
        return StatusReport(_parse_health(values["verdict"]), values)

    @in_own_task
    async def durable(self, database: str | None = None, *, timeout: float = 5.0) -> Durable:
        """Return once everything that was committed before this call is in the store: in this database, or in all of them.

        The daemon of this machine says so; it needs to stream. `timeout` is in seconds, from 0.01 to 600. Raises `NotDurable`
        when that is not known, and `UsageError` for another database or timeout. What was committed stays in the database.
        """
        chosen, limit = self._database(database).name if database else None, wait_timeout(timeout)
        answer: Any = await ask_to_wait(
            self.databases, self._services.store.url, chosen, limit, self._services.endpoint
        )
        if answer is None:
            raise NotDurable("no sidecar runs for these databases on this machine", "start the app under `sidecar run`")
        if not answer["stored"]:
            raise NotDurable(answer["error"], answer["hint"], retry_after=answer["retry_after"])
        return Durable(answer["seconds"], {name: each["commit"] for name, each in answer["databases"].items()})

    def status_without_store(self, failure: SidecarError) -> StatusReport:
        """What this machine alone knows, when `status` has failed because the store did not answer."""
        lineages = {each.name: self._services.lineage(each).on_this_disk() for each in self.databases}
        known = {name: marker.last if marker else None for name, marker in lineages.items()}
        values = status_of_machine(self._services.status.store, known, failure.message, failure.hint or "")
        return StatusReport(_parse_health(values["verdict"]), values)

    @in_own_task
    async def ack(self, kind: Kind | str | None = None, *, all: bool = False, note: str = "") -> Acknowledged:  # noqa: A002 - the option's name
        """Acknowledge the open incidents of this kind, or all of them; without either only say which are open.

        `note` is kept in the store. A daemon notices it within a minute. Raises `UsageError` for a kind that does not
        exist, and `AccessDenied` when these credentials may not write to the store.
        """
        kinds = KINDS if all else require_kind(kind) if kind else ()
        catalog, now = self._services.catalog(), self._services.clock.now()
        return await acknowledge_all(catalog, self._names, kinds, note, now)

    def events(self) -> Events:
        """Iterate over the events of this session from now on, until it ends: publishes, failures and findings.

        Events of a daemon are not among them: it sends them to its own webhooks.
        """
        events = Events()
        self._listeners.append(events)
        return events

    def end(self) -> None:
        """End the iterators of `events`."""
        for each in self._listeners:
            each.end()

    def _report(self, event: Event) -> None:
        for each in self._listeners:
            each.add(event)

    def _database(self, name: str | None) -> Database:
        if name is None and len(self.databases) > 1:
            raise UsageError("there are several databases", f"name one of {', '.join(self._names)}")
        found = next((each for each in self.databases if name in {None, each.name}), None)
        if found is None:
            raise UsageError(f"{name} is not one of the databases", f"the databases are: {', '.join(self._names)}")
        return found

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.databases)


async def _publish(session: Sidecar, database: Database) -> str | None:
    """Publish a restore point, unless the newest one is as new. Returns its key."""
    return next(each.restore_point for each in (await session.backup()).databases if each.database == database)


async def _backup_here(services: Services, show: Show) -> BackupResult:
    """Become the holder for the time of one publish of each database."""
    for database in services.databases:
        require_own_name(database.path)
        if services.snapshotter.signature(database.path) is None:
            raise no_database(str(database.path))
    fence = services.fence(returning=False)
    with services.locks(None):
        try:
            await services.require_mounted()
            await fence.acquire(_lease_patience(services.configuration))
            async with fence.renewing():
                return await publish_by_hand(
                    services.backups(fence, show),
                    fence,
                    partial(_find_start, services),
                    partial(close_incidents, services.catalog().lease_store),
                )
        finally:
            await fence.release()


async def _find_start(services: Services, database: Database) -> Start:
    """The start of a backup by hand. Raises `ConfigurationError` for a database of another lineage."""
    lineage = services.lineage(database)
    found = await services.survey().look(database, lineage)
    require_descent(found)
    lineage.refresh()
    return Start(found.newest, found.marker)


async def _status_of_store(services: Services, names: tuple[str, ...], place: str) -> StoreStatus:
    catalog = services.catalog(STATUS_PATIENCE)
    drills = services.configuration.settings.drill_interval
    reader = StoreReader(catalog, services.reader(catalog), build_listing(services, catalog), drills, services.status)
    return await reader.read(names, store=services.status.store, place=place, now=services.clock.now())


@asynccontextmanager
async def open_session(
    settings: Settings | None = None,
    *,
    sqlite: ModuleType | None = None,
    progress: Show = no_progress,
    **values: Any,
) -> AsyncIterator[Sidecar]:
    """Open a session with these settings, or with settings given by name: `databases`, `store` and whatever else.

    Neither `SIDECAR_*` variables nor `sidecar.toml` are read; credentials come from the `AWS_*` variables. Nothing is
    connected yet: a store that is unreachable fails at the first request. `sqlite` is the module that this process uses
    for these databases, by default the standard library's `sqlite3`: a second SQLite library would drop the locks of the
    first one. `progress` is called with the title of a long
    piece of work and returns a context manager for a function that takes (bytes done, total bytes). Needs asyncio.
    Raises `ConfigurationError`.
    """
    if settings is not None and values:
        raise UsageError("both a Settings object and settings by name are given", "give one of them")
    _require_asyncio()
    driver = Driver(sqlite) if sqlite else standard_driver()
    async with open_services(configure(settings or values), driver) as services:
        session = Sidecar(services, progress)
        try:
            yield session
        finally:
            session.end()


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError("sidecar needs a running asyncio event loop", "trio is not supported") from None


def _streams(catalog: Catalog) -> Streams:
    return Streams(catalog, Increments(catalog.store))


def _lease_patience(configuration: Configuration) -> timedelta:
    """How long to wait for another machine's lease: not at all, unless `lease_wait` was given."""
    asked = configuration.sources["lease_wait"] != "default"
    return configuration.settings.lease_wait if asked else timedelta(0)


def _instant(at: datetime | Timestamp | None) -> datetime | None:
    """An aware instant in UTC. Without a time zone it is taken as UTC."""
    if at is None:
        return None
    if isinstance(at, Timestamp):
        return at.instant
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _parse_health(values: Mapping[str, Any]) -> Health:
    since = datetime.fromisoformat(values["since"]) if values["since"] else None
    return Health(Level(values["level"]), values["title"], since, values["reason"], values["hint"])
