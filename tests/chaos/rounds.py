"""Rounds of killing: sidecar, its app or both die at a random instant, the disk with them or not; then it boots again.

The app is the ledger's writer (`tests/harness/writers.py`), which tells after each commit that it did, and before its
first one keeps a copy of what it found. While it runs it is written down how many commits had been acknowledged when; the
log tells when each restore point was begun that was published. From both follows what no loss of a machine may cost.
"""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.machine import Machine, children
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writer_process import last_ack, writer_command
from tests.harness.writers import check_ledger, fill, open_database

MACHINES = 3
LONGEST_LIFE = 3.0
MEGABYTES = 11  # a restore point has several parts, and is copied in part from the one before
SETTINGS: dict[str, Any] = {"interval": "50ms", "part_size": "5MiB", "lease_wait": "60s", "shutdown_grace": "5s"}
WAYS = ("sidecar first", "app", "app, then sidecar", "both", "told to stop")

Row = tuple[int, int, int]


class Violation(Exception):
    """A promise is broken."""


@dataclass
class Tally:
    """What has happened so far."""

    rounds: int = 0
    looked: int = 0
    restored: int = 0
    kept: int = 0
    takeovers: int = 0
    points: int = 0
    ways: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))

    def __str__(self) -> str:
        ways = ", ".join(f"{name} {count}" for name, count in self.ways.items())
        return (
            f"{self.rounds} rounds, {self.looked} databases checked: {self.restored} restored, {self.kept} kept; "
            f"{self.takeovers} takeovers by another machine, {self.points} restore points; {ways}"
        )


@dataclass
class _Life:
    """One run of sidecar and its app. `samples` are (time, last acknowledged number)."""

    machine: Machine
    number: int
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def acks(self) -> Path:
        return self.machine / f"acks-{self.number}"

    @property
    def found(self) -> Path:
        return self.machine / f"found-{self.number}.db"

    def sample(self) -> None:
        now = time.time()  # before the look: what it sees was acknowledged by then, or a moment after
        self.samples.append((now, last_ack(self.acks)))

    def acked_before(self, instant: float) -> int:
        """How many commits had been acknowledged by then, at least."""
        return max((acked for at, acked in self.samples if at < instant), default=0)


class Chaos:
    """The machines, and what must be true of the next boot."""

    def __init__(self, directory: Path, seaweed: Seaweed, bucket: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._machines = []
        for number in range(MACHINES):
            root = directory / f"machine-{number}"
            root.mkdir()
            env = clean_environment(root, FLY_MACHINE_ID=f"machine-{number}") | seaweed.environment()
            self._machines.append(Machine.make(root, f"s3://{bucket}/chaos", env))
        self._last: Machine | None = None
        self._disk_kept = False
        self._protected = 0  # so many rows no loss of a machine may cost
        self._acked = 0  # so many were acknowledged in the last life
        self._known: list[Row] = []  # those of the protected rows that have been seen
        self.tally = Tally()
        fill(self._machines[0].database, MEGABYTES)

    def sweep(self) -> None:
        """Leave nothing in memory when there is no further round."""
        for machine in self._machines:
            machine.sweep_memory()

    def round(self) -> None:
        """Choose a machine, boot, look, let it live, end it. Raises `Violation`."""
        before, machine = self._last, self._choose()
        life = _Life(machine, self.tally.rounds)
        self.tally.takeovers += machine is not before and before is not None
        ttl = self._random.choice(("1s", "2s", "3s"))
        app = writer_command(
            machine.database,
            "--acks",
            str(life.acks),
            "--copy",
            str(life.found),
            "--rate",
            "300",
            "--seed",
            str(self._random.randrange(1 << 30)),
        )
        with machine.run(*app, lease_ttl=ttl, **SETTINGS) as process:
            way = self._live(process, life)
            ended = self._end(process, life, way)
            process.kill()
            self._look(life, process)
            self._remember(life, process, finished=ended)
        self.tally.rounds += 1
        self.tally.ways[way] += 1
        self._last = machine

    def _choose(self) -> Machine:
        if self._last is None:
            return self._machines[0]
        machine = self._last if self._random.random() < 0.6 else self._random.choice(self._machines)
        self._disk_kept = machine is self._last
        if self._random.random() < 0.4:
            machine.lose_disk()
            self._disk_kept = False
        if not self._disk_kept:
            self._acked = self._protected
        return machine

    def _live(self, process: SidecarProcess, life: _Life) -> str:
        """Until a random instant, which may be in the boot; or, a while after the app began."""
        if self._random.random() < 0.7:
            eventually(lambda: life.acks.exists() or not process.running, 90, f"the app runs\n{process.report()}")
            until = time.monotonic() + self._random.uniform(0, LONGEST_LIFE / 2)
        else:
            until = time.monotonic() + self._random.uniform(0, LONGEST_LIFE)
        while time.monotonic() < until:
            life.sample()
            if not process.running:
                raise Violation(f"ended by itself with {process.wait(0)}\n{process.report()}")
            time.sleep(0.005)
        return self._random.choice(WAYS)

    def _end(self, process: SidecarProcess, life: _Life, way: str) -> bool:
        """True when sidecar ended by itself, having said that all is published."""
        app = children(process.pid)
        if way == "both" or (way.startswith("app") and not (app and life.acks.exists())):
            process.kill()
            return False
        if way == "sidecar first":
            process.signal(signal.SIGKILL)
            process.wait()
            time.sleep(self._random.uniform(0, 0.2))  # the app goes on for a moment, alone
            return False
        if way == "told to stop":
            status = process.terminate()
            if status not in (0, 143):  # 143: before the app was started
                raise Violation(f"ended with {status}\n{process.report()}")
            return status == 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(app[0], signal.SIGKILL)
        if way == "app, then sidecar":
            time.sleep(self._random.uniform(0, 0.15))
            return False
        if (status := process.wait()) != 137:
            raise Violation(f"ended with {status}, the app with 137\n{process.report()}")
        return True

    def _look(self, life: _Life, process: SidecarProcess) -> None:
        """What the app found when it began."""
        if not life.found.exists():
            return
        try:
            last = check_ledger(life.found) if self._has_ledger(life.found) else 0
        except AssertionError as error:
            raise Violation(f"{error}\n{process.report()}") from error
        rows = _rows(life.found) if last else []
        life.found.unlink()
        least = self._acked if self._disk_kept else self._protected
        if last < least:
            raise Violation(
                f"the app found {last} rows, {least} were safe (disk kept: {self._disk_kept})\n{process.report()}"
            )
        if rows[: len(self._known)] != self._known:
            raise Violation(f"the first {len(self._known)} rows are others than before\n{process.report()}")
        self._known = rows[: self._protected]
        self._acked = last
        restored = '"outcome": "restored"' in process.stderr()
        self.tally.looked += 1
        self.tally.restored += restored
        self.tally.kept += not restored

    def _remember(self, life: _Life, process: SidecarProcess, *, finished: bool) -> None:
        """What of this life must be there in the next one."""
        life.sample()
        self._acked = max(self._acked, last_ack(life.acks))
        for begun in _published(process.stderr()):
            self.tally.points += 1
            self._protected = max(self._protected, life.acked_before(begun))
        if finished:
            self._protected = max(self._protected, self._acked)

    @staticmethod
    def _has_ledger(path: Path) -> bool:
        with contextlib.closing(open_database(path)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sequence'").fetchone())


def _rows(path: Path) -> list[Row]:
    with contextlib.closing(open_database(path)) as connection:
        rows: list[Row] = connection.execute("SELECT number, account, amount FROM sequence ORDER BY number").fetchall()
    return rows


def _published(log: str) -> Iterator[float]:
    """When each restore point was begun that was published; a torn last line does not count."""
    for line in log.split("\n")[:-1]:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") == "restore point published":
                ended = datetime.fromisoformat(entry["timestamp"]).timestamp()
                yield ended - entry["seconds"] - 0.002  # it is rounded
