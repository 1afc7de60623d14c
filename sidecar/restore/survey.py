"""The state of a database, on this disk and in the store, and the decision of the boot table.

This is the only place where the facts are gathered, the table is consulted, and damaged restore points are skipped. A boot
carries the decision out, `sidecar check` previews it, and `sidecar backup` refuses what a boot would call a conflict.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import anyio

from sidecar.database import Lineage, Marker, Snapshotter
from sidecar.errors import ConfigurationError, DamagedRestorePoint, NothingToRestore, SidecarError
from sidecar.model import Database, Origin, RestorePoint
from sidecar.policies import OnConflict, OnEmptyStore
from sidecar.repository import OTHERS, Catalog, folder_of
from sidecar.restore.decision import Decision, Tail, conflict, decide
from sidecar.restore.descent import DescentLook
from sidecar.storage import Neighbours

T = TypeVar("T")

OTHERS_SECONDS = 3.0  # only to list what else the store has


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts about one database, and the decision. `local`: there is a database file of more than zero bytes.

    `end` is where the streams end that follow the newest restore point, if the local database descends from that, and `tail`
    what they have that it lacks. `stopped` is why they end too early, or empty.
    """

    database: Database
    store: str
    local: bool
    marker: Marker | None
    newest: RestorePoint | None
    decision: Decision
    end: Origin | None = None
    tail: Tail = Tail.INCLUDED
    stopped: str = ""

    @property
    def newest_key(self) -> str:
        """The key of the newest restore point, or an empty string."""
        return self.newest.key if self.newest else ""

    @property
    def is_conflict(self) -> bool:
        """Whether the local database does not descend from the newest restore point, whichever of the two wins."""
        return self.decision in {Decision.CONFLICT_REMOTE, Decision.CONFLICT_LOCAL, Decision.CONFLICT_FAIL}

    @property
    def restores(self) -> bool:
        """Whether a restore point replaces the local file."""
        return self.decision in {Decision.RESTORE, Decision.CONFLICT_REMOTE}

    def descends_from(self, point: RestorePoint) -> bool:
        """Whether the local database descends from this restore point, and no other machine's stream continues from there."""
        return self.marker is not None and self.marker.names(point.key) and self.tail is not Tail.FOREIGN

    def require_start(self) -> None:
        """Raise if the decision is not to start the app."""
        if self.decision is Decision.NOTHING_TO_RESTORE:
            raise NothingToRestore(
                f"{self.store} has no restore point of {self.database.name}, and on_empty_store=fail",
                "check `store` and the database's name, or set on_empty_store=start for the first start",
            )
        if self.decision is Decision.CONFLICT_FAIL:
            raise ConfigurationError(
                f"{self.database.path} does not descend from the newest restore point {self.newest_key}, and on_conflict=fail",
                "move the file away to restore, or set on_conflict to remote or local",
            )


@dataclass(frozen=True, slots=True)
class Good(Generic[T]):
    """The newest good restore point and the result of the attempt; None if the local database descends from it."""

    point: RestorePoint
    value: T | None


class Survey:
    """Examines databases and their restore points, and changes nothing."""

    def __init__(
        self,
        catalog: Catalog,
        snapshotter: Snapshotter,
        on_empty: OnEmptyStore,
        on_conflict: OnConflict,
        neighbours: Neighbours | None = None,
        descent: DescentLook | None = None,
    ) -> None:
        """`neighbours` finds other stores beside this one, if possible; `descent` examines streams."""
        self._descent = descent
        self._catalog = catalog
        self._snapshotter = snapshotter
        self._on_empty = on_empty
        self._on_conflict = on_conflict
        self._neighbours = neighbours

    async def look(self, database: Database, lineage: Lineage) -> Situation:
        """Gather the facts, and consult the boot table. Raises `SidecarError` if the store does not answer."""
        local = self._snapshotter.signature(database.path) is not None
        lineage.require_readable()
        newest = await self._catalog.newest(database.name)
        marker = (lineage.read() or (lineage.follow(newest.key) if newest else None)) if local else None
        descent = None
        if self._descent and newest and marker and marker.names(newest.key):
            descent = await self._descent.look(newest, marker, database.path)
        tail = descent.tail if descent else Tail.INCLUDED
        decision = decide(
            newest.key if newest else None,
            local=local,
            marker=marker,
            on_empty=self._on_empty,
            on_conflict=self._on_conflict,
            tail=tail,
        )
        end, stopped = (descent.end, descent.stopped) if descent else (None, "")
        return Situation(database, self._catalog.store.url, local, marker, newest, decision, end, tail, stopped)

    def as_conflict(self, found: Situation) -> Situation:
        """The same facts, once the local database is known to lack what was streamed."""
        return replace(found, marker=None, decision=conflict(self._on_conflict))

    async def newest_good(
        self,
        found: Situation,
        attempt: Callable[[RestorePoint], Awaitable[T]],
        on_damage: Callable[[DamagedRestorePoint], None],
    ) -> Good[T]:
        """Try restore points, newest first, until `attempt` finds one that is not damaged.

        It stops, without an attempt, at one that the local database descends from. `on_damage` is called for each that is
        skipped. Raises `DamagedRestorePoint` if none is good.
        """
        first: DamagedRestorePoint | None = None
        async for point in self._newest_first(found):
            if found.descends_from(point):
                return Good(point, None)
            try:
                return Good(point, await attempt(point))
            except DamagedRestorePoint as damage:
                first = first or damage
                on_damage(damage)
        raise DamagedRestorePoint(
            f"no restore point of {found.database.name} is good; the newest: {first.message if first else 'none'}",
            "nothing was changed; run `sidecar verify --all`; to start with a file that you put in place, set on_conflict=local; "
            "if all were deleted on purpose, delete lease.json as well",
        )

    async def _newest_first(self, found: Situation) -> AsyncIterator[RestorePoint]:
        if found.newest is None:
            return
        yield found.newest
        points = self._catalog.points(found.database.name)
        older = [point async for point in points if point.key < found.newest.key]
        async for point in self._catalog.main_line(reversed(older)):
            yield point

    async def others(self) -> tuple[str, ...]:
        """Databases that the store has, which reveal a misspelt name."""
        with suppress(SidecarError), anyio.move_on_after(OTHERS_SECONDS):
            return await self._catalog.names(OTHERS)
        return ()

    async def similar(self, database: Database) -> tuple[str, ...]:
        """The stores beside this one with a similar name that have restore points of this database: `store` may be mistyped."""
        if self._neighbours is None:
            return ()
        with suppress(SidecarError, OSError), anyio.move_on_after(OTHERS_SECONDS):
            return await self._neighbours.similar(folder_of(database.name))
        return ()


def require_descent(found: Situation) -> None:
    """Raise `ConfigurationError` if publishing the local database would put an unrelated file above the newest restore point.

    A state that was chosen with `sidecar restore` may be published above it; with on_conflict=local, any state may.
    """
    if found.decision is Decision.COMPARE:
        raise ConfigurationError(
            f"{found.database.path} may have lost streamed commits in a crash of the machine: not published",
            "start `sidecar run`, which compares it with the store first",
        )
    chosen = found.marker is not None and found.marker.by_hand
    if found.is_conflict and not chosen and found.decision is not Decision.CONFLICT_LOCAL:
        raise ConfigurationError(
            f"{found.database.path} does not descend from the newest restore point {found.newest_key}: not published above it",
            "`sidecar restore` brings the newest one back; on_conflict=local publishes this file anyway",
        )
