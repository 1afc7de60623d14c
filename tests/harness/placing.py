"""A store in memory whose rules select by prefix, and the real code that publishes to it: what a rule may take, it takes.

`Scene` is one machine. The invariant of placing is checked against `require_kept` and `require_on_time`.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from sidecar.lease.record import KEY, Record
from sidecar.model import Database, FileStamp, IfAbsent, Signature, Snapshot
from sidecar.policies import RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.expiry import expiry_of
from sidecar.repository.holds import Holds
from sidecar.repository.keys import key_of, timestamp_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.places import SLOTS
from sidecar.repository.retention import lifetime, tier_of
from sidecar.status.model import Status
from sidecar.storage import Retrying, RetryPolicy, Traits
from tests.fakes import FakeClock, MemoryStore, Stored
from tests.harness.lifecycle import apply_rules

T = TypeVar("T")

NAME = "app.db"
KEEP = RetentionDays()
BIG, SMALL = 1000 << 12, 5 << 12
STAMP = Signature(FileStamp(1, 1, 1), None, racy=False)
BY_PREFIX = Traits("by prefix", minimum_part=1, tag_rules=False)
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process ends between two requests."""


class Paused(MemoryStore):
    """Once, before a copy to a slot, something else happens first: the process that copies was paused."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        """See `MemoryStore`."""
        if operation == "copy" and key.endswith(SLOTS) and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().request(operation, key, work)


class Scene:
    """A store with rules by prefix, and the daemon that publishes to it; `restart` is a new daemon."""

    def __init__(self, store: MemoryStore | None = None, epoch: int = 0, *, patience: bool = True) -> None:
        """With an `epoch` there is a lease, of which this is the term; nothing stops a machine whose term is over.

        Without `patience` no request is tried again, which is twice as fast.
        """
        self.store = store or MemoryStore(traits=BY_PREFIX)
        self.epoch = epoch
        self.patience = patience
        self.published: list[str] = []  # those that counted as protected
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not in the store."""
        clock = FakeClock()
        self.placed = PlacedStore(Retrying(self.store, clock, RetryPolicy(5.0)) if self.patience else self.store)
        self.catalog = Catalog(self.placed)
        status = Status((Database(NAME, Path("/app.db")),), "", "0", clock.now)
        self.expiry = expiry_of(NAME, self.catalog, status, clock, KEEP, holds=Holds(self.placed))

    def pass_time(self, time: timedelta) -> None:
        """Let time pass, and the rules act each day."""
        end = self.store.time + time
        while self.store.time < end:
            self.store.time = min(end, self.store.time + DAY)
            apply_rules(self.store)

    async def publish(self, at: str = "", size: int = BIG, *, settle: bool = True) -> str:
        """A cycle that publishes, `at` a time of November 2026 like `21T15:05`, or now."""
        if at:
            self.store.time = datetime.fromisoformat(f"2026-11-{at}:00+00:00")
        snapshot = Snapshot(Path("/x"), size, size, 4096, 3, STAMP, "3", on_tmpfs=True)
        await self.expiry.hold_before(snapshot)
        stamp = await self.catalog.stamp(NAME, self.store.time, None)
        key = key_of(NAME, stamp)
        metadata = {"size": str(size), "tables": "3", "live": str(size), "epoch": str(self.epoch)}
        info = await self.placed.put(key, stamp.text.encode(), condition=IfAbsent(), metadata=metadata)
        self.published.append(key)
        self._record(key)
        self.expiry.add(info, snapshot)
        if settle:
            await self.expiry.tag_and_prune()
        return key

    async def take_over(self) -> "Scene":
        """Another machine, in the next term: whatever this one publishes from now on is off the main line."""
        other = Scene(self.store, self.epoch + 1)
        newest = await other.catalog.newest(NAME)
        latest = {NAME: newest.key} if newest else {}
        self.store.add(
            KEY, Record(other.epoch, "other", "b", 60.0, latest=latest, settled={NAME: other.epoch}).to_bytes()
        )
        await other.expiry.tag_and_prune()
        return other

    def _record(self, key: str) -> None:
        """Name what was published in the lease, if this term is not over."""
        if self.epoch and (KEY not in self.store.objects or f'"epoch": {self.epoch},' in self._lease()):
            record = Record(self.epoch, "me", "b", 60.0, latest={NAME: key}, settled={NAME: self.epoch})
            self.store.add(KEY, record.to_bytes())

    def _lease(self) -> str:
        return self.store.objects[KEY].data.decode()

    async def shown(self) -> list[str]:
        """The keys of all restore points that a new process finds, oldest first, each of which it can read."""
        placed = PlacedStore(self.store)
        keys = [point.key async for point in Catalog(placed).points(NAME)]
        for key in keys:
            await require_readable(placed, key)
        return keys

    def at(self, prefix: str) -> list[str]:
        """The times of the restore points at a place."""
        return [key.rpartition("/")[2][:11] for key in sorted(self.store.objects) if key.startswith(prefix)]


async def require_readable(placed: PlacedStore, key: str) -> None:
    """Fail unless a restore point can be read under its own key."""
    assert bytes((await placed.get(key)).data).decode() in key
    assert (await placed.head(key)).key == key


def require_kept(objects: dict[str, Stored], newest: str, held: set[str], epoch: int = 0) -> None:
    """Fail unless the newest restore point and held ones have objects that no rule selects.

    A later one of this term counts as well: it is being published.
    """
    out_of_reach = {key: each for key, each in objects.items() if not key.startswith("expiring/")}
    slots = [(each.data.decode(), each.info.metadata["epoch"]) for key, each in objects.items() if key.endswith(SLOTS)]
    newer = [at for at, term in slots if epoch and term == str(epoch) and at > timestamp_of(newest).text]
    assert newer or any(at in newest for at, _ in slots) or newest in out_of_reach, f"{newest} is in {sorted(objects)}"
    for key in held:
        assert f"held/{key}" in out_of_reach


def due(line: list[str], now: datetime) -> list[str]:
    """Those of a main line, oldest first, that the policy keeps at this time."""
    kept = line[-1:]
    for older, newer in pairwise(line):
        tier = tier_of(timestamp_of(older), timestamp_of(newer), KEEP)
        if tier is None or now - timestamp_of(older).instant < lifetime(tier, KEEP):
            kept.append(older)
    return kept
