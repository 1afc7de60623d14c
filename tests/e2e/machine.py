"""A machine of the end-to-end tests: a data directory that can be lost, and the real command line with real settings."""

import asyncio
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard

from sidecar.api import Sidecar
from sidecar.backup.by_hand import BackupResult
from sidecar.bootstrap import open_services
from sidecar.settings import Configuration
from sidecar.settings.load import load
from tests.harness.environment import leaking_names
from tests.harness.processes import Child
from tests.harness.sidecar_process import SIDECAR, SidecarProcess, run_cli
from tests.harness.writers import open_database

# An app that has nothing to do and ends at once, with the given status, when it is told to.
# It waits for one process: a loop of short sleeps took a fiftieth of a processor for as long as it ran.
CALM_APP = ("sh", "-c", "sleep 3600 & trap 'kill $!; wait; exit 0' TERM; echo app started; wait")
NAME = "app.db"
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")  # before a command that is to be PID 1

_DEFAULTS = {
    "interval": "1h",
    "restore_timeout": "20s",
    "shutdown_grace": "5s",
    "final_backup_timeout": "30s",
    "log_format": "json",
}


def calm_app(status: int) -> tuple[str, ...]:
    """`CALM_APP` with another status."""
    return (*CALM_APP[:2], CALM_APP[2].replace("exit 0", f"exit {status}"))


def python_app(script: str, *arguments: str) -> tuple[str, ...]:
    """An app that is this script."""
    return (sys.executable, "-c", script, *arguments)


@dataclass(frozen=True)
class Machine:
    """Where it keeps its data, its store, and the environment of its processes; `root` is its operator's."""

    root: Path
    store: str
    env: Mapping[str, str]

    @classmethod
    def make(cls, root: Path, store: str, env: Mapping[str, str]) -> "Machine":
        """A machine with an empty disk. Its temporary directory has a short name: unix sockets live there."""
        for name in ("data", "logs", "t"):
            (root / name).mkdir()
        return cls(root, store, {**env, "TMPDIR": str(root / "t"), "AWS_EC2_METADATA_DISABLED": "true"})

    @property
    def data(self) -> Path:
        """The directory that is lost with the machine."""
        return self.root / "data"

    @property
    def database(self) -> Path:
        """The database, unless a test has several."""
        return self.data / NAME

    def __truediv__(self, name: str) -> Path:
        """A file outside of the data directory."""
        return self.root / name

    def run(
        self, *command: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, **settings: object
    ) -> SidecarProcess:
        """`sidecar run -- command`; keyword arguments are settings."""
        arguments = ["--", *command] if command else []
        environment = {**self._environment(settings), **(env or {})}
        return SidecarProcess("run", *arguments, env=environment, directory=self.root / "logs", prefix=prefix)

    def start(self, *arguments: str, **settings: object) -> SidecarProcess:
        """Any command, that is not waited for."""
        environment = {"SIDECAR_LISTEN": "off", **self._environment(settings)}
        return SidecarProcess(*arguments, env=environment, directory=self.root / "logs")

    def cli(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        timeout: float = 60.0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        **settings: object,
    ) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        environment = {"SIDECAR_LISTEN": "off", **self._environment(settings), **(env or {})}
        program = [*prefix, *SIDECAR]
        return run_cli(*arguments, env=environment, timeout=timeout, cwd=self.root, stdin=stdin, program=program)

    def publish(self, **settings: object) -> str:
        """What `sidecar backup` does, in this process: for what a test finds there, at a quarter of the processor time.

        Returns the outcome for the first database. A daemon that runs makes the restore point itself, as for the command.
        No connection to it may be open in this process: another SQLite library would drop its locks (fcntl(2)).
        """
        environment = {"SIDECAR_LISTEN": "off", **self._environment(settings)}
        with pytest.MonkeyPatch.context() as patch:
            for name in leaking_names():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(tempfile, "tempdir", environment["TMPDIR"])  # the daemon's socket and the locks are there
            with ThreadPoolExecutor(1) as thread:  # a test with a browser has an event loop in its own
                result = thread.submit(lambda: asyncio.run(_published(load({}, environment)))).result()
        result.require_success()
        return str(result.databases[0].outcome)

    def with_env(self, **env: str) -> "Machine":
        """The same machine with other variables."""
        return replace(self, env={**self.env, **env})

    def lose_disk(self) -> None:
        """Delete the whole data directory; a fresh one is there when it boots again."""
        shutil.rmtree(self.data)
        self.data.mkdir()

    def files(self) -> list[str]:
        """The names in the data directory."""
        return sorted(path.name for path in self.data.iterdir())

    def disk(self) -> dict[str, str]:
        """Names and digests of everything in the data directory: equal means that nothing was changed."""
        paths = [path for path in self.data.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def leftovers(self) -> list[str]:
        """Temporary files and sockets of sidecar that should be gone; the files of its locks stay for ever."""
        hidden = [path.name for path in self.data.iterdir() if path.name.startswith(".")]
        staged = [path for path in (self.root / "t").rglob("*") if not path.is_dir() and path.suffix != ".lock"]
        memory = [path for path in self._snapshots_in_memory() if self._is_mine(path)]
        return [*hidden, *(str(path) for path in (*staged, *memory))]

    def points(self, folder: str = NAME) -> list[Path]:
        """The restore points in a store that is a directory, oldest first."""
        return sorted(Path(self.store.removeprefix("file://"), folder).glob("*.sqlite3.zst"))

    def restore_copy(self) -> Path:
        """The newest restore point elsewhere: as anybody decodes it, or by `sidecar restore` from an S3 store."""
        target = self.root / "copy.db"
        if self.store.startswith("file://"):
            with self.points()[-1].open("rb") as archive, target.open("wb") as database:
                shutil.copyfileobj(
                    zstandard.ZstdDecompressor().stream_reader(archive, read_across_frames=True), database
                )
            return target
        done = self.cli("restore", "--output", str(target), "--force", integrity_check="full")
        assert done.returncode == 0, done.stderr
        return target

    def sweep_memory(self) -> None:
        """Remove the snapshots of processes that were killed: there is nobody who would, when no other one follows."""
        for snapshot in self._snapshots_in_memory():
            if self._is_mine(snapshot):
                snapshot.unlink(missing_ok=True)

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        chosen = {"databases": self.database, "store": self.store, **_DEFAULTS, **settings}
        return {**self.env, **{f"SIDECAR_{name.upper()}": str(value) for name, value in chosen.items()}}

    def _is_mine(self, snapshot: Path) -> bool:
        bases = [str(path) for path in (self.database, *self.data.rglob("*.db"), *self.data.rglob("*.diverged-*"))]
        names = [*bases, *(f"{base}.drill" for base in bases)]
        digests = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names]
        return any(digest in snapshot.name for digest in digests)

    @staticmethod
    def _snapshots_in_memory() -> Iterator[Path]:
        return Path("/dev/shm").glob("sidecar-*.snapshot*")


async def _published(configuration: Configuration) -> BackupResult:
    async with open_services(configuration) as services:
        return await Sidecar(services).backup(check=False)


def write_note(path: Path, *texts: str) -> None:
    """Commit a row for each text."""
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])


def notes(path: Path) -> list[str]:
    """Every text, in the order it was written, from a database that passes SQLite's integrity check."""
    assert path.exists(), f"{path} does not exist"
    with closing(open_database(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def complaint(stderr: str) -> str:
    """The one line of an error: what, why and what to do. AssertionError for none, several, or a traceback."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith('{"timestamp"')]
    assert "Traceback" not in stderr, stderr
    assert len(lines) == 1, f"{len(lines)} lines instead of one:\n{stderr}"
    assert lines[0].startswith("sidecar: "), lines[0]
    assert lines[0].endswith(")"), f"it does not say what to do: {lines[0]}"
    return lines[0]


def children(pid: int) -> list[int]:
    """The ids of the living children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def inside(process: SidecarProcess) -> int:
    """The process that is PID 1 of its namespace, by its id out here; 0 before it exists."""
    return next(iter(children(process.pid)), 0)


def may_unshare(*kinds: str) -> bool:
    """Whether new namespaces may be made here: root may, in most containers nobody may."""
    if not shutil.which("unshare"):
        return False
    child = Child(["unshare", *kinds, "true"], {"PATH": "/usr/bin:/bin"}, stderr=subprocess.DEVNULL)
    try:
        return child.popen.wait(10) == 0
    finally:
        child.kill()
