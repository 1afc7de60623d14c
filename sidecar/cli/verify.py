"""`sidecar verify`: prove restore points, one or a whole history, few at once."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir

import anyio

from sidecar.bootstrap import Services
from sidecar.cli.output import Table, say
from sidecar.cli.session import attended
from sidecar.concurrency import gathered
from sidecar.errors import DamagedRestorePoint, ExitCode, NoRoom, NotFound, NothingToRestore, UnsupportedRestorePoint
from sidecar.model import Database, RestorePoint
from sidecar.progress import combined, progress_bar
from sidecar.repository.catalog import Replica
from sidecar.repository.reader import Progress
from sidecar.settings.fields import Configuration
from sidecar.units import format_size

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class _Result:
    point: RestorePoint
    problem: str
    gone: bool = False
    newer: bool = False
    lost: bool = False

    @property
    def good(self) -> bool:
        return not self.problem and not self.gone

    def __str__(self) -> str:
        if self.lost:
            return "GONE: it was the newest, and is not in the store any more"
        if self.gone:
            return "gone: it expired or was deleted meanwhile"
        if self.newer:
            return f"NOT VERIFIED: {self.problem}"
        return f"DAMAGED: {self.problem}" if self.problem else "good"


async def verify(configuration: Configuration, *, every: bool) -> int:
    """Restore the newest restore point of each database, or all, to scratch. 65 when one is damaged or of a newer format,
    66 when there is none.

    One that expires while this runs is not damaged; the newest one cannot expire.
    """
    results: list[_Result] = []
    async with attended(configuration) as parts:
        replica = parts.replica()
        for database in parts.databases:
            points = await _chosen(replica, database, every=every)
            with progress_bar(f"verify {database.name}") as progress:
                found = await _Verification(parts, replica, database, points, progress).results()
                if not every and found and found[0].lost:
                    found += await _down_to_a_good_one(parts, replica, found[0].point, database, progress)
            results += found
        url = parts.store.url
    if not results:
        raise NothingToRestore(f"{url} has no restore point to verify", "check `store` and the databases' names")
    _show(results, as_table=every)
    _require_good(results)
    return ExitCode.OK


async def _down_to_a_good_one(
    parts: Services, replica: Replica, lost: RestorePoint, database: Database, progress: Progress
) -> list[_Result]:
    """What there is instead of the newest one, the next older first, up to the first that is good."""
    results: list[_Result] = []
    older = [point async for point in replica.points(database.name) if point.key < lost.key]
    while older and not (results and results[-1].good):
        results += await _Verification(parts, replica, database, [older.pop()], progress).results()
    return results


def _require_good(results: list[_Result]) -> None:
    """Raise what is to be said of those that are not."""
    lost = [result.point for result in results if result.lost]
    newer = [result for result in results if result.newer]
    damaged = sum(bool(result.problem) for result in results) - len(newer) - len(lost)
    if lost:
        others = f"; {damaged} of {len(results)} restore points are damaged" if damaged else ""
        raise DamagedRestorePoint(
            f"the newest restore point is gone from the store: {', '.join(point.key for point in lost)}{others}",
            f"a running sidecar publishes a new one, else `sidecar backup` does; {_instead(results, lost)}",
        )
    if damaged:
        raise DamagedRestorePoint(
            f"{damaged} of {len(results)} restore points are damaged",
            _instead(results, [result.point for result in results if result.problem]),
        )
    if newer:
        raise UnsupportedRestorePoint(
            f"{len(newer)} of {len(results)} restore points are of a newer format, and not verified",
            "verify them with the sidecar version that wrote them or a newer one",
        )


def _instead(results: list[_Result], wanting: list[RestorePoint]) -> str:
    """What can be restored in place of these, as far as others were looked at."""
    names = {point.database for point in wanting}
    others = [result for result in results if result.point.database in names and result.point not in wanting]
    good = {result.point.database: result.point.key for result in others if result.good}  # the newest comes last
    if good:
        return f"the newest good one: {', '.join(f'`sidecar restore --key {key}`' for key in good.values())}"
    return "no older one is good" if others else "`sidecar verify --all` looks for one that is good"


class _Verification:
    """Of one database. In all there are as many ranges in flight as `concurrency` says, however many are proven at once."""

    def __init__(
        self, parts: Services, replica: Replica, database: Database, points: list[RestorePoint], progress: Progress
    ) -> None:
        self._replica = replica
        self._points = points
        self._at_once = max(1, min(AT_ONCE, len(points), replica.concurrency))
        self._told = combined(progress, [point.size for point in points])
        self._alone = anyio.Lock()
        beside = database.path if database.path.parent.is_dir() else Path(gettempdir(), database.name)
        each = Replica(
            replica.store, part_size=replica.part_size, concurrency=max(1, replica.concurrency // self._at_once)
        )
        self._provers = [
            parts.prover(each, replace(database, path=beside), f"verify-{number}", share=self._at_once)
            for number in range(self._at_once)
        ]
        self._whole = parts.prover(each, replace(database, path=beside), "verify")

    async def results(self) -> list[_Result]:
        """In the order of the points."""
        return await gathered(enumerate(self._points), self._prove, at_once=self._at_once)

    async def _prove(self, numbered: tuple[int, RestorePoint]) -> _Result:
        number, point = numbered
        prover = self._provers.pop()
        try:
            try:
                await prover.prove(point, self._told(number))
            except NoRoom:  # for all of them at once; one alone may have it
                async with self._alone:
                    await self._whole.prove(point, self._told(number))
        except UnsupportedRestorePoint as error:
            return _Result(point, error.message, newer=True)
        except DamagedRestorePoint as error:
            if await self._is_there(point):
                return _Result(point, error.message)
            newest = await self._replica.newest(point.database)
            lost = newest is not None and newest.key == point.key
            return _Result(point, error.message if lost else "", gone=not lost, lost=lost)
        finally:
            self._provers.append(prover)
        return _Result(point, "")

    async def _is_there(self, point: RestorePoint) -> bool:
        try:
            await self._replica.store.head(point.key)
        except NotFound:
            return False
        return True


def _show(results: list[_Result], *, as_table: bool) -> None:
    if not as_table:
        for result in results:
            say(f"{result.point.key}: {result}")
        return
    table = Table("KEY", "TIME", "SIZE", "RESULT")
    for result in results:
        point = result.point
        table.add(point.key, f"{point.timestamp.instant:%Y-%m-%dT%H:%M:%SZ}", format_size(point.size), str(result))
    table.show(empty="")


async def _chosen(replica: Replica, database: Database, *, every: bool) -> list[RestorePoint]:
    points = [point async for point in replica.points(database.name)] if every else []
    newest = await replica.newest(database.name)
    if newest and newest.key not in {point.key for point in points}:  # deleted: a listing does not show it
        points.append(newest)
    return points
