"""The pieces of the program put together as `run` does, around a store and a database of the test."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import anyio

from sidecar.backup import Repository, build_backup
from sidecar.backup.diverged import DivergedLine
from sidecar.backup.history import Start
from sidecar.backup.snapshot_check import SnapshotCheck
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import Feed, default_driver
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.lineage import Lineage
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.host.clock import SystemClock
from sidecar.host.permissions import give_restored
from sidecar.lease.disabled import NoLease
from sidecar.lease.lease import Lease
from sidecar.lease.rules import Identity
from sidecar.model import Database, RestorePoint
from sidecar.policies import OnConflict, OnEmptyStore, RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.increments import Increments
from sidecar.repository.placed import PlacedStore
from sidecar.repository.reader import Reader
from sidecar.repository.writer import Publisher, PublisherIdentity
from sidecar.restore.boot import Boot, Booted
from sidecar.restore.descent import DescentLook
from sidecar.restore.drill import Drill
from sidecar.restore.placement import Placement
from sidecar.restore.proof import Prover, Throttle
from sidecar.restore.recovery import Recovery
from sidecar.restore.roll_forward import RollForward
from sidecar.restore.stream_proof import StreamProof
from sidecar.restore.survey import Survey
from sidecar.status.model import Status
from sidecar.storage.base import ObjectStore
from sidecar.storage.file.store import FileStore
from sidecar.storage.metering import Metered
from sidecar.storage.retry import Retrying, RetryPolicy
from tests.harness.writers import create_ledger, open_database, transfer

NAME = "app.db"


class Machine:
    """A machine with one database at `path`, and all that protects it."""

    def __init__(
        self,
        store: ObjectStore,
        path: Path,
        *,
        name: str = NAME,
        staging: Path | None = None,
        patience: float = 10.0,
        holder: str | None = None,
        ttl: timedelta = timedelta(minutes=1),
        checked: bool = True,
        placing: bool | None = None,
    ) -> None:
        """`placing`: whether restore points are placed for rules by prefix; None: by the store's traits. `checked`: SQLite's check is made of what is published. With a `holder` there is a lease, in its name; `patience` in seconds is that of every request."""
        clock = SystemClock()
        self.database = Database(name, path)
        self.status = Status((self.database,), store.url, "0", clock.now)
        self.retrying = Retrying(Metered(store, clock, self.status), clock, RetryPolicy(patience, first=0.05))
        self.store = PlacedStore(self.retrying, placing=placing)
        self.catalog = Catalog(self.store)
        self.staging = Staging(staging)
        self.feeds: dict[Path, Feed] = {}  # of the databases that are followed, by path
        self.snapshotter = SqliteSnapshotter(self.staging, feeds=self.feeds)
        publisher = Publisher(self.store, PublisherIdentity("test-machine", "0"), part_size=5 << 20)
        self.checker = SqliteIntegrity()
        self.reader = Reader(self.store, self.checker, part_size=5 << 20)
        me = Identity(holder, secrets.token_hex(8), ttl) if holder else None
        self.lease = Lease(self.store, self.store, clock, self.status.lease, me) if me else None
        fence, turn = self.lease or NoLease(self.store), ConcurrencyLimit(2)
        self.fence, self.turn, self.clock = fence, turn, clock
        self.alone = True
        self.lineage = Lineage(path, store.url, durable=False)
        repository = Repository(self.catalog, publisher, self.reader, RetentionDays())
        self.backup = build_backup(
            self.database,
            self.lineage,
            repository,
            self.snapshotter,
            self.status,
            clock,
            fence,
            turn,
            SnapshotCheck(self.database, self.checker, "quick" if checked else "none", self.status, clock),
        )
        self.diverged_line = DivergedLine(
            "machine", self.snapshotter, self.catalog, publisher, self.reader, fence, turn
        )

    async def boot(self, on_conflict: OnConflict = OnConflict.REMOTE, *, strict: bool = False) -> Booted:
        """What happens before the app starts."""
        booted = await self.booter(on_conflict, strict=strict).boot(self.database, self.lineage)
        start = Start(booted.newest, booted.marker, booted.restored, booted.publish, booted.continued)
        self.backup.cycle.start_from(start)
        return booted

    def booter(self, on_conflict: OnConflict = OnConflict.REMOTE, *, strict: bool = False) -> Boot:
        """What carries out the boot table."""
        descent = DescentLook(self.catalog, self.forward(), Increments(self.catalog.store), default_driver())
        survey = Survey(self.catalog, self.snapshotter, OnEmptyStore.START, on_conflict, descent=descent)
        placement = Placement(self.snapshotter, self.store, lambda _path: False, give_restored, alone=self.alone)
        return Boot(
            survey, self.recovery(), placement, self.snapshotter, self.fence, self.status, self.clock, strict=strict
        )

    def recovery(self) -> Recovery:
        """Stages what a boot restores."""
        return Recovery(self.catalog, self.reader, self.forward())

    def forward(self) -> RollForward:
        """Applies streams."""
        return RollForward(Increments(self.catalog.store), self.catalog.ends, self.checker)

    def drill(self) -> Drill:
        """What proves its newest restore point."""
        prover = self.prover(self.database, "drill")
        reader = Reader(self.store, self.checker, part_size=5 << 20, integrity="none")
        prover.stream = StreamProof(
            self.catalog, reader, self.forward(), self.staging, self.database.path, 1, RetentionDays()
        )
        throttle = Throttle(self.turn, self.clock, anyio.Lock())
        backup, mark = self.backup, self.backup.cycle.mark
        return Drill(self.database.name, self.catalog, prover, throttle, self.status, self.clock, backup, mark)

    def prover(self, database: Database, name: str, share: int = 1) -> Prover:
        """Restores to scratch, with the full check."""
        reader = Reader(self.store, self.checker, part_size=5 << 20, integrity="full")
        return Prover(reader, self.staging, database, name, share, self.forward())

    async def newest(self) -> RestorePoint:
        """The newest restore point, which is there."""
        found = await self.catalog.newest(self.database.name)
        assert found is not None
        return found

    async def points(self) -> list[RestorePoint]:
        """All restore points, oldest first."""
        return [point async for point in self.catalog.points(self.database.name)]


@asynccontextmanager
async def store_of(place: str, endpoint: str | None = None) -> AsyncIterator[ObjectStore]:
    """A directory, or the bucket of an S3 server; credentials come from the environment."""
    if endpoint is None:
        yield FileStore(Path(place))
        return
    from sidecar.storage.s3.client import S3Location
    from sidecar.storage.s3.store import S3Store  # slow to import, and many children need none of it
    from tests.harness.s3client import REGION

    async with S3Store(S3Location(place, "pre fix", endpoint, REGION), connections=10) as store:
        yield store


def write(path: Path, transfers: int) -> None:
    """Commit to a ledger, which is made if need be."""
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA synchronous=off")
        create_ledger(connection, 10)
        for number in range(transfers):
            transfer(connection, number % 10, 1, b"x" * 100)
