"""Random histories of one database: whatever is in the store, restored, is what SQLite's own copy is.

The app does anything to its database that changes which pages there are: it deletes, vacuums in each way, shrinks and grows
again, rolls back after a cache spill. Segments and restore points are published in between, refused, or stored without an
answer; streams are cut. After each success everything restorable is compared with a full copy, but for pages that are free.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.backup import in_place, segmenter
from sidecar.backup.stream import BEGUN
from sidecar.database import partial
from sidecar.database.wal import StreamCut
from sidecar.model import Database
from sidecar.policies import RetentionDays
from sidecar.repository import DownloadOptions
from sidecar.restore.descent import without_rewritten
from sidecar.restore.stream_proof import StreamProof
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming

WANTED = os.environ.get("STREAMING_HISTORIES")  # `make stress` wants ten thousand, others every time
PAGE_SIZES = (512, 1024, 4096, 65536)

WRITES = {
    "few": ["INSERT INTO t (b) VALUES (randomblob(100))"],
    "many": [
        "INSERT INTO t (b) SELECT randomblob(700) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8)) a, (SELECT 1 UNION SELECT 2) b"
    ],
    "large": ["INSERT INTO t (b) VALUES (zeroblob(1500000))"],
    "update": ["UPDATE t SET b = randomblob(500) WHERE id % 3 = 1"],
    "delete": ["DELETE FROM t WHERE id % 2 = 0"],
    "delete all": ["DELETE FROM t"],
    "delete and free": ["DELETE FROM t WHERE id % 3 < 2", "PRAGMA incremental_vacuum"],
    "free some": ["PRAGMA incremental_vacuum(3)"],
    "table": [
        "CREATE TABLE IF NOT EXISTS u (a, b)",
        "CREATE INDEX IF NOT EXISTS i ON u (b)",
        "INSERT INTO u SELECT id, b FROM t LIMIT 9",
    ],
    "drop": ["DROP TABLE IF EXISTS u"],
    "rollback": [
        "SAVEPOINT s",
        "INSERT INTO t (b) VALUES (randomblob(200000))",
        "UPDATE t SET b = zeroblob(900)",
        "ROLLBACK TO s",
        "INSERT INTO t (b) VALUES (randomblob(50))",
    ],
    "replace": ["DELETE FROM t", "INSERT INTO t (b) VALUES (randomblob(60000))", "DELETE FROM t WHERE id % 2 = 1"],
}
ALONE = {
    "vacuum": ["VACUUM"],
    "auto_vacuum 0": ["PRAGMA auto_vacuum = 0", "VACUUM"],
    "auto_vacuum 1": ["PRAGMA auto_vacuum = 1", "VACUUM"],
    "auto_vacuum 2": ["PRAGMA auto_vacuum = 2", "VACUUM"],
    "checkpoint": ["PRAGMA wal_checkpoint(PASSIVE)"],
    "truncate": ["PRAGMA wal_checkpoint(TRUNCATE)"],
    "reopen": [],
}
PUBLISHES = ["segments", "segments", "segments refused", "segments unknown", "point", "point refused", "point unknown"]
STEPS = st.sampled_from([*WRITES, *WRITES, *ALONE, *PUBLISHES, *PUBLISHES, "cut"])


class App:
    """The connection of the app, with a cache so small that transactions spill.

    It asks for the write lock at once: the follower cannot see that this process has the database open, and empties the log.
    """

    def __init__(self, path: Path, page_size: int) -> None:
        self._path = path
        self._connection = self._open(f"PRAGMA page_size = {page_size}")
        self._connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")
        self._connection.execute("CREATE TABLE untouched (b)")  # some MiB that a restore point takes over unread
        self._connection.execute("INSERT INTO untouched VALUES (randomblob(2500000)), (randomblob(2500000))")

    def do(self, step: str) -> None:
        """A write is one transaction."""
        if step == "reopen":
            self._connection.close()
            self._connection = self._open()
        statements = ["BEGIN IMMEDIATE", *WRITES[step], "COMMIT"] if step in WRITES else ALONE[step]
        for statement in statements:
            self._connection.execute(statement).fetchall()

    def close(self) -> None:
        self._connection.close()

    def _open(self, *first: str) -> Any:
        connection = open_database(self._path)
        for statement in (*first, "PRAGMA journal_mode = wal", "PRAGMA synchronous = off", "PRAGMA cache_size = 5"):
            connection.execute(statement).fetchall()
        return connection


class Story:
    """One life of a machine, and its app."""

    def __init__(self, store: MemoryStore, machine: StreamingMachine, app: App, directory: Path) -> None:
        self.store, self.machine, self.app = store, machine, app
        self._scratch = Database(machine.database.name, directory / "scratch" / "app.db")
        self._scratch.path.parent.mkdir()
        self._proof = StreamProof(
            machine.catalog,
            machine.reader,
            machine.forward(),
            machine.staging,
            machine.database.path,
            1,
            RetentionDays(),
        )
        self.compared = 0
        self._reopened = False

    async def do(self, step: str) -> None:
        """One step, and a comparison if it has made anything restorable."""
        what, _, how = step.partition(" ")
        if step == "cut":
            await self.machine.cut()
        elif what in {"segments", "point"}:
            self._break(how)
            try:
                await self._publish(what)
            finally:
                self.store._failures.clear()
        else:
            self._reopened = self._reopened or step == "reopen"
            self.app.do(step)

    async def _publish(self, what: str) -> None:
        machine = self.machine
        try:
            await machine.publish_segments()
        except StreamCut:  # an app that is opened and closed before a look has seen it costs a stream, and no commit
            if not self._reopened:
                raise
            await machine.cut()
        self._reopened = False
        if what == "point":
            if not machine.streams.protects:
                machine.backup.demand(BEGUN)
            await machine.backup.cycle.run()
            await self._prove()
        assert machine.stream._distrusted is None, "a change is taken for one that no commit made"
        if machine.streams.protects:
            await self._compare()

    async def _prove(self) -> None:
        """The restore point before, with what was streamed, is the newest one. Raises `DamagedSegment`."""
        restored = await self.machine.reader.download(await self.machine.newest(), self._scratch.path)
        self._scratch.path.unlink()
        await self._proof.prove(restored, DownloadOptions())

    async def _compare(self) -> None:
        """What a boot elsewhere would start with, and SQLite's copy of the live database."""
        recovered = await self.machine.recovery().stage(await self.machine.newest(), self._scratch)
        assert not recovered.wanting
        ours = recovered.staged.read_bytes()
        recovered.staged.unlink()
        async with self.machine.snapshotter.snapshot(self.machine.database.path) as snapshot:
            require_same(ours, snapshot.content.read_bytes(), snapshot.page_size)
        self.compared += 1

    def _break(self, how: str) -> None:
        if how == "refused":
            self.store.fail("put", times=2)
        elif how == "unknown":
            self.store.lose_reply("put", times=2)


def require_same(ours: bytes, full: bytes, page_size: int) -> None:
    """Page for page, but for free ones, and for what SQLite's backup writes anew."""
    assert len(ours) == len(full)
    if without_rewritten(ours) == without_rewritten(full):
        return
    free = set(free_pages(full, page_size))
    for number in range(1, len(full) // page_size + 1):
        span = slice((number - 1) * page_size, number * page_size)
        if number in free:
            continue
        same = (
            without_rewritten(ours[span]) == without_rewritten(full[span]) if number == 1 else ours[span] == full[span]
        )
        assert same, f"page {number} of {len(full) // page_size}"


def free_pages(content: bytes, page_size: int) -> Iterator[int]:
    """The leaves of the list of free pages: https://sqlite.org/fileformat2.html#the_freelist"""
    trunk = int.from_bytes(content[32:36], "big")
    while trunk:
        page = content[(trunk - 1) * page_size : trunk * page_size]
        count = int.from_bytes(page[4:8], "big")
        yield from (int.from_bytes(page[8 + 4 * leaf : 12 + 4 * leaf], "big") for leaf in range(count))
        trunk = int.from_bytes(page[:4], "big")


async def live(page_size: int, folds: bool, steps: list[str]) -> int:
    """Returns how often all was compared. `folds`: all commits of a segment become one."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        if folds:
            patch.setattr(segmenter, "FOLDED_BEYOND", 0)
        patch.setattr(in_place, "SMALL", 0)  # so that these small databases are read in place, too
        patch.setattr(partial, "ROWS_COUNTED", 0)
        directory, store = Path(name), MemoryStore()
        with closing(App(directory / "app.db", page_size)) as app:
            async with streaming(store, directory / "app.db") as machine:
                await machine.start()
                story = Story(store, machine, app, directory)
                for step in ["point", *steps, "segments", "point"]:
                    await story.do(step)
                return story.compared


@settings(max_examples=int(WANTED or 8), derandomize=not WANTED, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    4096, False, ["large", "large", "point", "few", "point unknown", "update", "point", "delete", "vacuum", "point"]
)
@example(
    4096,
    True,
    ["many", "delete all", "vacuum", "few", "segments", "large", "auto_vacuum 1", "delete", "point", "replace"],
)
@given(st.sampled_from(PAGE_SIZES), st.booleans(), st.lists(STEPS, min_size=1, max_size=15))
def test_everything_restorable_is_a_full_copy(page_size: int, folds: bool, steps: list[str]) -> None:
    assert anyio.run(live, page_size, folds, steps) >= 2
