"""Lives of machines on one store, against a model that knows every state that an app saw and all that was ever reported protected.

Machines boot, commit, publish segments and restore points, lose continuity, are killed at any request to the store (before
it, after it, or with a write that arrives later), lose their disk or keep it, are suspended and wake up after another one
has taken over. Whatever boots next starts in a state that some app saw, and not in an older one than was reported protected.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.errors import LeaseLost, PreconditionFailed
from sidecar.lease.record import KEY
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming

T = TypeVar("T")
NAME = "app.db"
TTL = timedelta(minutes=1)
WANTED = os.environ.get("STREAMING_EXAMPLES")  # `make stress` wants five hundred, others every time


class Killed(BaseException):
    """The process is gone: nothing below may catch it."""


@dataclass(frozen=True)
class Life:
    """One life of a machine.

    `does` is what happens in it: c(ommit), s(egments), p(oint), x (a cut), k (a checkpoint of the app). With `late` nothing
    is followed before the first of the segments, as where the app has to open its database first. It is killed at the request with the number
    `at`, if there are so many, `how`: before it, after it, or "late", which is a write that the store carries out later.
    Else it ends as `end` says.
    """

    machine: str
    keeps_disk: bool
    does: str
    at: int
    how: str
    end: str
    late: bool = False


LIVES = st.builds(
    Life,
    machine=st.sampled_from("aab"),
    keeps_disk=st.booleans(),
    does=st.text("cccsspxk", min_size=1, max_size=8),
    at=st.integers(1, 120),
    how=st.sampled_from(["before", "after", "late"]),
    end=st.sampled_from(["killed", "suspended", "stopped"]),
    late=st.booleans(),
)


LAST = Life("z", keeps_disk=False, does="cs", at=0, how="", end="killed")


class HostileStore(MemoryStore):
    """Kills its client at a request."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.how = ""
        self.late: list[Callable[[], object]] = []

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        self.left -= 1
        if self.left != 0:
            return await super().request(operation, key, work)
        if self.how == "after":
            await super().request(operation, key, work)
        elif self.how == "late" and operation in {"put", "tag"}:
            self.late.append(work)
        raise Killed

    def deliver(self) -> None:
        """What was under way arrives."""
        for work in self.late:
            with suppress(PreconditionFailed):
                work()
        self.late = []


@dataclass
class World:
    directory: Path
    store: HostileStore = field(default_factory=HostileStore)
    states: dict[str, list[str]] = field(default_factory=dict)  # by the last row
    protected: list[str] = field(default_factory=list)
    number: int = 0
    trace: list[str] = field(default_factory=list)
    suspended: set[str] = field(default_factory=set)

    async def live(self, lives: list[Life]) -> None:
        """The first of these lives, in which the next one takes place if it is suspended."""
        life = lives.pop(0)
        self.number += 1
        name = next(each for each in (life.machine, "c", "d", "e", "f", "g") if each not in self.suspended)
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        if not life.keeps_disk:
            for file in folder.iterdir():
                file.unlink()
        self.store.time += TTL + timedelta(seconds=5)
        self.store.left, self.store.how = life.at, life.how
        try:
            async with streaming(self.store, folder / NAME, name, late=life.late) as machine:
                await self._run(life, machine, App(self, folder / NAME, f"{name}.{self.number}"), lives)
        except BaseException as error:
            if not _is_kill(error):
                raise
            self.trace.append("killed")
        self.store.left = 0
        self.store.deliver()

    async def _run(self, life: Life, machine: StreamingMachine, app: "App", lives: list[Life]) -> None:
        await machine.start()
        app.open()
        machine.used = True
        try:
            self.trace.append(f"{life} has booted with {len(app.rows)} rows, the last {app.rows[-1:]}")
            self._require(app.rows)
            for step in life.does:
                await self._do(step, machine, app)
            self.store.left = 0
            if life.end == "suspended" and lives:
                self.suspended.add(machine.holder)
                await self.live(lives)
                if f'"holder": "{machine.holder}"'.encode() not in self.store.objects[KEY].data:
                    await self._wake(machine, app)
                self.suspended.remove(machine.holder)
            elif life.end == "stopped":
                if await machine.final.run(30.0):
                    self.protected = list(app.rows)
                assert machine.lease
                await machine.lease.release()
                self.trace.append(f"stopped: {self.protected[-1:]} protected")
        finally:
            app.close()

    async def _do(self, step: str, machine: StreamingMachine, app: "App") -> None:
        self.store.time += timedelta(seconds=1)
        done = False
        match step:
            case "c":
                app.commit()
            case "s":
                await machine.publish_segments()
                done = machine.streams.protects
            case "p":
                done = await machine.backup.cycle.run() in {"published", "unchanged"}
            case "x":
                await machine.cut()
            case "k":
                app.checkpoint()
        if done:
            self.protected = list(app.rows)
        self.trace.append(f"{step}: {self.protected[-1:]} protected")

    def _require(self, rows: list[str]) -> None:
        told = "\n".join(self.trace)
        assert not rows or rows == self.states[rows[-1]], f"{rows} was never seen\n{told}"
        assert rows[: len(self.protected)] == self.protected, (
            f"{rows} lacks what was protected: {self.protected}\n{told}"
        )

    async def _wake(self, machine: StreamingMachine, app: "App") -> None:
        """A suspended machine wakes up when others have taken over: it may go on, and may claim nothing."""
        segments = machine.streams.segments
        app.commit()
        for work in (machine.publish_segments, machine.backup.cycle.run):
            try:
                await work()
            except LeaseLost:
                continue
            raise AssertionError(f"{work} succeeded without the lease")
        assert machine.streams.segments == segments, "a fenced machine has confirmed a segment"
        self.store.time += timedelta(seconds=1)
        before = len(self._diverged())
        await machine.final.run(30.0)
        assert len(self._diverged()) > before, "\n".join(
            [
                "what a fenced machine wrote is kept nowhere",
                *self.trace,
                *(each.message for each in machine.status.problems),
            ]
        )
        self.trace.append(f"{machine.holder} woke up")

    def _diverged(self) -> list[str]:
        return [key for key in self.store.objects if key.startswith("diverged/")]


class App:
    """Appends rows that nobody else writes."""

    def __init__(self, world: World, path: Path, name: str) -> None:
        self.rows: list[str] = []
        self._world = world
        self._path = path
        self._name = name
        self._connection: Any = None

    def open(self) -> None:
        """Start."""
        self._connection = open_database(self._path)
        self._connection.execute("PRAGMA journal_mode=wal")
        self._connection.execute("PRAGMA synchronous=off")
        self._connection.execute("CREATE TABLE IF NOT EXISTS history (number INTEGER PRIMARY KEY, row TEXT)")
        self.rows = [row for (row,) in self._connection.execute("SELECT row FROM history ORDER BY number")]
        assert self._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def commit(self) -> None:
        row = f"{self._name}.{len(self.rows)}"
        self._connection.execute("INSERT INTO history (row) VALUES (?)", (row,))
        self.rows.append(row)
        self._world.states[row] = list(self.rows)

    def checkpoint(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self._connection.close()


def _is_kill(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(Killed)[1] is None
    return isinstance(error, Killed)


async def run(lives: list[Life]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        left = [*lives, LAST, LAST]
        while left:
            await world.live(left)


@settings(max_examples=int(WANTED or 8), derandomize=not WANTED, deadline=None, suppress_health_check=list(HealthCheck))
@example([Life("a", keeps_disk=False, does="cspcs", at=0, how="", end="killed")])
@example(
    [
        Life("a", keeps_disk=False, does="cpcs", at=0, how="", end="suspended"),
        Life("b", keeps_disk=False, does="cs", at=0, how="", end="killed"),
        Life("a", keeps_disk=True, does="xcs", at=0, how="", end="killed"),
    ]
)
@example(
    [
        Life("a", keeps_disk=False, does="ccsp", at=0, how="", end="killed"),
        Life("b", keeps_disk=False, does="ccscs", at=0, how="", end="killed", late=True),
        Life("a", keeps_disk=False, does="cpccsc", at=0, how="", end="killed", late=True),
        Life("b", keeps_disk=False, does="ckcs", at=0, how="", end="killed", late=True),
    ]
)
@given(st.lists(LIVES, min_size=1, max_size=5))
def test_no_life_costs_what_was_protected(lives: list[Life]) -> None:
    anyio.run(run, lives)
