"""Builds the backup of one database from its parts."""

from dataclasses import dataclass

from sidecar.backup.coverage import Coverage
from sidecar.backup.cycle import Cycle
from sidecar.backup.history import History
from sidecar.backup.loop import Backup
from sidecar.backup.main_line import MainLine
from sidecar.backup.need import Spacing
from sidecar.backup.snapshot_check import SnapshotCheck
from sidecar.backup.source import Source
from sidecar.backup.stream import Stream
from sidecar.backup.stream_gate import Gate
from sidecar.backup.stream_writer import StreamOptions, StreamWriter
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database import Feed, Lineage, Snapshotter
from sidecar.host import Clock
from sidecar.lease import Fence
from sidecar.model import Database
from sidecar.policies import RetentionDays
from sidecar.repository import CHECK_EVERY, Catalog, ExistenceCheck, Publisher, Reader, expiry_of
from sidecar.repository.holds import Holds
from sidecar.repository.increments import Increments
from sidecar.status import Status
from sidecar.storage import Prunable

LONGEST_LAG = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Repository:
    """The restore points of one store, with what writes, reads and expires them.

    `prunable` is the same store if each cycle prunes it; restore points expire after the days in `keep`. `holds` marks those
    that are held, where objects may have no tags. A confirmed existence of the newest
    restore point is trusted for `check_every` seconds.
    """

    catalog: Catalog
    publisher: Publisher
    reader: Reader
    keep: RetentionDays
    prunable: Prunable | None = None
    holds: Holds | None = None
    check_every: float = CHECK_EVERY


def build_stream(
    database: Database,
    feed: Feed,
    gate: Gate,
    increments: Increments,
    lineage: Lineage,
    fence: Fence,
    options: StreamOptions,
    status: Status,
    clock: Clock,
) -> Stream:
    """The stream of one database, which creates a writer each time that it starts again."""
    return Stream(
        database,
        feed,
        gate,
        lambda start: StreamWriter(database, start, increments, lineage, fence, options, status, clock),
        options,
        status,
        clock,
        fence,
    )


def build_backup(
    database: Database,
    lineage: Lineage,
    repository: Repository,
    snapshotter: Snapshotter,
    status: Status,
    clock: Clock,
    fence: Fence,
    turn: ConcurrencyLimit,
    check: SnapshotCheck | None = None,
    stream: Stream | None = None,
) -> Backup:
    """The backup of one database: its source, its position in the history, its main line, and the cycle that uses them.

    Without a `check`, snapshots are published unchecked, and checked when they are restored.
    """
    catalog, name = repository.catalog, database.name
    history = History(name)
    source = Source(database, snapshotter, status, clock, check, stream)
    existence = ExistenceCheck(
        name, catalog, status, clock, exclusive=fence.exclusive, check_every=repository.check_every
    )
    expiry = expiry_of(name, catalog, status, clock, repository.keep, repository.prunable, repository.holds)
    coverage = Coverage(history, source, existence, expiry, status, _spacing(name, status, clock) if stream else None)
    main_line = MainLine(history, lineage, catalog, repository.publisher, repository.reader, expiry, fence, status)
    return Backup(Cycle(source, history, coverage, main_line, fence, turn, status, clock), status, clock)


def _spacing(name: str, status: Status, clock: Clock) -> Spacing | None:
    if not status.by_need or status.interval is None:
        return None
    interval = status.interval.total_seconds()
    return Spacing(status.databases[name], clock, interval, min(interval, LONGEST_LAG))
