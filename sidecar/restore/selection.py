"""The state to restore, chosen by time, key or stream: finds its restore point and history, and stages it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sidecar.errors import DamagedRestorePoint, NotFound, NothingToRestore, UsageError
from sidecar.log import log
from sidecar.model import Database, Position, RestorePoint, Timestamp
from sidecar.progress import Progress, Show
from sidecar.repository import OTHERS, Catalog, Reader, Restored, format_others, point_of
from sidecar.repository.history import Path as History
from sidecar.repository.streams import Streams
from sidecar.restore.ahead import Ahead, stage_ahead
from sidecar.restore.pages import PageImages
from sidecar.restore.reached import End, Reached, format_instant, format_reached
from sidecar.restore.roll_forward import RolledForward, RollForward
from sidecar.status import HINT

MICROSECOND = timedelta(microseconds=1)
EPOCH = Timestamp("19700101T000000.000Z").instant


@dataclass(frozen=True, slots=True)
class Selection:
    """The restore point to start from, and what is applied to it.

    `alone`: nothing is applied. Without a `history`, the restore point's own one is, up to `at` if that is given.
    """

    point: RestorePoint
    at: datetime | None = None
    alone: bool = False
    history: History | None = None

    @property
    def until(self) -> int | None:
        """`at` in microseconds since the epoch."""
        return None if self.at is None else (self.at - EPOCH) // MICROSECOND


class Selector:
    """Finds the requested state, and stages it beside its target path."""

    def __init__(self, catalog: Catalog, reader: Reader, forward: RollForward, streams: Streams, show: Show) -> None:
        self._catalog = catalog
        self._reader = reader
        self._forward = forward
        self._streams = streams
        self._show = show

    async def select(
        self, database: str, at: datetime | None = None, key: str | None = None, stream: str | None = None
    ) -> Selection:
        """The requested state; by default the newest one. Raises `NothingToRestore` and `UsageError`."""
        if key:
            return Selection(await self._by_key(database, key), alone=True)
        if stream:
            point, history = await self._streams.enter(database, stream)
            return Selection(point, history=history)
        newest = await self._catalog.find(database, Timestamp.of(at)) if at else await self._newest(database)
        return Selection(newest, at)

    async def stage(self, selection: Selection, target: Database) -> tuple[RolledForward, Path]:
        """Download, apply and check. Raises `DamagedRestorePoint`, `DamagedDatabase`, and `NothingToRestore` for an instant in a gap."""
        known = await self._known(selection)  # before segments are listed, because a daemon may publish more meanwhile
        with self._show(f"restore {selection.point.key}") as progress:
            rolled, staged = await self._first_good(selection, target, progress)
        rolled = await self._with_unknown(selection, _with_expired(rolled, known))
        try:
            self._require_instant(selection, rolled)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _log(target.name, rolled)
        return rolled, staged

    async def overlay(
        self, selection: Selection, restored: Restored, pages: Callable[[], PageImages]
    ) -> RolledForward | None:
        """Apply what follows the selected restore point to its `pages`, which are made only if something does; else None.

        `restored` describes the restore point. Raises as `stage`.
        """
        known = await self._known(selection)
        position = restored.contents.index.position
        history = await self._forward.look(selection.point, position, selection.until)
        rolled = RolledForward(restored, history, Reached(history.start, stopped=history.stopped))
        if history.legs:
            database = selection.point.database
            rolled = replace(rolled, reached=await self._forward.apply_to(pages(), database, history, selection.until))
        rolled = await self._with_unknown(selection, _with_expired(rolled, known))
        self._require_instant(selection, rolled)
        _log(selection.point.database, rolled)
        return rolled if rolled.reached.commits else None

    async def _known(self, selection: Selection) -> list[Position]:
        """Commits that are recorded as made, whether or not their segments still exist."""
        if selection.alone or selection.history:
            return []
        database = selection.point.database
        streamed = await self._catalog.streamed(database)
        known = [streamed.position] if streamed else []
        if selection.at and (following := await self._catalog.first_after(database, Timestamp.of(selection.at))):
            position = await self._catalog.position(following)
            known += [position] if position else []
        return known

    async def _first_good(
        self, selection: Selection, target: Database, progress: Progress
    ) -> tuple[RolledForward, Path]:
        """Stage the selected restore point, or if it is damaged, an older one whose stream has everything that was in it."""
        try:
            return await self._stage(selection, selection.point, target, progress)
        except DamagedRestorePoint as error:
            damage = error
        async for older in self._catalog.main_line(await self._older(selection)):
            try:
                rolled, staged = await self._stage(selection, older, target, progress)
            except DamagedRestorePoint:
                continue
            position = await self._catalog.position(selection.point)
            if position and rolled.contains(position):
                log.warning("damaged restore point skipped: the stream has the same", error=damage.message)
                return rolled, staged
            staged.unlink(missing_ok=True)
            break
        raise DamagedRestorePoint(
            damage.message, damage.hint or "restore an older one by its key; `sidecar list` shows them"
        ) from damage

    async def _older(self, selection: Selection) -> list[RestorePoint]:
        """Older restore points whose history may lead to the same state, newest first."""
        if selection.alone or selection.history:
            return []
        points = self._catalog.points(selection.point.database)
        return [point async for point in points if point.key < selection.point.key][::-1]

    async def _stage(
        self, selection: Selection, point: RestorePoint, target: Database, progress: Progress
    ) -> tuple[RolledForward, Path]:
        async def look(point: RestorePoint) -> Ahead | None:
            if selection.alone or selection.history:
                return None
            return await self._forward.look_ahead(point, selection.until)

        found = await stage_ahead(self._reader, point, target, progress, look)
        restored, staged = found.restored, found.path
        try:
            if selection.alone:
                return RolledForward.without_tail(restored), staged
            if selection.history:
                return await self._forward.apply(restored, staged, selection.history), staged
            return await self._forward.follow(restored, staged, selection.until, found.ahead), staged
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    async def _with_unknown(self, selection: Selection, rolled: RolledForward) -> RolledForward:
        """Note the time before the instant that nothing covers: a stream ended, and a restore point followed later."""
        reached, point = rolled.reached, rolled.restored.point
        if selection.at is None or reached.stopped or reached.end is not End.NEWEST:
            return rolled
        following = await self._catalog.first_after(point.database, Timestamp.of(selection.at))
        if following is None or not isinstance(reached.position, Position):
            return rolled
        if await self._catalog.position(following) == reached.position:
            return rolled
        last = format_instant(reached.time) if reached.time else point.timestamp.instant.isoformat()
        unknown = (
            f"commits between {last} and {following.timestamp.instant.isoformat()} are not in the store: the stream ended "
            f"before them, and {following.key} is the next restore point"
        )
        return replace(rolled, reached=replace(reached, unknown=unknown))

    def _require_instant(self, selection: Selection, rolled: RolledForward) -> None:
        """Raise `NothingToRestore` if the state at the instant can no longer be restored: nothing is skipped."""
        reached = rolled.reached
        if selection.at is None or not reached.stopped:
            return
        nearest = (
            f"`sidecar restore --key {rolled.restored.point.key}`"
            if reached.time is None
            else f"`sidecar restore --at {format_instant(reached.time)}`"
        )
        raise NothingToRestore(
            f"the state of {rolled.restored.point.database} at {selection.at.isoformat()} is lost: {reached.stopped}; "
            f"the nearest earlier state is {format_reached(reached)}",
            f"{nearest} restores that one; `sidecar list` shows the next restore point",
        )

    async def _newest(self, database: str) -> RestorePoint:
        newest = await self._catalog.newest(database)
        if newest is None:
            others = format_others(await self._catalog.names(OTHERS))
            raise NothingToRestore(
                f"{self._catalog.store.url} has no restore point of {database}{others}",
                "check `store` and the database's name",
            )
        if newest.gone:
            left = [point.key async for point in self._catalog.points(database) if point.key < newest.key]
            hint = (
                f"`sidecar restore --key {left[-1]}` restores the newest remaining one"
                if left
                else "no older one is left"
            )
            raise DamagedRestorePoint(f"the newest restore point {newest.key} is gone from the store", hint)
        return newest

    async def _by_key(self, database: str, key: str) -> RestorePoint:
        url = self._catalog.store.url
        key = key.removeprefix(f"{url}/")  # as other tools write it
        try:
            point = point_of(await self._catalog.store.head(key))
        except NotFound:
            raise NothingToRestore(f"{key} does not exist in {url}", "see `sidecar list`") from None
        if point is None or point.database != database:
            raise UsageError(
                f"{key} is not a restore point of {database}", "see `sidecar list`, and name the database of the key"
            )
        return point


def _with_expired(rolled: RolledForward, known: Iterable[Position]) -> RolledForward:
    """Note commits that are missing at the end of a stream, where only these known commits show that."""
    reached = rolled.reached
    if reached.stopped or reached.end is not End.NEWEST or not isinstance(reached.position, Position):
        return rolled
    stream, last = reached.position.stream, reached.position.commit
    upto = max((each.commit for each in known if each.stream == stream), default=last)
    if upto <= last:
        return rolled
    stopped = f"commits {last + 1} to {upto} of stream {stream} are missing"
    return replace(rolled, reached=replace(reached, end=End.BROKEN, stopped=stopped))


def _log(database: str, rolled: RolledForward) -> None:
    restored, reached = rolled.restored, rolled.reached
    if restored.check.findings:
        findings = list(restored.check.findings)
        log.warning(
            "restored database has findings", database=database, key=restored.point.key, findings=findings, hint=HINT
        )
    if reached.unknown:
        log.warning("instant not covered", database=database, error=reached.unknown)
    if reached.stopped:
        hint = "`sidecar verify --all` shows which segments are damaged or missing"
        log.error("stream not applied to its end", database=database, error=reached.stopped, hint=hint)
