"""Brings tables of an earlier state back into the live database, while programs go on writing to it.

Everything is tried on a copy first. Then a restore point is published, what will be overwritten is saved beside the database,
and one transaction does it; see `compare.transaction`.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.bootstrap import Services, build_inspector
from sidecar.compare.comparison import Source, compared
from sidecar.compare.copying import write_copy
from sidecar.compare.files import at_rest
from sidecar.compare.fitness import SQL_INSTEAD, Preview, preview, require_fit, require_own_indexes
from sidecar.compare.opening import Opened
from sidecar.compare.options import Options
from sidecar.compare.record import Record, keep_only, opened_record
from sidecar.compare.saved import last_saved, save
from sidecar.compare.transaction import NAMED, Commit, Manner, carry_out
from sidecar.database import require_posix_locks
from sidecar.database.driver import Connection
from sidecar.database.errors import is_app_only
from sidecar.errors import DatabaseBusy, DatabaseMissing, RowsChanged, SidecarError, UsageError
from sidecar.log import log
from sidecar.model import Database, Timestamp
from sidecar.progress import Show
from sidecar.states.naming import Place, States, scratch_place

LONGEST = 2.0  # seconds that writers wait, unless more is allowed
_AGAIN = "try again, and name the state by its time or key, because a restore point was published meanwhile"
ROWS = {"missing": ("added",), "changed": ("added", "changed"), "exact": ("added", "changed", "removed")}
Confirm = Callable[[Preview], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Wish:
    """How rows are to be brought back.

    `rows` is one of `ROWS`: rows that are `missing` come back, and nothing is overwritten; rows that were `changed` are changed
    back, too; `exact` removes newer rows as well.
    `long`: writers may have to wait for more than two seconds.
    """

    rows: str = "missing"
    triggers: bool = False
    orphans: bool = False
    long: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """What was done. `saved` is where it can be undone from. `held` is for how many seconds writers had to wait.

    `restore_point` is the key of the state before. All are empty if there was nothing to do.
    """

    preview: Preview
    saved: Path | None = None
    restore_point: str | None = None
    held: float = 0.0


async def _no_question(_preview: Preview) -> None:
    """The caller has decided."""


@dataclass(frozen=True, slots=True)
class LiveDatabase:
    """A live database that rows are brought back into. `publish` publishes a restore point, and returns its key."""

    services: Services
    database: Database
    show: Show
    publish: Callable[[], Awaitable[str | None]]
    wish: Wish
    confirm: Confirm = _no_question

    @property
    def _manner(self) -> Manner:
        return Manner(self.wish.triggers, self.wish.orphans)

    async def bring_back(self, tables: Sequence[str], state: str) -> BroughtBack:
        """Bring tables of a state back.

        Raises `UsageError` for what cannot be done, `RowsChanged` and `DatabaseBusy` if nothing was done and may be tried again.
        """
        inode = self._inode()
        async with scratch_place(self.services.driver, self.show) as place:
            async with self._copied() as copy:
                path = await self._record(place, copy, tables, state)
                with self.show("try on a copy"):
                    seen = await to_thread.run_sync(self._try, path, copy, tables)
            if seen.is_nothing:
                return BroughtBack(seen)
            _require_short(
                seen, self.wish.long, "allow it (`sidecar restore --long`), or bring back one table after the other"
            )
            await self.confirm(seen)
            return await self._carry_out(path, seen, inode)

    async def undo(self) -> BroughtBack:
        """Undo what was brought back last, within the hour. Raises as `bring_back`, naming rows that were changed since."""
        saved = last_saved(self.database.path, datetime.now(UTC))
        inode, commit = self._inode(), Commit()
        async with self._copied() as copy:
            seen = await to_thread.run_sync(partial(self._try, saved.path, copy, inverse=True))
        _require_short(seen, self.wish.long, "allow it (`sidecar restore --undo --long`)")
        await self.confirm(seen)
        await to_thread.run_sync(self._do, saved.path, commit, inode, True)
        kept = await to_thread.run_sync(saved.mark_undone)
        log.info("rows taken back", database=self.database.name, rows=seen.rows, kept=str(kept))
        return BroughtBack(seen, kept, None, commit.held)

    def _inode(self) -> int:
        path = self.database.path
        if not path.exists():
            raise DatabaseMissing(f"there is no database at {path}", "`sidecar restore` restores the whole database")
        return os.stat(path).st_ino

    @asynccontextmanager
    async def _copied(self) -> AsyncIterator[Path]:
        """A private copy of the database. It is gone before anything is published: that needs the room, and the same name."""
        async with build_inspector(self.services).snapshot(self.database.path) as copy:
            yield copy.path

    async def _record(self, place: Place, copy: Path, tables: Sequence[str], state: str) -> Path:
        """What is to be done, as a record in `place`."""
        driver = self.services.driver
        async with States(self.services, self.database, place).opened(state) as after:
            if self.wish.name:
                return await to_thread.run_sync(partial(self._as_new, place, copy, tables, after, self.wish.name))
            with self.show("compare") as progress:
                path = await compared(
                    driver,
                    at_rest(copy, "live"),
                    after,
                    Options(tuple(tables)),
                    place.directory,
                    progress,
                    everything=True,
                )
        kinds = ROWS[self.wish.rows]
        facts: dict[str, object] = {"database": self.database.name, "triggers": self.wish.triggers}
        await to_thread.run_sync(keep_only, driver, path, kinds, facts, from_thread.check_cancelled)
        return path

    def _as_new(self, place: Place, copy: Path, tables: Sequence[str], after: Source, name: str) -> Path:
        if len(tables) != 1:
            raise UsageError("one table at a time is brought back under another name", "name one table")
        path, driver = place.directory / "record.sqlite3", self.services.driver
        with after as found, at_rest(copy, "live") as live:
            opened = Opened.of(driver, found), Opened.of(driver, live)
            write_copy(driver, *opened, tables[0], name, path, from_thread.check_cancelled)
            found.check()
        return path

    def _try(self, path: Path, copy: Path, tables: Sequence[str] = (), *, inverse: bool = False) -> Preview:
        """Do it to the copy. Raises `UsageError` for what cannot be done, and `RowsChanged` for what cannot be undone."""
        driver, tick = self.services.driver, from_thread.check_cancelled
        commit = Commit()
        with (
            opened_record(driver, path, inverse=inverse) as record,
            driver.translated(copy),
            closing(driver.connect(copy, "rw")) as connection,
        ):
            if not inverse:
                require_fit(record, tables, exact=self.wish.rows == "exact")
            seen = preview(record, triggers=self._manner.triggers)
            if seen.is_nothing:
                return seen
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = DELETE", "synchronous = OFF"):
                connection.execute(f"PRAGMA {pragma}")
            try:
                require_own_indexes(connection, record, tick)
                with self._keeping_parents(connection):
                    carry_out(connection, record, self._manner, commit, _nothing, tick)
            except RowsChanged as error:
                raise _impossible(error, commit, record, seen.rows) from error
            except driver.error as error:
                if not is_app_only(error):
                    raise
                raise UsageError(f"the tables need something of the app's own: {error}", SQL_INSTEAD) from error
        return replace(seen, seconds=commit.held)

    @contextmanager
    def _keeping_parents(self, connection: Connection) -> Iterator[None]:
        """Have SQLite itself look whether more rows lack their parents than before."""
        before = self._orphans(connection)
        yield
        new = self._orphans(connection) - before
        if new and not self._manner.orphans:
            child, rowid, parent, _ = next(iter(new))
            raise UsageError(
                f"{child} {rowid or ''} would refer to a row of {parent} that is not there", "bring it back, too"
            )

    def _orphans(self, connection: Connection) -> Counter[tuple[object, ...]]:
        try:
            return Counter(connection.execute("PRAGMA foreign_key_check").fetchall())
        except self.services.driver.error:  # foreign keys that do not fit their parents are not enforced by anybody
            return Counter()

    async def _carry_out(self, path: Path, seen: Preview, inode: int) -> BroughtBack:
        point = await self.publish()
        at, commit = Timestamp.of(datetime.now(UTC)), Commit()
        durable = self.services.durable(self.database.path)
        saved = await to_thread.run_sync(partial(save, path, self.database.path, at, durable=durable))
        try:
            await to_thread.run_sync(self._do, path, commit, inode)
        except BaseException as error:
            if not commit.done:
                saved.discard()
            if isinstance(error, (RowsChanged, DatabaseBusy)):
                raise type(error)(f"nothing was done: {error.message}", f"{_AGAIN}; {error.hint}") from error
            raise
        log.info("rows brought back", database=self.database.name, rows=seen.rows, saved=str(saved.path))
        return BroughtBack(seen, saved.path, point, commit.held)

    def _do(self, path: Path, commit: Commit, inode: int, inverse: bool = False) -> None:
        driver, live = self.services.driver, self.database.path

        def check() -> None:
            if not live.exists() or os.stat(live).st_ino != inode:
                raise DatabaseBusy(f"{live} was replaced meanwhile", "run the command again")

        require_posix_locks(live)
        with (
            opened_record(driver, path, inverse=inverse) as record,
            driver.translated(live),
            closing(driver.connect(live, "rw")) as connection,
        ):
            carry_out(connection, record, self._manner, commit, check, from_thread.check_cancelled)


def _nothing() -> None:
    """Nobody else has the copy."""


def _require_short(seen: Preview, long: bool, hint: str) -> None:
    if seen.seconds > LONGEST and not long:
        raise UsageError(f"programs that write would have to wait for about {seen.seconds:.0f} seconds", hint)


def _impossible(error: RowsChanged, commit: Commit, record: Record, rows: int) -> SidecarError:
    """What to say where the copy itself, which nobody has changed, does not fit."""
    if not record.inverse:
        if not commit.clashes:
            return error
        return UsageError(
            f"other rows have their place now, so nothing was done: {'; '.join(commit.clashes[:NAMED])}",
            "restore the table to a file instead (`sidecar restore --table NAME --output FILE`), or make it exactly as it was",
        )
    if not commit.conflicts:
        return error
    if len(commit.conflicts) >= rows:
        return RowsChanged(
            "none of the rows is as it was brought back, so nothing was undone",
            "they have changed since, or it was interrupted or undone before",
        )
    names = "; ".join(commit.conflicts[:NAMED])
    more = f" and {len(commit.conflicts) - NAMED} more" if len(commit.conflicts) > NAMED else ""
    return RowsChanged(
        f"rows were changed since they were brought back, so nothing was undone: {names}{more}",
        "the saved file beside the database has the rows of before",
    )
