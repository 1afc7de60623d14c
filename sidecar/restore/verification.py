"""Verifies restore points by restoring them to scratch files: one or a whole history, a few at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import gettempdir

import anyio

from sidecar.concurrency import gathered
from sidecar.errors import (
    DamagedDatabase,
    DamagedRestorePoint,
    DamagedSegment,
    NoRoom,
    NotFound,
    NothingToRestore,
    UnsupportedRestorePoint,
    UnsupportedSegment,
)
from sidecar.model import Database, RestorePoint
from sidecar.progress import Progress, Show, combined
from sidecar.repository import OTHERS, Catalog, format_others
from sidecar.repository.increments import Increments
from sidecar.restore.proof import Prover
from sidecar.restore.stream_verification import VerifiedStream, verify_streams

AT_ONCE = 4

# Creates a prover from a database, a name for its scratch file, how many share the room, and its concurrency.
Provers = Callable[[Database, str, int, int], Prover]


class Outcome(StrEnum):
    """How the verification of a restore point ended."""

    GOOD = "good"
    DAMAGED = "damaged"
    UNSUPPORTED = "unsupported"  # has a newer format, and was not verified
    GONE = "gone"  # expired or deleted while this ran
    LOST = "lost"  # the newest one, which cannot expire, is not in the store


@dataclass(frozen=True, slots=True)
class Verified:
    """A restore point and the outcome of its verification; `problem` says why it is not good.

    A good one may have `findings`: what SQLite's check reports although the database is exactly what was published.
    """

    point: RestorePoint
    outcome: Outcome
    problem: str = ""
    findings: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it was restored, and everything matched."""
        return self.outcome is Outcome.GOOD


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was verified: by database, oldest first; after a newest one that is lost, the older ones down to a good one.

    `streams` has all streams if everything was verified; otherwise the newest restore points were verified with their streams.
    """

    results: tuple[Verified, ...]
    streams: tuple[VerifiedStream, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is damaged, lost or has a newer format. What expired meanwhile is no failure."""
        points = all(result.outcome in {Outcome.GOOD, Outcome.GONE} for result in self.results)
        return points and all(stream.good for stream in self.streams)

    def of(self, outcome: Outcome) -> tuple[Verified, ...]:
        """The results with this outcome."""
        return tuple(result for result in self.results if result.outcome is outcome)

    def require_good(self) -> None:
        """Raise `DamagedRestorePoint`, `UnsupportedRestorePoint` or `DamagedSegment` unless everything is good."""
        lost, damaged, newer = (self.of(each) for each in (Outcome.LOST, Outcome.DAMAGED, Outcome.UNSUPPORTED))
        count = f"{len(damaged)} of {len(self.results)} restore points are damaged"
        if lost:
            others = f"; {count}" if damaged else ""
            keys = ", ".join(result.point.key for result in lost)
            raise DamagedRestorePoint(
                f"the newest restore point is gone from the store: {keys}{others}",
                f"a running sidecar publishes a new one, else `sidecar backup` does; {self._instead_of(lost)}",
            )
        if damaged:
            raise DamagedRestorePoint(count, self._instead_of((*damaged, *newer)))
        if newer:
            raise UnsupportedRestorePoint(
                f"{len(newer)} of {len(self.results)} restore points have a newer format and were not verified",
                "verify them with the sidecar version that wrote them or a newer one",
            )
        if broken := [stream for stream in self.streams if not stream.good]:
            raise DamagedSegment(
                f"{len(broken)} of {len(self.streams)} streams are damaged or have gaps",
                "every restore point is good; only times between the damage and the next restore point cannot be restored",
            )

    def _instead_of(self, wanting: tuple[Verified, ...]) -> str:
        """Which restore points can be restored instead of these, as far as others were verified."""
        names = {result.point.database for result in wanting}
        others = [result for result in self.results if result.point.database in names and result not in wanting]
        good = {result.point.database: result.point.key for result in others if result.good}  # the newest comes last
        if good:
            return f"the newest good one: {', '.join(f'`sidecar restore --key {key}`' for key in good.values())}"
        return "no older one is good" if others else "`sidecar verify --all` looks for one that is good"


class Verification:
    """Verifies restore points of databases."""

    def __init__(
        self, catalog: Catalog, provers: Provers, show: Show, *, concurrency: int, increments: Increments | None = None
    ) -> None:
        """`provers` creates a prover. With `increments`, the streams are also verified."""
        self._increments = increments
        self._catalog = catalog
        self._provers = provers
        self._show = show
        self._concurrency = concurrency

    async def verify(self, databases: tuple[Database, ...], *, every: bool) -> VerificationReport:
        """Verify the newest restore point of each database, or every one. Raises `NothingToRestore` if there is none.

        If the newest one is lost, the next older ones are verified as well, until one is good.
        """
        results: list[Verified] = []
        streams: list[VerifiedStream] = []
        for database in databases:
            points = await self._choose(database, every=every)
            with self._show(f"verify {database.name}") as progress:
                found = await self._verify(database, points, progress)
                if not every and found and found[0].outcome is Outcome.LOST:
                    found += await self._down_to_a_good_one(found[0].point, database, progress)
            results += found
            if every and self._increments:
                streams += await verify_streams(self._increments, database.name, _beside(database))
        if not results:
            url = self._catalog.store.url
            others = format_others(await self._catalog.names(OTHERS))
            raise NothingToRestore(
                f"{url} has no restore point to verify{others}", "check `store` and the databases' names"
            )
        return VerificationReport(tuple(results), tuple(streams))

    async def _choose(self, database: Database, *, every: bool) -> list[RestorePoint]:
        points = [point async for point in self._catalog.points(database.name)] if every else []
        newest = await self._catalog.newest(database.name)
        if newest and newest.key not in {point.key for point in points}:  # deleted: a listing does not show it
            points.append(newest)
        return points

    async def _down_to_a_good_one(self, lost: RestorePoint, database: Database, progress: Progress) -> list[Verified]:
        results: list[Verified] = []
        older = [point async for point in self._catalog.points(database.name) if point.key < lost.key]
        while older and not (results and results[-1].good):
            results += await self._verify(database, [older.pop()], progress)
        return results

    async def _verify(self, database: Database, points: list[RestorePoint], progress: Progress) -> list[Verified]:
        batch = _Batch(self._catalog, self._provers, database, points, progress, concurrency=self._concurrency)
        return await batch.results()


class _Batch:
    """Restore points of one database. Together they have `concurrency` ranges in flight, however many are proved at a time."""

    def __init__(
        self,
        catalog: Catalog,
        provers: Provers,
        database: Database,
        points: list[RestorePoint],
        progress: Progress,
        *,
        concurrency: int,
    ) -> None:
        self._catalog = catalog
        self._points = points
        self._at_once = max(1, min(AT_ONCE, len(points), concurrency))
        self._progress = combined(progress, [point.size for point in points])
        self._alone = anyio.Lock()
        scratch = replace(database, path=_beside(database) / database.path.name)
        each = max(1, concurrency // self._at_once)
        self._free = [provers(scratch, f"verify-{number}", self._at_once, each) for number in range(self._at_once)]
        self._whole = provers(scratch, "verify", 1, each)

    async def results(self) -> list[Verified]:
        """The results, in the order of the restore points."""
        return await gathered(enumerate(self._points), self._prove, at_once=self._at_once)

    async def _prove(self, numbered: tuple[int, RestorePoint]) -> Verified:
        number, point = numbered
        prover = self._free.pop()
        try:
            try:
                check = await prover.prove(point, self._progress(number))
            except NoRoom:  # for all of them at once, but perhaps not for one
                async with self._alone:
                    check = await self._whole.prove(point, self._progress(number))
        except (UnsupportedRestorePoint, UnsupportedSegment) as error:
            return Verified(point, Outcome.UNSUPPORTED, error.message)
        except (DamagedSegment, DamagedDatabase) as error:  # of the tail: the restore point itself is good
            return Verified(point, Outcome.DAMAGED, error.message)
        except DamagedRestorePoint as error:
            return await self._failed(point, error.message)
        finally:
            self._free.append(prover)
        return Verified(point, Outcome.GOOD, findings=check.findings)

    async def _failed(self, point: RestorePoint, problem: str) -> Verified:
        """Tell damage from expiry: a restore point may expire meanwhile, but the newest one cannot."""
        if await self._is_there(point):
            return Verified(point, Outcome.DAMAGED, problem)
        newest = await self._catalog.newest(point.database)
        if newest is not None and newest.key == point.key:
            return Verified(point, Outcome.LOST, problem)
        return Verified(point, Outcome.GONE)

    async def _is_there(self, point: RestorePoint) -> bool:
        try:
            await self._catalog.store.head(point.key)
        except NotFound:
            return False
        return True


def _beside(database: Database) -> Path:
    """Where scratch files go: beside the database, if there is such a directory."""
    return database.path.parent if database.path.parent.is_dir() else Path(gettempdir())
