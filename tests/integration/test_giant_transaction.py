"""A transaction that is larger than any segment may be: captured, published in parts, and restored."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.backup import StreamOptions, StreamWriter
from sidecar.backup.pace import Pace
from sidecar.backup.stream_writer import StreamStart
from sidecar.database.lineage import Lineage
from sidecar.database.wal import Limits
from sidecar.host import SystemClock
from sidecar.lease.disabled import NoLease
from sidecar.lease.record import StreamRecord
from sidecar.model import AtRestorePoint, Database, Position
from sidecar.repository.history import Leg, SegmentInfo, StreamInfo
from sidecar.repository.history import Path as History
from sidecar.repository.increments import Increments
from sidecar.restore.point_in_time import Fetch, PointInTime
from sidecar.status import Status
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.wal.replica import comparable
from tests.integration.wal.test_capture import feeding

pytestmark = pytest.mark.anyio

POINT = AtRestorePoint("app.db/20261120T145503.123Z.sqlite3.zst")
MIB = 1 << 20


class Recording(NoLease):
    """No lease, and what it would have written down."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.records: list[tuple[int, StreamRecord]] = []

    def streamed(self, database: str, record: StreamRecord) -> None:
        """See `Fence`."""
        self.records.append((len(self._store.objects), record))  # type: ignore[attr-defined]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqlProcess]:
    """An app with a database of 100 MiB."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        app.run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) "
            "INSERT INTO t SELECT randomblob(1000000) FROM n"
        )
        app.run("DELETE FROM t WHERE rowid % 8 = 1")
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
        yield app


async def test_a_vacuum_of_a_hundred_megabytes(tmp_path: Path, app: SqlProcess) -> None:
    """Takes some seconds: SQLite writes 100 MiB twice. It counts as protected only with the last of its segments."""
    path, copy = tmp_path / "app.db", tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    store = MemoryStore(time=datetime.now(UTC))
    writer, fence, status = writing(path, store)
    async with feeding(path, Limits(cut_bytes=256 * MIB)) as feed:
        app.run("VACUUM")
        await feed.flush()
        await writer.named()
        batch = await feed.take(0)
        assert sum(each.size for each in batch.commits) > 90 * MIB
        writer.add(batch)
        await writer.publish()
        last = batch.commits[-1].number
        assert status.databases["app.db"].stream.confirmed == last
        assert status.databases["app.db"].stream.segments == len(store.objects) > 10
        assert [(number, each.commit) for number, each in fence.records if each.commit] == [(len(store.objects), last)]
        assert max(len(each.data) for each in store.objects.values()) < 9 * MIB
        stream = await stream_in(store)
        history = History(POINT, (Leg(stream, 0, last, stream.segments),), Position(stream.name, last))
        reached = await PointInTime(fetching(store)).apply(copy, "app.db", history)
        assert (reached.stopped, reached.position) == ("", Position(stream.name, last))
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert comparable(copy.read_bytes()) == comparable(path.read_bytes())


def writing(path: Path, store: MemoryStore) -> tuple[StreamWriter, Recording, Status]:
    clock, database, fence = SystemClock(), Database("app.db", path), Recording(store)
    status = Status((database,), "", "0", clock.now)
    options = StreamOptions("web", "3.53.4", timedelta(seconds=1), timedelta(minutes=1), Pace(1.0, clock))
    writer = StreamWriter(
        database,
        StreamStart(None, None, POINT),
        Increments(store),
        Lineage(path, "", durable=False),
        fence,
        options,
        status,
        clock,
    )
    return writer, fence, status


async def stream_in(store: MemoryStore) -> StreamInfo:
    increments = Increments(store)
    (stream,) = await increments.streams("app.db")
    segments = await increments.segments("app.db", stream.name)
    return StreamInfo(stream.name, stream.start, stream.epoch, stream.holder, stream.after, tuple(segments))


def fetching(store: MemoryStore) -> Fetch:
    async def fetch(info: SegmentInfo) -> bytes:
        return store.objects[info.key].data

    return fetch
