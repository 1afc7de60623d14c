"""Who streams a database's commits, and the database that is streamed: sidecar, and Litestream with its defaults.

Both send about once a second while there are commits. The table has an index, so a commit of writer.py changes about four
pages of 4 KiB; the rows that it changes are the first thousand.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from tests.benchmarks import generate
from tests.benchmarks.measure import start
from tests.benchmarks.publishing import Bench
from tests.benchmarks.server import Server
from tests.benchmarks.tools import Command, Sidecar, Subject, litestream, litestream_config
from tests.harness.eventually import eventually
from tests.harness.processes import Child
from tests.harness.sidecar_process import SIDECAR
from tests.harness.writers import open_database

HOT = 1000
STORES = ("s3", "file")

_FILE = """\
dbs:
  - path: {database}
    replica:
      type: file
      path: {directory}
"""
_PATIENCE = 120.0


class Streamer(Protocol):
    """How one of the tools streams and restores."""

    name: ClassVar[str]

    def stream(self, subject: "Streamed", *, often: bool = False) -> Command:
        """Go on until told to stop; `often`: every 0.1 s instead of every second."""

    def restore(self, subject: "Streamed", target: Path) -> Command:
        """Write the newest state to `target`."""

    def protects(self, subject: "Streamed") -> bool:
        """Whether what it streams can be restored, from the first publish on."""

    def streams(self, subject: "Streamed") -> bool:
        """Whether the first of the stream is in the store."""


class Streamed(Subject):
    """A subject whose store is a bucket (`s3`), or a directory beside it (`file`)."""

    def __init__(self, server: Server, directory: Path, bucket: str, store: str = "s3") -> None:
        super().__init__(server, directory, bucket)
        self.store = store
        self.files = directory / "store"
        if store == "file":
            self.env["SIDECAR_STORE"] = f"file://{self.files}"

    def stored(self) -> list[str]:
        """Every key in the store."""
        if self.store == "s3":
            return self.keys()
        return [str(path.relative_to(self.files)) for path in self.files.rglob("*") if path.is_file()]

    def segments(self) -> int:
        """How many segments of sidecar's are in the store."""
        return sum("stream/" in key for key in self.stored())

    @property
    def wal(self) -> Path:
        """The log of the database."""
        return Path(f"{self.database}-wal")


@dataclass(frozen=True, slots=True)
class SidecarStream:
    """The project with `--stream on`."""

    name: ClassVar[str] = "sidecar"

    def stream(self, subject: Streamed, *, often: bool = False) -> Command:
        return (*SIDECAR, "run", "--stream", "on", *(("--stream-interval", "100ms") if often else ()))

    def restore(self, subject: Streamed, target: Path) -> Command:
        return Sidecar().restore(subject, target)[0]

    def protects(self, subject: Streamed) -> bool:
        return has_restore_point(subject) and "stream begun" in subject.log.read_text()

    def streams(self, subject: Streamed) -> bool:
        return subject.segments() > 0


@dataclass(frozen=True, slots=True)
class Unstreamed:
    """The project without streaming."""

    name: ClassVar[str] = "sidecar, stream=off"

    def stream(self, subject: Streamed, *, often: bool = False) -> Command:
        return (*SIDECAR, "run", "--stream", "off")

    def restore(self, subject: Streamed, target: Path) -> Command:
        return Sidecar().restore(subject, target)[0]

    def protects(self, subject: Streamed) -> bool:
        return has_restore_point(subject)

    def streams(self, subject: Streamed) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class LitestreamStream:
    """The peer."""

    name: ClassVar[str] = "litestream"

    def stream(self, subject: Streamed, *, often: bool = False) -> Command:
        return litestream("replicate", "-config", self._config(subject, often=often))

    def restore(self, subject: Streamed, target: Path) -> Command:
        return litestream("restore", "-config", self._config(subject), "-o", str(target), str(subject.database))

    def protects(self, subject: Streamed) -> bool:
        return bool(subject.stored())

    def streams(self, subject: Streamed) -> bool:
        return len(subject.stored()) > 1

    @staticmethod
    def _config(subject: Streamed, *, often: bool = False) -> str:
        path = subject.directory / "stream.yml"
        if subject.store == "file":
            path.write_text(_FILE.format(database=subject.database, directory=subject.files))
        else:
            text = litestream_config(subject)
            path.write_text(text + ("      sync-interval: 100ms\n" if often else ""))
        return str(path)


def has_restore_point(subject: Streamed) -> bool:
    """Whether sidecar has published the database itself."""
    return any(key.endswith(".sqlite3.zst") for key in subject.stored())


def streamers(bench: Bench, turn: int) -> list[Streamer]:
    """Who is measured, beginning with another one at each turn."""
    tools: list[Streamer] = [SidecarStream(), LitestreamStream()] if bench.peers else [SidecarStream()]
    return tools if turn % 2 == 0 else tools[::-1]


@contextlib.contextmanager
def streaming(subject: Streamed, tool: Streamer, *, often: bool = False) -> Iterator[Child]:
    """The tool's daemon, from its first publish on. The app has the database open."""
    assert subject.app
    child = start(tool.stream(subject, often=often), subject.env, subject.log)

    def published() -> bool:
        tail = subject.log.read_text(errors="replace")[-3000:]
        assert child.running, f"{tool.name} ended:\n{tail}"
        return tool.protects(subject)

    try:
        eventually(published, _PATIENCE, f"the first publish of {tool.name}")
        yield child
    finally:
        child.kill()


def make_streamed(path: Path, size: int) -> Path:
    """Generate the database of a size, with an index, and let its log be empty."""
    generate.generate(path, size)
    with contextlib.closing(open_database(path)) as connection:
        connection.execute("CREATE INDEX versions ON rows (id, version)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def newest_row(path: Path) -> int:
    """The largest id."""
    with contextlib.closing(open_database(path)) as connection:
        return int(connection.execute("SELECT max(id) FROM rows").fetchone()[0])


def require_prefix(path: Path, base: int) -> int:
    """The largest id of a restored database, which must show a commit of the writer and all before it."""
    with contextlib.closing(open_database(path)) as connection:
        last, count, changes = connection.execute("SELECT max(id), count(*), sum(version) FROM rows").fetchone()
        damage = connection.execute("PRAGMA quick_check").fetchall()
    assert damage == [("ok",)], damage
    assert last == count, f"{path}: rows are missing: {count} of {last}"
    assert changes == last - base, f"{path}: {last - base} commits inserted a row, and {changes} changed one"
    return int(last)
