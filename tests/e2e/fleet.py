"""Machines that share a store, each with a disk, a name and a faulty network of its own, and whose history is whose."""

import io
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import zstandard

from sidecar.storage.s3.probing import KEY as PROBED
from tests.e2e.machine import NAME, Machine
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.history import SCRIPT, history
from tests.harness.proxy import FaultProxy
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess

TTL = 3.0
PREFIX = "shop"
# Short terms: a takeover takes the ttl and the second by which S3's clock is rounded.
SETTINGS = {"lease_ttl": f"{TTL:g}s", "lease_wait": "60s", "interval": "300ms", "shutdown_grace": "5s"}


@dataclass(frozen=True)
class Member:
    """A machine of the fleet; its app is `tests/harness/history.py`, which signs with the machine's name."""

    name: str
    machine: Machine
    proxy: FaultProxy

    @property
    def acks(self) -> Path:
        """What its app, in all its lives, was told to be committed."""
        return self.machine / "acks"

    def acked(self) -> list[str]:
        """The rows of `acks`; a torn last line does not count."""
        return self.acks.read_text().split("\n")[:-1] if self.acks.exists() else []

    def run(
        self, *, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, **settings: object
    ) -> SidecarProcess:
        """`sidecar run` with the app."""
        app = (sys.executable, str(SCRIPT), str(self.machine.database), "--name", self.name, "--acks", str(self.acks))
        return self.machine.run(*app, prefix=prefix, env=env, **{**SETTINGS, **settings})

    def wait_acked(self, more: int, timeout: float = 60.0) -> None:
        """Return once its app has committed this many more rows than now."""
        goal = len(self.acked()) + more
        eventually(lambda: len(self.acked()) >= goal, timeout, f"{self.name} commits {more} more rows")


class Fleet:
    """All machines of one store, and the store as it looks from outside."""

    def __init__(self, directory: Path, seaweed: Seaweed, bucket: str, stack: ExitStack) -> None:
        self._directory = directory
        self._seaweed = seaweed
        self._bucket = bucket
        self._stack = stack
        self.members: list[Member] = []

    def member(self, name: str) -> Member:
        """One more machine, with an empty disk."""
        root = self._directory / name
        root.mkdir()
        proxy = self._stack.enter_context(FaultProxy(self._seaweed.port))
        env = clean_environment(root, FLY_MACHINE_ID=name) | self._seaweed.environment(endpoint=proxy.endpoint)
        made = Member(name, Machine.make(root, f"s3://{self._bucket}/{PREFIX}", env), proxy)
        self.members.append(made)
        return made

    def main_line(self) -> list[list[str]]:
        """The rows of every restore point, oldest first."""
        return self._points(f"{PREFIX}/{NAME}/")

    def diverged(self) -> list[list[str]]:
        """The rows of everything kept aside in the store."""
        return self._points(f"{PREFIX}/diverged/{NAME}/")

    def publishers(self) -> list[str]:
        """Which machine made each restore point of the main line."""
        s3, bucket = self._seaweed.s3, self._bucket
        found = [s3.head(bucket, key) for key in s3.keys(bucket, f"{PREFIX}/{NAME}/")]
        return [each["Metadata"]["holder"] for each in found if each]

    def segments(self, holder: str = "") -> list[str]:
        """The keys of all segments, or of those that a machine has published."""
        keys = self._seaweed.s3.keys(self._bucket, f"{PREFIX}/stream/{NAME}/")
        return [key for key in keys if key.split("/")[3].endswith(f"-{holder}" if holder else "")]

    def tags(self, key: str) -> dict[str, str]:
        """The tags of an object."""
        return self._seaweed.s3.tags(self._bucket, key)

    def require_one_history(self, late: int = 0) -> list[str]:
        """The invariant. Every restore point is a prefix of the next one; and of what any app was told to be committed,

        nothing is missing from the main line and `diverged/` together. What a boot restores is the end of the main line,
        which is returned. At most `late` restore points of a fenced machine lie below it, unused, and prefixes of what
        that one kept under `diverged/`.
        """
        points, diverged = self.main_line(), self.diverged()
        strays = [rows for rows in points if not _begins(points[-1], rows)]
        assert len(strays) <= late, f"not of one history: {points[-1][-3:]} and {[rows[-3:] for rows in strays]}"
        assert all(any(_begins(kept, rows) for kept in diverged) for rows in strays), "a stray is kept nowhere else"
        line = [rows for rows in points if rows not in strays]
        assert all(_begins(following, one) for one, following in pairwise(line))
        kept = {row for rows in (line[-1], *diverged) for row in rows}
        for member in self.members:
            lost = [row for row in member.acked() if row not in kept]
            assert not lost, f"{len(lost)} acknowledged rows of {member.name} are nowhere: {lost[:3]} to {lost[-1]}"
        assert self.restored() == line[-1]
        uploads = self._seaweed.s3.open_uploads(self._bucket)
        assert [key for key in uploads if not key.endswith(PROBED)] == [], (
            "a machine may be killed while it tries the store"
        )
        return line[-1]

    def restored(self) -> list[str]:
        """What a machine that was never seen before would start with."""
        return history(self.members[0].machine.restore_copy())

    def _points(self, prefix: str) -> list[list[str]]:
        return [_rows(self._seaweed.s3.get(self._bucket, key)) for key in self._seaweed.s3.keys(self._bucket, prefix)]


def freeze(*pids: int) -> None:
    """Suspend these processes; all of a machine's, if they are its `family`."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def thaw(*pids: int) -> None:
    """Undo `freeze`."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def ready(process: SidecarProcess) -> bool:
    """Whether /readyz answers 200 now."""
    try:
        return process.http("/readyz")[0] == 200
    except OSError:
        return False


def _begins(rows: list[str], beginning: list[str]) -> bool:
    return rows[: len(beginning)] == beginning


def _rows(archive: bytes) -> list[str]:
    """Decoded as anybody would."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "point.db")
        with path.open("wb") as database:
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive), read_across_frames=True)
            shutil.copyfileobj(reader, database)
        return history(path)
