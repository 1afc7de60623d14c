"""Random histories of one database, read in place: what a restore point would have is what SQLite's backup copies.

Of each part that the commits since its parent have not touched, the parent's bytes are taken; everything else is read from
the database and its log, while the app goes on. Some restore points are refused, and of some it is not known that they
exist: the next one has the same parent. Parts are small here, so that a small database has many.
"""

import os
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.database.driver import default_driver, pragma
from sidecar.database.in_place import LiveParts, Shown, live_parts
from sidecar.database.wal import Follower, Limits, StreamCut
from sidecar.database.wal.changed import Changed
from sidecar.repository.taking_over import must_read
from tests.harness.writers import open_database
from tests.integration.histories.test_streaming_random import ALONE, PAGE_SIZES, WRITES, require_same

WANTED = os.environ.get("IN_PLACE_HISTORIES")  # `make stress` wants ten thousand, others every time
DRIVER = default_driver()
UNWRITTEN = {  # pages that become part of the database, and are free before anything is written to them
    "grow and free": [
        "PRAGMA cache_spill = off",
        "INSERT INTO t (b) VALUES (zeroblob(150000))",
        "DELETE FROM t WHERE id = last_insert_rowid()",
        "PRAGMA cache_spill = on",
    ],
}
POINTS = ["point", "point", "point", "point refused", "point unknown"]
FOLLOWER = ["look", "look", "new stream", "resumed"]
STEPS = st.sampled_from([*WRITES, *WRITES, *UNWRITTEN, *ALONE, *POINTS, *POINTS, *FOLLOWER])
MEANWHILE = st.lists(st.sampled_from([*WRITES, *ALONE, "look"]), max_size=3)


class App:
    """The connection of the app, with a cache so small that transactions spill. It waits for nobody."""

    def __init__(self, path: Path, page_size: int) -> None:
        self._path = path
        self._connection = self._open(f"PRAGMA page_size = {page_size}")
        self._connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")

    def do(self, step: str) -> None:
        """Do something; a step that another connection prevents is left out."""
        if step == "reopen":
            self._connection.close()
            self._connection = self._open()
        try:
            writes = (WRITES | UNWRITTEN).get(step)
            for statement in ["BEGIN IMMEDIATE", *writes, "COMMIT"] if writes else ALONE[step]:
                self._connection.execute(statement).fetchall()
        except DRIVER.error as error:
            if "locked" not in str(error):
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _open(self, *first: str) -> Any:
        connection = open_database(self._path)
        waits = "PRAGMA busy_timeout = 0"
        for statement in (
            *first,
            "PRAGMA journal_mode = wal",
            "PRAGMA synchronous = off",
            "PRAGMA cache_size = 5",
            waits,
        ):
            connection.execute(statement).fetchall()
        return connection


@dataclass
class Point:
    """A restore point: the whole database, and the commit of which stream it shows."""

    content: bytes
    page_size: int
    stream: object
    commit: int


@dataclass
class Story:
    """One app, and the restore points of its database."""

    path: Path
    app: App
    part: int
    limits: dict[str, Any]
    parent: Point | None = None
    compared: int = 0
    taken_over: int = 0
    follower: Follower = field(init=False)
    stream: object = field(init=False)

    def __post_init__(self) -> None:
        self.follow()

    def follow(self) -> None:
        """Begin a new stream."""
        self.stream, self.follower = object(), self._follower()
        self.follower.open()
        self.follower.start()

    def resume(self) -> None:
        """Another follower goes on where this one is, in the same stream."""
        self.catch_up(self.follower.hop)
        before = self.follower
        position, commits, before.failed = before.position, before.commits, True  # so that closing it changes nothing
        self.follower = self._follower()
        self.follower.open(commits)
        if position.frame:
            self.follower.resume(position)
            before.close()
        else:
            self.follower.close()
            before.close()
            self.follow()

    def do(self, step: str, meanwhile: list[str]) -> None:
        what, _, how = step.partition(" ")
        if what == "point":
            self.publish(how, meanwhile)
        elif step == "new stream":
            self.follower.close()
            self.follow()
        elif step == "resumed":
            self.resume()
        elif step == "look":
            self.look()
        else:
            self.app.do(step)

    def look(self) -> None:
        self.catch_up(self.follower.look)

    def catch_up(self, capture: Callable[[], object]) -> None:
        """A cut is followed by a new stream: the app may have closed the database, and opened it, where we see none of it."""
        try:
            capture()
        except StreamCut:
            self.follower.close()
            self.follow()
        self.follower.backlog.take()

    def publish(self, how: str, meanwhile: list[str]) -> None:
        """Read in place what the app does not keep us from reading, and compare it with a full copy of the same transaction."""
        self.catch_up(self.follower.hop)
        with closing(DRIVER.connect(self.path, "ro")) as source:
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            index = self.follower.index()
            self.follower.hop()
            commit = self.follower.commit_at(index)
            assert commit is not None
            shown = Shown(index, pragma(source, "page_size"), pragma(source, "page_count"))
            for step in meanwhile:
                self.look() if step == "look" else self.app.do(step)
            inode = self.path.stat().st_ino
            with live_parts(self.path, inode, shown, DRIVER.version_info, self.part) as parts:
                content = self.content(parts, shown)
            full = self.full(source)
        require_same(content, full, shown.page_size)
        assert content == full, "even the free pages"
        self.compared += 1
        if how != "refused":
            point = Point(content, shown.page_size, self.stream, commit)
            self.parent = point if how == "" else self.parent

    def content(self, parts: LiveParts, shown: Shown) -> bytes:
        """The whole database, of which only some parts were read."""
        before, count = self.parent, -(-shown.size // self.part)
        read: Collection[int] = range(count)
        if before and before.stream is self.stream and before.page_size == shown.page_size:
            since, wrote = before.commit, self.follower.changed.wrote
            read = must_read(len(before.content), shown.size, lambda part: wrote(part, since), self.part)

        def bytes_of(number: int) -> bytes:
            if before is None or number in read:
                return bytes(parts.read(number))
            return before.content[number * self.part : (number + 1) * self.part]

        self.taken_over += count - len(read)
        return b"".join(map(bytes_of, range(count)))

    def full(self, source: Any) -> bytes:
        """What SQLite's backup copies."""
        target = self.path.with_name("full.db")
        target.write_bytes(b"")
        with closing(DRIVER.connect(target, "rw")) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            source.backup(copy)
        return target.read_bytes()

    def _follower(self) -> Follower:
        follower = Follower(self.path, DRIVER, Limits(**self.limits))
        follower.changed = Changed(self.part)
        follower.staying = 1  # the app is in this process, where its locks are not seen
        return follower


TUNINGS: list[dict[str, Any]] = [
    {},
    {"soft_frames": 5, "soft_seconds": 0.0, "again_seconds": 0.0, "idle_seconds": 0.0},
    {"soft_frames": 20, "soft_seconds": 0.0, "fold_bytes": 200_000},
]


def told(steps: str) -> list[tuple[str, list[str]]]:
    """Steps with nothing meanwhile; the words of one are joined by hyphens."""
    return [(each.replace("-", " "), []) for each in steps.split()]


def live(page_size: int, multiple: int, limits: dict[str, Any], steps: list[tuple[str, list[str]]]) -> Story:
    with tempfile.TemporaryDirectory() as name, closing(App(Path(name) / "app.db", page_size)) as app:
        story = Story(Path(name) / "app.db", app, max(page_size, 4096) * multiple, limits)
        try:
            for step, meanwhile in [("many", []), ("point", []), *steps, ("point", [])]:
                story.do(step, meanwhile)
        finally:
            story.follower.close()
        return story


@settings(
    max_examples=int(WANTED or 100), derandomize=not WANTED, deadline=None, suppress_health_check=list(HealthCheck)
)
@example(4096, 1, {}, told("many point delete-all vacuum look grow-and-free grow-and-free"))
@example(4096, 16, {}, told("point grow-and-free"))
@example(4096, 1, {}, told("many point update resumed few"))
@example(4096, 1, {}, told("many point update truncate resumed few"))
@given(
    st.sampled_from(PAGE_SIZES),
    st.sampled_from([1, 2, 16]),
    st.sampled_from(TUNINGS),
    st.lists(st.tuples(STEPS, MEANWHILE), min_size=1, max_size=20),
)
def test_what_is_read_in_place_is_what_backup_copies(
    page_size: int, multiple: int, limits: dict[str, Any], steps: list[tuple[str, list[str]]]
) -> None:
    """Takes ten seconds: few of so many kinds of steps are in each history."""
    assert live(page_size, multiple, limits, steps).compared >= 2
