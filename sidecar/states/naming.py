"""Finds the states of a database that a person names, and opens them to be compared.

A state is named by the key of a restore point, a time, `newest`, `newest~3`, `live`, or the path of a file.
"""

import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.bootstrap import Services, build_inspector, build_roll_forward
from sidecar.compare.cache import ChunkCache, chunk_cache
from sidecar.compare.comparison import Source, compared
from sidecar.compare.files import at_rest
from sidecar.compare.live import opened_live
from sidecar.compare.opening import Named, Opened
from sidecar.compare.options import Options
from sidecar.compare.overlay import OverlayPages, OverlayState, overlay_pages
from sidecar.compare.points import PointState
from sidecar.compare.reading import Result, opened_result
from sidecar.database import CheckReport, Driver, NotInPlace, Snapshotter, SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import DatabaseBusy, NothingToRestore, UsageError
from sidecar.host import require_unused
from sidecar.log import log
from sidecar.model import Database, RestorePoint, Timestamp
from sidecar.progress import Show
from sidecar.repository import Catalog, Restored
from sidecar.repository.increments import Increments
from sidecar.repository.streams import Streams
from sidecar.restore.reached import Reached, format_instant, format_reached
from sidecar.restore.selection import Selection, Selector
from sidecar.units import parse_duration

LIVE, NEWEST = "live", "newest"
_BACK = re.compile(r"(?:newest)?~(\d{1,9})")
_KEY = re.compile(r".+\.sqlite3\.zst")
_SUFFIXES = {".db", ".db3", ".sqlite", ".sqlite3"}
FORMS = "a key from `sidecar list`, a time like 2026-11-20T14:30 or 2h, newest, newest~3, live, or the path of a file"
Opening = Callable[..., AbstractAsyncContextManager[Source]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where states are opened: a private directory, and the chunks that both of them have."""

    directory: Path
    cache: ChunkCache
    driver: Driver
    show: Show


def is_path(text: str) -> bool:
    """Whether a person means a file, because there is one, or by its suffix."""
    if text in {LIVE, NEWEST} or _BACK.fullmatch(text):
        return False
    return Path(text).exists() or Path(text).suffix in _SUFFIXES


def parse_time(text: str, now: datetime) -> datetime | None:
    """An instant, written as a time (UTC unless it says otherwise) or as an age; None if it is neither."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return Timestamp(text).instant
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


@asynccontextmanager
async def difference(
    services: Services,
    database: Database,
    names: Sequence[str],
    options: Options,
    show: Show,
    *,
    everything: bool = False,
) -> AsyncIterator[Result]:
    """Compare two states of a database that a person names.

    Without names: the newest in the store and the live one. With one: that and the live one, or the newest where nothing is
    live. With `everything` the result has all rows, and long values whole. Raises `UsageError`, `NothingToRestore`,
    `DamagedRestorePoint`, `DamagedDatabase`, `NoRoom`, and what the store raises.
    """
    async with scratch_place(services.driver, show) as place:
        states = States(services, database, place)
        before, after = _both(names, has_live=states.has_live)
        opened = partial(states.opened, before), partial(states.opened, after)
        path = await compare_states(*opened, options, place, everything=everything)
        async with opened_result(place.driver, path) as result:
            yield result


@asynccontextmanager
async def difference_of_files(
    driver: Driver, before: Path, after: Path, options: Options, show: Show, *, everything: bool = False
) -> AsyncIterator[Result]:
    """Compare two files, without a store. Raises as `difference`."""
    async with scratch_place(driver, show) as place:
        opened = partial(opened_path, before, place), partial(opened_path, after, place)
        path = await compare_states(*opened, options, place, everything=everything)
        async with opened_result(driver, path) as result:
            yield result


async def compare_states(before: Opening, after: Opening, options: Options, place: Place, *, everything: bool) -> Path:
    """The result of comparing two states; they are closed. A database that cannot be read in place is copied."""
    for in_place in (True, False):
        try:
            async with before(in_place=in_place) as one, after(in_place=in_place) as other:
                with place.show("compare") as progress:
                    return await compared(
                        place.driver, one, other, options, place.directory, progress, everything=everything
                    )
        except NotInPlace as reason:
            log.debug("live database copied", reason=str(reason))
    raise AssertionError("a copy is not read in place")


@asynccontextmanager
async def opened_state(services: Services, database: Database, name: str | None, show: Show) -> AsyncIterator[Opened]:
    """A state to be read: by default the live one, or the newest where nothing is live. Raises as `difference`."""
    async with scratch_place(services.driver, show) as place:
        states = States(services, database, place)
        async with states.opened(name or (LIVE if states.has_live else NEWEST), hashed=False) as source:
            with source as found:
                yield await to_thread.run_sync(Opened.of, services.driver, found)


@asynccontextmanager
async def opened_file_to_export(driver: Driver, path: Path, show: Show) -> AsyncIterator[Opened]:
    """A file to be read, without a store. Raises as `difference`."""
    async with scratch_place(driver, show) as place, opened_path(path, place, hashed=False) as source:
        with source as found:
            yield await to_thread.run_sync(Opened.of, driver, found)


@asynccontextmanager
async def scratch_place(driver: Driver, show: Show) -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="sidecar-diff-") as directory:
        path = Path(directory)
        with chunk_cache(path) as cache:
            yield Place(path, cache, driver, show)


def _both(names: Sequence[str], *, has_live: bool) -> tuple[str, str]:
    if len(names) == 2:
        return names[0], names[1]
    if not names and not has_live:
        raise UsageError("there is no live database on this machine to compare with", "name two states")
    return names[0] if names else NEWEST, LIVE if has_live else NEWEST


@asynccontextmanager
async def opened_path(
    path: Path,
    place: Place,
    *,
    in_place: bool = False,
    hashed: bool = True,
    name: str | None = None,
    snapshotter: Snapshotter | None = None,
) -> AsyncIterator[Source]:
    """The database in a file. One that nobody uses must not change meanwhile.

    One that is in use, or has a log, is copied first, or read `in_place`: then opening and reading it may raise `NotInPlace`.
    Only what is `hashed` can be compared. Raises `NothingToRestore`, `UsageError`, `DamagedDatabase`, `DatabaseBusy`, `NoRoom`.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory", "name a file")
    inspector = snapshotter or SqliteSnapshotter(Staging(None), driver=place.driver, switch_to_wal=False)
    if inspector.signature(path) is None and not path.exists():
        raise NothingToRestore(f"there is no database at {path}", f"name {FORMS}")
    name, path = name or str(path), Path(os.path.realpath(path))  # the log is beside the file, not beside a link to it
    is_at_rest = _is_at_rest(path)
    if in_place and not is_at_rest:
        yield opened_live(path, name, place.driver, from_thread.check_cancelled)
        return
    async with AsyncExitStack() as stack:
        source = path if is_at_rest else (await stack.enter_async_context(inspector.snapshot(path))).path
        yield at_rest(source, name, hashed=hashed)


def _is_at_rest(path: Path) -> bool:
    """Whether the file alone is the database: no process has it open, and there is no log beside it."""
    logs = (path.with_name(f"{path.name}-{each}") for each in ("wal", "journal"))
    if any(each.exists() and each.stat().st_size for each in logs):
        return False
    try:
        require_unused(path, own=True)
    except DatabaseBusy:
        return False
    return True


class States:
    """Opens states of one database."""

    def __init__(self, services: Services, database: Database, place: Place) -> None:
        self._services = services
        self._database = database
        self._place = place
        self._catalog: Catalog = services.catalog()
        self._reader = services.reader(self._catalog)
        self._forward = build_roll_forward(services, self._catalog)
        streams = Streams(self._catalog, Increments(self._catalog.store))
        self._selector = Selector(self._catalog, self._reader, self._forward, streams, place.show)

    @property
    def has_live(self) -> bool:
        """Whether there is a live database on this machine."""
        return self._services.snapshotter.signature(self._database.path) is not None

    @asynccontextmanager
    async def opened(self, text: str, *, in_place: bool = False, hashed: bool = True) -> AsyncIterator[Source]:
        """The state that a person names; a live one is copied, or read `in_place`, if that is possible.

        Only what is `hashed` can be compared. Raises `UsageError`, `NothingToRestore`, and what reading it raises.
        """
        opened = partial(opened_path, place=self._place, in_place=in_place, hashed=hashed)
        async with AsyncExitStack() as stack:
            if text == LIVE:
                inspector = build_inspector(self._services)
                live = opened(self._database.path, name=LIVE, snapshotter=inspector)
                yield await stack.enter_async_context(live)
            elif is_path(text):
                yield await stack.enter_async_context(opened(Path(text)))
            else:
                yield nullcontext(await self._open(text, stack))

    async def _open(self, text: str, stack: AsyncExitStack) -> Named:
        if back := _BACK.fullmatch(text):
            return await self._point(await self._back(int(back[1])))
        if text == NEWEST:
            return await self._followed(await self._selector.select(self._database.name), stack)
        if _KEY.fullmatch(text):
            return await self._point((await self._selector.select(self._database.name, key=text)).point)
        instant = parse_time(text, self._services.clock.now())
        if instant is None:
            raise UsageError(f"{text!r} is neither a state of {self._database.name} nor a file", f"write {FORMS}")
        return await self._followed(await self._selector.select(self._database.name, at=instant), stack)

    async def _back(self, steps: int) -> RestorePoint:
        """The restore point that is so many before the newest one."""
        points = [point async for point in self._catalog.points(self._database.name)]
        left = steps
        async for point in self._catalog.main_line(reversed(points)):
            if not left:
                return point
            left -= 1
        raise NothingToRestore(
            f"{self._database.name} has {steps - left} restore points, so there is no newest~{steps}",
            "see `sidecar list`",
        )

    async def _point(self, point: RestorePoint) -> Named:
        return _named(point, PointState(await self._reader.chunks(point), self._place.cache))

    async def _followed(self, selection: Selection, stack: AsyncExitStack) -> Named:
        """A restore point with the commits that were streamed after it."""
        chunks = await self._reader.chunks(selection.point)
        index = chunks.contents.index
        base = PointState(chunks, self._place.cache)
        check = index.check or CheckReport.of("none", ())
        restored = Restored(selection.point, chunks.info, chunks.contents, 0, check)
        made: list[OverlayPages] = []

        def pages() -> OverlayPages:
            made.append(stack.enter_context(overlay_pages(base, index.page_size, self._place.directory)))
            return made[0]

        rolled = await self._selector.overlay(selection, restored, pages)
        if rolled is None:
            return _named(selection.point, base)
        state = OverlayState(base, made[0])
        root = await to_thread.run_sync(state.learn_digests)
        return Named(_time_of(rolled.reached), state, root)


def _named(point: RestorePoint, state: PointState) -> Named:
    return Named(f"{point.timestamp.instant:%Y-%m-%dT%H:%M:%SZ}", state, state.root)


def _time_of(reached: Reached) -> str:
    return format_instant(reached.time) if reached.time is not None else format_reached(reached)
