"""One writer, for any order of events: three machines, their clocks, a store that loses replies, and pauses anywhere.

The history of the store is a tree of restore points. Invariants, after every step:
1. Of different machines no two are inside their terms at once. Epochs rise with every acquisition.
2. From the moment a holder has settled on a restore point, whatever is newest descends from it: what a fenced machine
   completes late never becomes the newest, and nothing of the main line is left out.
3. Every key is above all that were there when it was stamped, wherever the machines' clocks are.

The same with the lease in another store than the restore points (`lease_store`), with a clock of its own.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import LeaseHeld, LeaseLost, PreconditionFailed, Transient
from sidecar.lease.lease import Lease
from sidecar.model import IfAbsent, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import key_of
from tests.fakes import MemoryStore
from tests.leases import DATA, Beside, SharedClock, lease_of
from tests.properties.evenly import evenly

NAMES = "abc"
SKEWS = {"a": timedelta(0), "b": timedelta(hours=1), "c": timedelta(hours=-1)}
DATABASE = "app.db"


@dataclass(slots=True)
class _Process:
    """A daemon: `base` is what its database descends from, `upload` a publish that was begun."""

    lease: Lease
    base: str | None = None
    settled: bool = False
    upload: tuple[str, int] | None = None


@dataclass(slots=True)
class _World:
    store: MemoryStore = field(default_factory=MemoryStore)  # with the lease
    data: MemoryStore | None = None  # with the restore points, if that is another one
    processes: dict[str, _Process] = field(default_factory=dict)
    zombies: list[_Process] = field(default_factory=list)
    parents: dict[str, str | None] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    trunk: str | None = None
    settled: int = 0
    epoch: int = 0

    @property
    def points(self) -> MemoryStore:
        """The store with the restore points."""
        return self.data or self.store

    @property
    def catalog(self) -> Catalog:
        """What a machine sees of both stores."""
        return Catalog(self.points, self.store, DATA if self.data else "")

    def lose(self, operation: str, *, late: bool) -> None:
        """The next such request fails, in each store; it is carried out if that is `late`."""
        for store in {self.store, self.points}:
            (store.lose_reply if late else store.fail)(operation)

    async def boot(self, name: str, *, ask: bool) -> None:
        """The machine (re)starts; its predecessor, if it had one, lives on as a zombie that only finishes its upload."""
        if name in self.processes:
            self.zombies.append(self.processes.pop(name))
        lease = lease_of(self.store, name, clock=SharedClock(self.store, SKEWS[name]), patience=1.0, data=self.data)
        with suppress(LeaseHeld, Transient):
            await lease.acquire(timedelta(seconds=3), ask=ask)
        if not lease.epoch or not lease.term.held:
            return
        assert lease.epoch > self.epoch
        self.epoch = lease.epoch
        process = _Process(lease)
        with suppress(Transient, LeaseLost):
            newest = await self.catalog.newest(DATABASE)
            process.base = newest.key if newest else None
            await lease.record_start({DATABASE: process.base} if process.base else {})
            process.settled = True
            self.trunk, self.settled = process.base or self.trunk, lease.epoch
        self.processes[name] = process

    async def begin(self, process: _Process) -> None:
        if not process.settled:
            return
        with suppress(LeaseLost, Transient):
            now = await process.lease.ensure_held()
            above = Timestamp(process.base.split("/")[1].removesuffix(".sqlite3.zst")) if process.base else None
            stamp = await self.catalog.stamp(DATABASE, now, above)
            key = key_of(DATABASE, stamp)
            if process.lease.epoch == self.epoch:
                assert all(key > other for other in self.parents if other in self.points.objects)
            process.upload = (key, process.lease.epoch)

    async def finish(self, process: _Process, *, asking: bool) -> None:
        """Finish the upload. Without `asking`, the pause was between the check of the lease and the request."""
        if process.upload is None:
            return
        key, epoch = process.upload
        process.upload = None
        with suppress(LeaseLost, Transient, PreconditionFailed):
            if asking:
                await process.lease.ensure_held()
            self.parents[key], self.terms[key] = process.base, epoch
            await self.points.put(key, b"x", condition=IfAbsent(), metadata={"epoch": str(epoch)})
            process.base = key
            await process.lease.confirm(DATABASE, key)

    async def check(self) -> None:
        inside = {
            name
            for name, process in self.processes.items()
            if process.lease.term.held and self.store.time <= process.lease.term.ends
        }
        assert len(inside) <= 1, inside
        if self.trunk:
            with self.store.sound(), self.points.sound():
                newest = await self.catalog.newest(DATABASE)
            assert newest, "the main line was left out"
            assert self.descends(newest.key), f"{newest.key} does not descend from {self.trunk}"
            late = newest.key != self.trunk and self.terms[newest.key] < self.settled
            assert not late, f"{newest.key} is a fenced machine's"

    def descends(self, key: str | None) -> bool:
        while key and key != self.trunk:
            key = self.parents.get(key)
        return key == self.trunk


Event = tuple[str, str | int, bool]


def each(what: str, *of: str | int, flags: tuple[bool, ...] = (False, True)) -> list[Event]:
    """The events of one kind."""
    return [(what, which, flag) for which in of for flag in flags]


BEGIN, FINISH = each("begin", *"aabbc", flags=(False,)), each("finish", *"aabbc")
BOOT = each("boot", *"aabbc")
EVENTS = evenly(
    *(BOOT, BOOT, BEGIN, BEGIN, FINISH, FINISH),
    each("renew", *"aabbc", flags=(False,)),
    each("release", *"aabbc"),
    each("zombie", "a"),
    each("wait", 1, 45, 59, 61, 61, 200, flags=(False,)),
    each("cut off", "put", flags=(False,)),
    each("lose", "put", "put", "get", "head", "list"),
)
PROLOGUE: list[Event] = [("boot", "a", False), ("begin", "a", False), ("finish", "a", True)]


async def play(world: _World, what: str, which: str | int, flag: bool) -> None:
    if what == "boot":
        await world.boot(str(which), ask=flag)
    elif what == "wait":
        world.store.time += timedelta(seconds=int(which))
    elif what == "lose":
        world.lose(str(which), late=flag)
    elif what == "cut off":
        world.store.cut_off()
    elif what == "zombie":
        for zombie in world.zombies:
            await world.finish(zombie, asking=flag)
        world.zombies.clear()
    elif process := world.processes.get(str(which)):
        if what == "begin":
            await world.begin(process)
        elif what == "finish":
            await world.finish(process, asking=flag)
        else:
            with suppress(LeaseLost, Transient):
                await (process.lease.term.renew() if what == "renew" else process.lease.term.release(handing_over=flag))


@given(st.lists(EVENTS, min_size=8, max_size=40), st.sampled_from([None, *SKEWS.values()]))
@settings(max_examples=120, deadline=None)
@example([("begin", "a", False), ("wait", 61, False), ("boot", "b", False), ("finish", "a", False)], None)
@example([("begin", "a", False), ("boot", "a", False), ("zombie", "a", False), ("begin", "a", False)], None)
@example([("begin", "a", False), ("wait", 61, False), ("boot", "b", False), ("finish", "a", False)], SKEWS["c"])
def test_the_newest_restore_point_belongs_to_the_newest_holder(events: list[Event], skew: timedelta | None) -> None:
    """`skew`: how far the clock of the store with the restore points is ahead of the lease's; None for a single store."""

    async def run() -> None:
        world = _World()
        world.data = None if skew is None else Beside(world.store, skew)
        for what, which, flag in [*PROLOGUE, *events]:
            world.store.time += timedelta(milliseconds=300)
            await play(world, what, which, flag)
            await world.check()

    anyio.run(run)
