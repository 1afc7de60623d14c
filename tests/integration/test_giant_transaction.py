"""A transaction that is larger than any segment may be: captured, published in parts, and restored."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.backup.stream_writer import StreamStart
from sidecar.database.wal import Limits
from sidecar.lease.disabled import NoLease
from sidecar.lease.record import StreamRecord
from sidecar.model import AtRestorePoint, Position
from sidecar.repository.history import Leg, SegmentInfo
from sidecar.repository.history import Path as History
from sidecar.restore.fetching import Fetch
from sidecar.restore.point_in_time import PointInTime
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming import Streaming
from tests.integration.wal.replica import comparable

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
    fence = Recording(store)
    streaming = Streaming(store, path, fence=fence, limits=Limits(cut_bytes=256 * MIB))
    writer, feed, status = streaming.writer(StreamStart(None, None, POINT)), streaming.feed, streaming.status
    async with streaming.capture.running():
        await feed.begin()
        app.run("VACUUM")
        await feed.flush()
        await writer.named()
        batch = await feed.take(0)
        assert sum(each.size for each in batch.commits) > 90 * MIB
        writer.add(batch)
        await writer.publish()
        last = batch.commits[-1].number
        assert status.confirmed == last
        assert status.segments == len(store.objects) > 10
        assert [(number, each.commit) for number, each in fence.records if each.commit] == [(len(store.objects), last)]
        assert max(len(each.data) for each in store.objects.values()) < 9 * MIB
        (stream,) = await streaming.published()
        history = History(POINT, (Leg(stream, 0, last, stream.segments),), Position(stream.name, last))
        reached = await PointInTime(fetching(store)).apply(copy, "app.db", history)
        assert (reached.stopped, reached.position) == ("", Position(stream.name, last))
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert comparable(copy.read_bytes()) == comparable(path.read_bytes())


def fetching(store: MemoryStore) -> Fetch:
    async def fetch(info: SegmentInfo) -> bytes:
        return store.objects[info.key].data

    return fetch
