"""Runs SQLite's own check on a database and, if it complains, tries to read every table.

The file is one that nobody writes to: a snapshot, a restored database, a drill's scratch file. Only `unreadable_live` reads
a live database, in the way the app does.
"""

from collections.abc import Mapping
from pathlib import Path

from sidecar.database.base import Feed, YieldToApp
from sidecar.database.driver import Driver, default_driver
from sidecar.database.findings import KEPT, CheckReport, complaints_of, is_about_content, is_unreadable, not_read
from sidecar.database.followed import followed
from sidecar.database.queries import OpenDatabase, reading
from sidecar.host import failed

_VIRTUAL_COLUMN = 2  # https://sqlite.org/pragma.html#pragma_table_xinfo: computed, so not in the b-tree


class SqliteIntegrity:
    """Implements `base.IntegrityCheck`."""

    def __init__(self, driver: Driver | None = None, feeds: Mapping[Path, Feed] | None = None) -> None:
        """`feeds` are the databases that are followed, by path: a follower must know of our own connections."""
        self._driver = driver or default_driver()
        self._feeds = feeds or {}

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> CheckReport:
        """See `base.IntegrityCheck`."""
        if mode == "none":
            return CheckReport(mode)
        complaints = await self._complaints(path, "quick_check" if mode == "quick" else "integrity_check", yield_to_app)
        if not complaints:
            return CheckReport(mode)
        if reason := not_read(complaints):
            raise failed(path, reason)
        return CheckReport.of(mode, complaints, await self._unreadable(path, yield_to_app=yield_to_app))

    async def unreadable_live(self, path: Path, yield_to_app: YieldToApp | None = None) -> str:
        """See `base.IntegrityCheck`."""
        async with followed(self._feeds.get(path)):
            return await self._unreadable(path, live=True, yield_to_app=yield_to_app)

    async def _complaints(self, path: Path, pragma: str, yield_to_app: YieldToApp | None) -> tuple[str, ...]:
        with self._driver.translated(path):
            try:
                async with reading(self._driver, path, yield_to_app=yield_to_app) as database:
                    return complaints_of(await database.rows(f"PRAGMA {pragma}({KEPT})"))
            except self._driver.error as error:
                if not is_about_content(error):
                    raise
                return (f"the check ended early: {error}",)

    async def _unreadable(self, path: Path, *, live: bool = False, yield_to_app: YieldToApp | None = None) -> str:
        """The first table that cannot be read to its end, with the reason. Empty if all can be read."""
        with self._driver.translated(path):
            async with reading(self._driver, path, yield_to_app=yield_to_app, live=live) as database:
                schema = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
                if broken := await self._broken(database, "SELECT * FROM sqlite_schema"):
                    return f"the schema cannot be read: {broken}"
                await database.load_schema()
                for (name,) in await database.rows(schema):
                    if broken := await self._read_through(database, name):
                        return f"table {name.decode(errors='replace')} cannot be read: {broken}"
        return ""

    async def _read_through(self, database: OpenDatabase, table: bytes) -> str:
        """Why a table cannot be read to its end without its indexes. Empty if it can, or if its definition is not loaded."""
        try:
            name = table.decode()
            columns = await database.rows(f"SELECT name, hidden FROM pragma_table_xinfo({_quoted(name, chr(39))})")  # noqa: S608
            stored = [_quoted(column.decode()) for column, hidden in columns if hidden != _VIRTUAL_COLUMN]
        except (ValueError, self._driver.error) as error:
            if isinstance(error, self._driver.error) and not is_about_content(error):
                raise
            return ""  # the name is not text, or this SQLite does not understand the definition
        return await self._broken(database, f"SELECT {', '.join(stored) or '1'} FROM {_quoted(name)} NOT INDEXED")  # noqa: S608

    async def _broken(self, database: OpenDatabase, statement: str) -> str:
        try:
            await database.drain(statement)
        except self._driver.error as error:
            if not is_about_content(error):
                raise
            return str(error) if is_unreadable(error) else ""
        return ""


def _quoted(name: str, quote: str = '"') -> str:
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"
