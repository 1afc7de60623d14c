"""Lists the store every hour, so that the page, `/status` and the cost estimate know what it holds."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import anyio

from sidecar.errors import SidecarError
from sidecar.log import log
from sidecar.model import RestorePoint, Timestamp
from sidecar.policies import Expires, RetentionDays
from sidecar.repository import Catalog, Entry, Inventory, describe, tier_of, timestamp_of
from sidecar.repository.expiry import what_expires
from sidecar.repository.increments import Increments
from sidecar.status import DatabaseStatus, Listing, Status, StoredPoint

SHOWN = 20
LIST_SECONDS = 3600.0
FIRST_LIST_SECONDS = 60.0  # until there is anything, and after a failure
FOLLOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a database's status was when its listing began."""

    published: str  # the newest key of its history
    alarms: int

    @classmethod
    def of(cls, database: DatabaseStatus) -> "_Mark":
        """`alarms` changes when a restore point is held, or was found damaged or gone."""
        published = database.history[-1].key if database.history else ""
        return cls(published, database.suspicious + database.drills["damaged"])


class StoreListing:
    """Keeps `Status.listings` and `Status.stored` up to date: by a listing every hour, and in between by each publish."""

    def __init__(
        self,
        catalog: Catalog,
        status: Status,
        holder: str,
        options: Mapping[str, Sequence[str]],
        keep: RetentionDays,
    ) -> None:
        """`holder` is this machine; `options` are those that `sidecar restore` needs to find each database."""
        self._catalog = catalog
        self._status = status
        self._holder = holder
        self._options = options
        self._keep = keep
        self._marks: dict[str, _Mark] = {}
        self._looked: dict[str, datetime] = {}

    async def run(self) -> None:
        """List the store for as long as the daemon runs."""
        while True:
            listed = [await self.refresh(name) for name in self._status.databases]
            with anyio.move_on_after(LIST_SECONDS if all(listed) else FIRST_LIST_SECONDS):
                await self._follow()

    async def refresh(self, name: str) -> bool:
        """List one database: one request for each thousand restore points, and two for each that is shown.

        Returns False when there is none, or when the store did not answer; the backup cycles report why.
        """
        self._marks[name] = _Mark.of(self._status.databases[name])
        if self._status.expires:  # what the store can do may have been learned meanwhile
            prunes = self._status.expires is Expires.PRUNE
            self._status.expires = what_expires(self._catalog.store.traits, prunes=prunes)
        try:
            listing, self._status.stored[name] = await self.read(name)
            await self._look_at_segments(name)
        except SidecarError:
            return False
        self._status.listings[name] = listing
        self.update(name)
        return listing.count > 0

    async def _look_at_segments(self, name: str) -> None:
        """Once a day, where there may be streams: how old the oldest segment is. One request."""
        stream, now = self._status.databases[name].stream, self._status.now()
        looked = self._looked.get(name)
        if not stream.is_wanted or (looked and now - looked < timedelta(days=1)):
            return
        oldest = await Increments(self._catalog.store).oldest(name)
        stream.oldest = datetime.fromtimestamp(oldest.time / 1000, UTC) if oldest else None
        self._looked[name] = now

    async def read(self, name: str, shown: int = SHOWN) -> tuple[Listing, dict[str, int]]:
        """List one database now: as many of its newest restore points as `shown`, and bytes by tier. Raises `SidecarError`."""
        inventory = Inventory(self._keep, shown, self._status.now())
        async for point in self._catalog.points(name):
            inventory.add(point)
        newest = [*reversed(inventory.newest)]
        oldest = [inventory.oldest] if inventory.oldest else []
        known = {each.key: each for each in await self._described(name, [*newest, *oldest])}
        listing = Listing(
            self._status.now(),
            inventory.count,
            self._with_differences(name, [known[each.key] for each in newest if each.key in known]),
            next((known[each.key] for each in oldest if each.key in known), None),
            inventory.overdue,
        )
        return listing, inventory.by_tier

    async def _described(self, name: str, points: Sequence[RestorePoint]) -> list[StoredPoint]:
        unique = list({each.key: each for each in points}.values())
        try:
            entries = await describe(self._catalog, unique)
        except SidecarError as error:
            log.info("restore points shown without holder and tier", database=name, error=error.message)
            entries = [Entry(each, None, None, None, None, None, None, None) for each in unique]
        return [
            StoredPoint(
                each.point.key,
                each.point.timestamp.instant,
                each.point.size,
                each.holder,
                each.tier,
                self._command(name, each.point.key, each.point.timestamp),
            )
            for each in entries
        ]

    async def _follow(self) -> None:
        """Add what is published, until the store must be listed again: something about its restore points was reported."""
        while all(_Mark.of(each).alarms == self._marks[name].alarms for name, each in self._status.databases.items()):
            for name in self._status.databases:
                self.update(name)
            await anyio.sleep(FOLLOW_SECONDS)

    def update(self, name: str) -> None:
        """Add the restore points that this process published since the listing. Asks the store for nothing."""
        listing, database = self._status.listings.get(name), self._status.databases[name]
        if listing is None:
            return
        for publication in database.history:
            last = listing.newest[0] if listing.newest else None
            if publication.key <= max(self._marks[name].published, last.key if last else ""):
                continue
            timestamp = timestamp_of(publication.key)
            command = self._command(name, publication.key, timestamp)
            diff = self._difference(name, last.key, publication.key) if last else None
            point = StoredPoint(publication.key, timestamp.instant, publication.size, self._holder, None, command, diff)
            tier = tier_of(Timestamp.of(last.time), timestamp, self._keep) if last and not database.untagged else None
            listing = listing.with_newest(point, previous_tier=tier, limit=SHOWN)
        self._status.listings[name] = listing

    def _with_differences(self, name: str, points: Sequence[StoredPoint]) -> tuple[StoredPoint, ...]:
        """Restore points, newest first, each with the command that compares it with the one before."""
        older = [each.key for each in points[1:]]
        differences = [*(self._difference(name, key, each.key) for key, each in zip(older, points, strict=False)), None]
        return tuple(replace(each, diff=diff) for each, diff in zip(points, differences, strict=False))

    def _difference(self, name: str, before: str, after: str) -> str:
        return shlex.join(["sidecar", "diff", *self._options.get(name, ()), before, after])

    def _command(self, name: str, key: str, timestamp: Timestamp) -> str:
        options = self._options.get(name, ())
        return shlex.join(["sidecar", "restore", *options, "--key", key, "--output", f"{timestamp}.db"])
