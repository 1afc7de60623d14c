"""`sidecar_unprotected_seconds` against a model that knows every commit: true to a second, whatever happens meanwhile.

The daemon looks once a second; in between the app commits, cycles copy and upload for minutes, the store is down, a
machine restores. At every look the metric is the age of the oldest commit that no restore point has.
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.backup import Repository, build_backup
from sidecar.backup.history import Start
from sidecar.concurrency import ConcurrencyLimit
from sidecar.database.findings import CheckReport
from sidecar.database.in_place import Choose, Comparison
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.lineage import Lineage
from sidecar.errors import StoreUnavailable
from sidecar.lease.disabled import NoLease
from sidecar.model import Database, FileStamp, ObjectInfo, Signature, Snapshot, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository import reader
from sidecar.repository.catalog import Catalog
from sidecar.repository.format.index import Index
from sidecar.repository.format.tail import Contents
from sidecar.repository.keys import point_of
from sidecar.repository.reader import Reader
from sidecar.repository.writer import Publisher, PublisherIdentity
from sidecar.status.model import Status
from tests.fakes import FakeClock, MemoryStore

NAME = "app.db"


@dataclass(frozen=True)
class Meanwhile:
    """Time that passes: seconds, each with its commits (at which part of the second)."""

    seconds: int
    commits: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Cycle:
    """A backup; what happens while it copies, and while it uploads; `down` says that the store is."""

    copying: Meanwhile
    uploading: Meanwhile
    down: bool


@dataclass(frozen=True)
class Blind:
    """Seconds without a look, with one commit in them: the daemon was busy. Only the file's own time says when."""

    before: int
    after: int


@dataclass(frozen=True)
class Restored:
    """The machine boots, restores the newest state, and was looked at before it had."""


@dataclass(frozen=True)
class Streaming:
    """A stream begins, which the next restore point names, or it is cut."""

    begins: bool
    cycle: Cycle


class World:
    """A database that is only a number of commits, its files' stamps, and what a daemon would say of it."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.commits = [self.clock.now()]  # its creation
        self.published = 0
        self.streamed = 0
        self.stream = ""  # "", "begun", "entered"
        self.copied = 0
        self.meanwhile = Meanwhile(0)
        self.down = False
        self.path = directory / NAME
        self.path.write_bytes(b"x")
        self.database = self.stamp(1)
        self.wal: FileStamp | None = None
        self.status = Status((Database(NAME, self.path),), "", "0", self.clock.now)
        self.boot()

    def boot(self) -> None:
        """A new daemon."""
        catalog = Catalog(self.store)
        self.status = Status((Database(NAME, self.path),), "", "0", self.clock.now)
        repository = Repository(
            catalog,
            Publisher(self.store, PublisherIdentity("holder", "0"), part_size=1 << 16),
            Reader(self.store, SqliteIntegrity()),
            RetentionDays(),
        )
        self.backup = build_backup(
            Database(NAME, self.path),
            Lineage(self.path, "", durable=False),
            repository,
            self,
            self.status,
            self.clock,
            NoLease(self.store),
            ConcurrencyLimit(2),
        )

    def stamp(self, size: int) -> FileStamp:
        return FileStamp(1, size, int(self.clock.now().timestamp() * 1e9))

    def commit(self) -> None:
        """The WAL grows, or is begun anew."""
        self.commits.append(self.clock.now())
        self.wal = self.stamp(4096 * (len(self.commits) % 5 + 1))

    def pass_time(self, meanwhile: Meanwhile) -> None:
        """Second after second: commits, then a look."""
        for second in range(meanwhile.seconds):
            parts = sorted(part for at, part in meanwhile.commits if at % meanwhile.seconds == second)
            for before, part in zip([0.0, *parts], [*parts, 1.0], strict=True):
                self.clock.advance(part - before)
                if part != 1.0:
                    self.commit()
            self.store.time = self.clock.now()
            self.look()

    def look(self) -> None:
        """What `/metrics` would say, beside the truth."""
        if self.stream == "entered" and not self.down:
            self.streamed = len(self.commits)
            self.backup.cycle.source.streamed(self.clock.monotonic())
        self.backup.cycle.source.observe()
        held = max(self.published, self.streamed)
        since = self.commits[held : held + 1]
        truth = (self.clock.now() - since[0]).total_seconds() if since else 0.0
        shown = self.status.unprotected(NAME)
        assert abs(shown - truth) <= 1.0, f"it says {shown:.3f} s, and it is {truth:.3f} s"

    def sqlite_version(self) -> str:
        return "3.53.4"

    def may_checkpoint(self) -> bool:
        return True

    def signature(self, path: Path) -> Signature:
        newest = max(each.mtime_ns for each in (self.database, self.wal) if each)
        return Signature(self.database, self.wal, self.clock.now().timestamp() * 1e9 - newest < 1e9)

    async def prepare(self, path: Path) -> None:
        raise NotImplementedError

    async def settle(self, path: Path) -> None:
        raise NotImplementedError

    async def compare(self, path: Path, choose: Choose) -> Comparison | None:
        """Nothing is followed."""
        return None

    @asynccontextmanager
    async def snapshot(self, path: Path, choose: Choose | None = None) -> AsyncIterator[Snapshot]:
        """A checkpoint touches the database's file; the copy has the commits so far, whatever comes while it is made."""
        self.pass_time(Meanwhile(2, self.meanwhile.commits[:1]))  # a checkpoint of much takes a while
        if self.wal:
            self.database = self.stamp(4096 + len(self.commits))
        signature, self.copied = self.signature(path), len(self.commits)
        with tempfile.NamedTemporaryFile() as file:
            file.write(str(self.copied).encode() * 512)
            file.flush()
            self.pass_time(self.meanwhile)
            seconds = {"snapshot": float(self.meanwhile.seconds)}
            yield Snapshot(
                Path(file.name), file.tell(), file.tell(), 512, 1, signature, "3", on_tmpfs=True, seconds=seconds
            )

    async def cycle(self, cycle: Cycle) -> None:
        """One attempt; requests take their time, also those that fail."""
        self.meanwhile, self.down = cycle.copying, cycle.down
        uploading = [cycle.uploading]

        def request(operation: str, _key: str) -> None:
            if uploading and operation in {"put", "list"}:
                self.pass_time(uploading.pop())
            if cycle.down:
                raise StoreUnavailable("down")

        self.store.hook = request
        failure = await self.backup.attempt()
        self.store.hook, self.down = None, False
        assert failure is None or isinstance(failure, StoreUnavailable), failure
        if failure is None:
            self.published = max(self.published, self.copied)
            self.stream = "entered" if self.stream else ""

    def restore(self) -> None:
        """What no restore point had is gone; SQLite's file is new."""
        self.boot()
        del self.commits[max(self.published, self.streamed) :]
        self.published, self.stream = len(self.commits), ""
        self.database, self.wal = self.stamp(4096), None
        self.backup.cycle.source.observe()  # a scrape while the file is there and the boot has not ended; nothing is asserted of it
        self.clock.advance(0.5)
        at = Timestamp.of(self.store.time)
        info = ObjectInfo(f"{NAME}/{at}.sqlite3.zst", 1, "", self.store.time)
        point = point_of(info)
        assert point
        index = Index(NAME, str(at), 512, 512, b"", "3", "0", "holder", 0)
        self.backup.cycle.start_from(
            Start(restored=reader.Restored(point, info, Contents(index, (0,), 1), 1, CheckReport("quick")))
        )
        self.look()


def meanwhiles(longest: int) -> st.SearchStrategy[Meanwhile]:
    commits = st.lists(st.tuples(st.integers(0, longest), st.sampled_from([0.0, 0.1, 0.5, 0.9])), max_size=4)
    return st.builds(Meanwhile, st.integers(1, longest), commits.map(tuple))


cycles = st.builds(Cycle, meanwhiles(90), meanwhiles(90), st.booleans())
blind = st.builds(Blind, st.integers(0, 60), st.integers(0, 60))
streaming = st.builds(Streaming, st.booleans(), cycles)
histories = st.lists(meanwhiles(400) | cycles | blind | st.just(Restored()) | streaming, min_size=1, max_size=12)


@given(histories)
@settings(max_examples=75, deadline=None)
def test_unprotected_seconds_are_true_to_a_second(
    history: Sequence[Meanwhile | Cycle | Blind | Restored | Streaming],
) -> None:
    """Idle, writing, streaming, after a cut, while a backup copies or uploads, while the store is down, after a restore."""

    async def run(directory: Path) -> None:
        world = World(directory)
        await world.cycle(Cycle(Meanwhile(0), Meanwhile(0), down=False))
        for event in history:
            if isinstance(event, Meanwhile):
                world.pass_time(event)
            elif isinstance(event, Cycle):
                await world.cycle(event)
            elif isinstance(event, Blind):
                world.clock.advance(event.before)
                world.commit()
                world.clock.advance(event.after)
                world.look()
            elif isinstance(event, Streaming):
                world.stream = (world.stream or "begun") if event.begins else ""
                if event.begins:  # a restore point that names it is begun at once
                    await world.cycle(event.cycle)
            else:
                world.restore()

    with tempfile.TemporaryDirectory() as directory:
        anyio.run(run, Path(directory))
