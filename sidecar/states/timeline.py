"""The restore points of a database in their order: what changed from one to the next, and the versions of one row."""

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.bootstrap import Services
from sidecar.compare.comparison import Source
from sidecar.compare.counts import Counts, CountsCache, Stretch, counts_of
from sidecar.compare.fileformat import Malformed
from sidecar.compare.life import Seen, Step, see, version_between
from sidecar.compare.lookup import key_of_text
from sidecar.compare.opening import Named, Opened
from sidecar.compare.options import KEPT_ROWS, Options
from sidecar.compare.points import PointState
from sidecar.compare.reading import opened_result
from sidecar.compare.tables import Table
from sidecar.compare.values import Row
from sidecar.database import NotInPlace
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, NotFound, NothingToRestore, UsageError
from sidecar.model import Database, RestorePoint
from sidecar.progress import Show, no_progress
from sidecar.repository import describe
from sidecar.repository.chunks import Chunks
from sidecar.repository.inventory import with_lines
from sidecar.repository.keys import point_of
from sidecar.repository.reader import TAIL
from sidecar.states.naming import LIVE, Place, States, compare_states, is_path, scratch_place
from sidecar.storage import RetryPolicy

_MOST_KEPT = 24 << 20  # bytes that came for restore points whose indexes are kept in memory


class Timeline:
    """The restore points of one database, and what differs between them. Everything that was read is counted."""

    def __init__(
        self, services: Services, database: Database, kept: CountsCache, policy: RetryPolicy | None = None
    ) -> None:
        """`policy` is how long requests to the store are retried, by default as long as a backup cycle's."""
        self._services = services
        self.database = database
        self._catalog = services.catalog(policy)
        self._reader = services.reader(self._catalog)
        self._reader.part_size = TAIL  # what a small object is read whole for is not needed of most of them
        self._kept = kept
        self._points: dict[str, RestorePoint] = {}
        self._open: dict[str, Chunks] = {}
        self._closed = 0, 0

    @property
    def has_live(self) -> bool:
        """Whether there is a live database on this machine."""
        return self._services.snapshotter.signature(self.database.path) is not None

    @property
    def cost(self) -> tuple[int, int]:
        """How many requests for restore points were made, and how many bytes came."""
        opened = self._open.values()
        return (
            self._closed[0] + sum(each.requests for each in opened),
            self._closed[1] + sum(each.received for each in opened),
        )

    async def points(self) -> list[RestorePoint]:
        """All restore points, newest first, those of fenced machines among them. One request for each thousand."""
        found = [point async for point in self._catalog.points(self.database.name)]
        self._points = {each.key: each for each in found}
        return found[::-1]

    async def stretch(self, points: Sequence[RestorePoint], start: int, count: int) -> Stretch:
        """So many of these, of the main line, from `start` on. Two requests for each."""
        wanted = points[start : start + count + 1]
        described = await describe(self._catalog, wanted[::-1])
        known = await with_lines(self._catalog, self.database.name, described)
        line = [each for each in reversed(known) if each.main_line is not False]
        last = wanted[count].key if len(wanted) > count else None
        inside = tuple(each for each in line if each.point.key != last)
        return Stretch(inside, next((each for each in line if each.point.key == last), None), len(points))

    async def counts(self, older: str, newer: str, show: Show = no_progress) -> Counts:
        """How many rows differ between two states. Raises `DamagedRestorePoint`, `DamagedDatabase`, and what the store raises."""
        roots = None
        if newer != LIVE:
            one, other = await self._chunks_of(older), await self._chunks_of(newer)
            roots = one.contents.index.root, other.contents.index.root
            known = Counts() if roots[0] == roots[1] else self._kept.load(*roots)
            if known is not None:
                return known
        with tempfile.TemporaryDirectory(prefix="sidecar-log-") as directory:
            path = await self.compare(older, newer, Path(directory), show, kept=0)
            async with opened_result(self._services.driver, path) as result:
                counts = await counts_of(result)
        if roots:
            self._kept.keep(*roots, counts)
        return counts

    async def compare(
        self,
        before: str,
        after: str,
        directory: Path,
        show: Show = no_progress,
        *,
        kept: int = KEPT_ROWS,
        everything: bool = False,
    ) -> Path:
        """The result of comparing two states, as a file in `directory`; each is a key, a time, `newest` or `live`.

        It has at most `kept` rows of a table, or `everything`.
        """
        async with scratch_place(self._services.driver, show) as scratch:
            place = replace(scratch, directory=directory)
            return await compare_states(
                partial(self._opened, before, place),
                partial(self._opened, after, place),
                Options(kept=kept),
                place,
                everything=everything,
            )

    async def versions(self, table: str, key: str, points: Sequence[RestorePoint]) -> AsyncGenerator[Step, None]:
        """Look for a row in the live database and these restore points, newest first.

        A state that is damaged is left out, and named. Where a chunk on the way to the row is the same as in the state after
        it, nothing is read. Raises `UsageError` for a table that none of them has, or a key that is none of it.
        """
        names = [LIVE] * self.has_live + [each.key for each in points]
        finder, newer, found = _Finder(table, key), None, False
        async with scratch_place(self._services.driver, no_progress) as place:
            for done, name in enumerate(names, 1):
                try:
                    seen = await self._look(name, finder, place)
                except (DamagedRestorePoint, DamagedDatabase) as error:
                    yield Step(done, len(names), problem=error.message)
                    continue
                except OtherKey as error:
                    yield Step(done, len(names), problem=f"{error}, so the row cannot be followed further back")
                    break
                found = found or seen.table is not None
                yield Step(done, len(names), version_between(seen, newer) if newer else None)
                newer = seen
        if not found:
            raise UsageError(f"no state has a table {table}", "`sidecar diff` names the tables that differ")
        yield Step(len(names), len(names), oldest=newer)

    async def require_table(self, table: str, state: str) -> None:
        """Raise `UsageError` if a state does not have the table."""
        async with scratch_place(self._services.driver, no_progress) as place, self._opened(state, place) as source:
            name, tables = await to_thread.run_sync(self._tables, source)
        if table not in tables:
            raise UsageError(f"{name} has no table {table}", "`sidecar log` names the tables that changed")

    def _tables(self, source: Source) -> tuple[str, frozenset[str]]:
        with source as named:
            schema = Opened.of(self._services.driver, named).schema
            return named.name, frozenset((*schema.tables, *schema.problems))

    async def _look(self, name: str, finder: "_Finder", place: Place) -> Seen:
        for in_place in (True, False):
            try:
                async with self._opened(name, place, in_place=in_place) as source:
                    return await to_thread.run_sync(self._see, source, finder)
            except NotInPlace:
                pass
        raise AssertionError("a copy is not read in place")

    def _see(self, source: Source, finder: "_Finder") -> Seen:
        with source as named:
            try:
                seen = see(Opened.of(self._services.driver, named), finder.table, finder.key_of)
            except Malformed as error:
                raise DamagedDatabase(f"{named.name} is damaged: {error}") from error
            named.check()
            return seen

    @asynccontextmanager
    async def _opened(self, name: str, place: Place, *, in_place: bool = False) -> AsyncIterator[Source]:
        """A state. The index of a restore point is read once."""
        if name.endswith(".sqlite3.zst"):
            chunks = await self._chunks_of(name)
            state = PointState(chunks, place.cache)
            instant = chunks.point.timestamp.instant
            yield nullcontext(Named(f"{instant:%Y-%m-%dT%H:%M:%SZ}", state, state.root))
            return
        if is_path(name):
            raise UsageError(
                f"{name!r} is not a state of {self.database.name}", "write a time, or choose a restore point"
            )
        async with States(self._services, self.database, place).opened(name, in_place=in_place) as source:
            yield source

    async def _chunks_of(self, key: str) -> Chunks:
        if key not in self._open:
            chunks = await self._reader.chunks(await self._point(key))
            while self._open and sum(each.received for each in self._open.values()) > _MOST_KEPT:
                oldest = self._open.pop(next(iter(self._open)))
                self._closed = self._closed[0] + oldest.requests, self._closed[1] + oldest.received
            self._open[key] = chunks
        return self._open[key]

    async def _point(self, key: str) -> RestorePoint:
        if key in self._points:
            return self._points[key]
        with suppress(NotFound):
            point = point_of(await self._catalog.store.head(key))
            if point is not None and point.database == self.database.name:
                return point
        raise NothingToRestore(
            f"{self.database.name} has no restore point {key} in {self._services.store.url}", "see `sidecar list`"
        )


@dataclass(slots=True)
class _Finder:
    """Which row is looked for: its key is read by the first table that is found, and must be one of all others."""

    table: str
    key: str
    columns: tuple[str, ...] | None = None

    def key_of(self, table: Table) -> Row:
        """The key as values of this table's columns. Raises `UsageError`, and `OtherKey` for a later table."""
        if self.columns is not None and table.key_names != self.columns:
            raise OtherKey(f"{table.name} had another key: {', '.join(table.key_names) or 'none'}")
        key = key_of_text(self.key, table)
        self.columns = table.key_names
        return key


class OtherKey(Exception):
    """A table had another primary key in an earlier state, so its rows cannot be followed further."""
