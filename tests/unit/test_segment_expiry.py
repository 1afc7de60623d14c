"""Segments in a directory expire by the age in their keys, never the ones that the newest restore point's history needs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.model import Position, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.history import SegmentInfo
from sidecar.repository.increments import Increments
from sidecar.repository.keys import StreamName, key_of, segment_key_of
from sidecar.repository.prune_plan import PrunePlanner
from sidecar.repository.pruning import Pruner, Pruning
from sidecar.repository.retention import NewestKnown, is_expired, trusts
from sidecar.storage.file.store import FileStore
from tests.fakes import FakeClock
from tests.harness.streams import Made, fill_directory

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEEP = RetentionDays()


def ago(days: float) -> Timestamp:
    return Timestamp.of(NOW - days * DAY)


def stream(days: float) -> str:
    return str(StreamName(ago(days), 1, "web"))


def segment(last: int, days: float) -> SegmentInfo:
    return SegmentInfo("key", last, last, int((NOW - days * DAY).timestamp() * 1000), 1, "e")


POINT = NewestKnown(ago(1), None)


@pytest.mark.parametrize(
    ("newest", "expired"),
    [
        (NewestKnown(ago(1), None), True),
        (NewestKnown(ago(1), Position(stream(50), 7)), True),
        (NewestKnown(ago(1), Position(stream(50), 8)), True),
        (NewestKnown(ago(1), Position(stream(50), 6)), False),
        (NewestKnown(ago(1), Position(stream(49), 1)), True),
        (NewestKnown(ago(1), Position(stream(51), 9)), False),
        (NewestKnown(ago(39), None), True),
        (NewestKnown(ago(41), None), False),
        (NewestKnown(ago(51), None), False),
    ],
)
def test_what_the_newest_restore_point_s_history_needs_stays(newest: NewestKnown, expired: bool) -> None:
    """Commit 7 of a stream that began 50 days ago, in a segment that is 40 days old."""
    assert is_expired(segment(7, days=40), stream(50), newest, NOW, KEEP) is expired


def test_a_segment_expires_after_35_days() -> None:
    assert is_expired(segment(7, days=35.1), stream(50), POINT, NOW, KEEP)
    assert not is_expired(segment(7, days=34.9), stream(50), POINT, NOW, KEEP)
    assert not is_expired(segment(7, days=89.9), stream(95), POINT, NOW, RetentionDays(daily=90, stream=90))


@pytest.mark.parametrize(
    ("points", "trusted"),
    [([], False), ([20, 1], True), ([1, -1], False), ([10, 0.5], False), ([8], False), ([6], True)],
)
def test_the_clock_is_distrusted_as_for_restore_points(points: list[float], trusted: bool) -> None:
    """It is behind the newest one, or a gap of more than a week ended less than a day ago."""
    history = [ago(days) for days in ([14, 9, 4, *points] if points == [20, 1] else points)]
    assert trusts(history, NOW, KEEP) is trusted


class Store:
    """A store in a directory with restore points, and segments of an hour each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = FileStore(root)
        self.clock = FakeClock()
        pruner = Pruner(self.files, PrunePlanner(Catalog(self.files), KEEP), self.files)
        self.pruning = Pruning("app.db", self.files, pruner, self.clock)
        self.increments = Increments(self.files)

    async def add_points(self, *days: float, position: Position | None = None) -> None:
        metadata = {"stream": position.stream, "commit": str(position.commit)} if position else {}
        for each in days:
            await self.files.put(key_of("app.db", ago(each)), b"x", metadata=metadata if each == min(days) else {})

    def add_stream(self, began: float, hours: int, database: str = "app.db") -> str:
        def made() -> Iterator[Made]:
            for hour in range(1, hours + 1):
                ms = int((NOW - began * DAY).timestamp() * 1000) + hour * 3_600_000 - 1_800_000
                yield Made(segment_key_of(database, stream(began), hour, hour, ms), b"x", ())

        fill_directory(self.root, made())
        return stream(began)

    async def left(self, name: str, database: str = "app.db") -> list[int]:
        return [each.last for each in await self.increments.segments(database, name)]


async def test_expired_segments_of_a_directory_are_deleted(tmp_path: Path) -> None:
    """And nothing else: not the young ones, not another database's."""
    store = Store(tmp_path)
    old, long = store.add_stream(60, hours=48), store.add_stream(40, hours=40 * 24)
    other = store.add_stream(60, hours=2, database="other.db")
    await store.add_points(20, 14, 8, 2, 1, position=Position(long, 40 * 24 - 1))
    await store.pruning.run()
    assert await store.left(old) == []
    assert await store.left(long) == list(range(5 * 24 + 1, 40 * 24 + 1))
    assert await store.left(other, "other.db") == [1, 2]
    assert not (tmp_path / "stream" / "app.db" / old).exists() or not any(
        (tmp_path / "stream" / "app.db" / old).iterdir()
    )


async def test_the_tail_of_the_newest_restore_point_does_not_expire(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.add_stream(40, hours=100)
    later = store.add_stream(39, hours=5)
    await store.add_points(20, 14, 8, 2, 1, position=Position(name, 20))
    await store.pruning.run()
    assert await store.left(name) == list(range(21, 101))
    assert await store.left(later) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("days", [(), (20, 0.5), (1, -1)])
async def test_nothing_is_deleted_while_the_clock_cannot_be_trusted(tmp_path: Path, days: tuple[float, ...]) -> None:
    store = Store(tmp_path)
    name = store.add_stream(60, hours=3)
    await store.add_points(*days)
    await store.pruning.run()
    assert await store.left(name) == [1, 2, 3]
