"""A database that was streamed: its restore points and segments in a store, and the bytes that each commit left."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sidecar.lease.record import KEY, Record, StreamRecord
from sidecar.model import Commit, IfMatch, Origin, Position, RestorePoint, Timestamp
from sidecar.repository.keys import key_of
from sidecar.repository.writer import Publisher, PublisherIdentity
from sidecar.storage.base import ObjectStore
from tests.harness.recorded import Recorder
from tests.harness.streams import Made, StreamMaker, fill, stream_name
from tests.integration.wiring import NAME, Machine

SECOND = 1_000_000
BEGAN = Timestamp("20261118T120000.000Z")
# SQLite's backup writes these itself: https://sqlite.org/fileformat2.html#the_database_header
BY_BACKUP = [slice(18, 20), slice(24, 28), slice(40, 44), slice(92, 100)]

Group = Callable[[list[Commit]], list[list[Commit]]]


def alone(commits: list[Commit]) -> list[list[Commit]]:
    """A segment for each commit."""
    return [[each] for each in commits]


def moment(seconds: float) -> Timestamp:
    """So long after the first stream began. Commit n of the recorder is n seconds after it."""
    return Timestamp.of(BEGAN.instant + timedelta(seconds=seconds))


def instant(seconds: float) -> datetime:
    """The same for `--at`."""
    return moment(seconds).instant


def comparable(data: bytes) -> bytes:
    """A database without the bytes that SQLite's backup changes."""
    changed = bytearray(data)
    for each in BY_BACKUP:
        changed[each] = bytes(each.stop - each.start)
    return bytes(changed)


class Streamed:
    """Publishes what a recorder has, as a machine would have."""

    def __init__(self, store: ObjectStore, recorder: Recorder, directory: Path) -> None:
        directory.mkdir()
        self.machine = Machine(store, directory / NAME, staging=directory)
        self.store = self.machine.store
        self.recorder = recorder
        self._publisher = Publisher(self.store, PublisherIdentity("web", "0"), part_size=5 << 20)
        self._source = directory.with_name("source.db")

    async def point(
        self, commit: int, seconds: float, position: Position | None = None, *, epoch: int = 1
    ) -> RestorePoint:
        """Publish the state after a commit of the recorder as a restore point of that second."""
        self._source.write_bytes(self.recorder.states[commit])
        key, at = key_of(NAME, moment(seconds)), str(moment(seconds))
        async with self.machine.snapshotter.snapshot(self._source) as snapshot:
            index = await self._publisher.index(snapshot, NAME)
            await self._publisher.publish(snapshot, replace(index, timestamp=at, position=position, epoch=epoch), key)
        (found,) = [each for each in await self.machine.points() if each.key == key]
        return found

    async def stream(
        self,
        first: int,
        last: int,
        after: Origin | None,
        *,
        began: float | None = None,
        epoch: int = 1,
        group: Group = alone,
    ) -> tuple[str, list[Made]]:
        """Publish the recorder's commits from `first` to `last` as a stream of its own, numbered from 1."""
        name = stream_name(moment(first - 0.5 if began is None else began), epoch=epoch, holder=f"web {epoch}")
        maker = StreamMaker(name, NAME, after, self.recorder.page_size)
        start = int(BEGAN.instant.timestamp()) * SECOND
        commits = [
            replace(each, number=each.number - first + 1, time=start + each.number * SECOND)
            for each in self.recorder.commits[first - 1 : last]
        ]
        made = [segment for each in group(commits) for segment in maker.segments(each)]
        await fill(self.store, iter(made))
        return str(name), made

    async def damage(self, key: str) -> None:
        """Flip a bit in the middle of an object."""
        blob = await self.store.get(key)
        data = bytearray(blob.data)
        data[len(data) // 2] ^= 1
        await self.store.put(key, bytes(data), condition=IfMatch(blob.info.etag), metadata=blob.info.metadata)

    async def record_start(self, after: Position | None, newest: RestorePoint) -> None:
        """Write the lease of a machine that went on from this position, if there was one, above this restore point."""
        streams = {NAME: StreamRecord(None, after)} if after else {}
        record = Record(2, "web 2", "boot", 60.0, latest={NAME: newest.key}, settled={NAME: 2}, streams=streams)
        await self.store.put(KEY, record.to_bytes(), metadata=record.to_metadata())

    def holds(self, path: Path, commit: int) -> bool:
        """Whether a file is the database after this commit of the recorder."""
        return comparable(path.read_bytes()) == comparable(self.recorder.states[commit])


def last(made: Sequence[Made]) -> str:
    """The key of the last segment."""
    return made[-1].key
