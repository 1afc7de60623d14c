"""Some tables of a state: restored into a new database, or brought back into the live one."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.bootstrap import Services
from sidecar.compare.opening import Opened
from sidecar.compare.tables_file import write_tables
from sidecar.concurrency import in_own_task
from sidecar.errors import UsageError
from sidecar.host import Swap, aside, local_errors, require_unused, require_writable, swap, temporary
from sidecar.log import log
from sidecar.model import Database, Timestamp
from sidecar.progress import Show
from sidecar.states.bring_back import ROWS, BroughtBack, Confirm, LiveDatabase, Wish
from sidecar.states.naming import opened_state


@dataclass(frozen=True, slots=True)
class RestoredTables:
    """Tables of a state that were restored to `path`. `kept` is where the file is that was there before."""

    state: str
    tables: tuple[str, ...]
    path: Path
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class ChosenTables:
    """Tables of one state of a database, which is named as for `sidecar diff`. `Sidecar.tables` gives one."""

    _services: Services
    _database: Database
    _names: Sequence[str]
    _state: str
    _show: Show
    _publish: Callable[[], Awaitable[str | None]]

    @in_own_task
    async def bring_back(
        self,
        *,
        rows: str = "missing",
        triggers: bool = False,
        orphans: bool = False,
        long: bool = False,
        name: str = "",
        confirm: Confirm | None = None,
    ) -> BroughtBack:
        """Bring rows back into the live database, while programs go on writing to it.

        With `rows="missing"` those that are gone come back, and nothing is overwritten. `changed` changes rows back, too, and
        leaves newer ones alone; `exact` makes the tables what they were, and so removes newer rows. A restore point is published first, and what is overwritten is saved beside the
        database. One transaction does all of it, or nothing. Triggers of the tables do not fire, unless `triggers`. Foreign
        keys of rows that are brought back must have their parents, unless `orphans`. Writers wait for at most two seconds,
        unless `long`. With `name` the rows of one table go to a new table of that name. `confirm` is called with a `Preview`
        before anything is done, and may raise.

        Raises `UsageError` for what cannot be done, `RowsChanged` if the app was faster and `DatabaseBusy` if it has the lock
        for more than five seconds (nothing was done), and what `Sidecar.diff` and `Sidecar.backup` raise.
        """
        if rows not in ROWS:
            raise UsageError(f"rows: {rows!r} is not known", f"it is one of {', '.join(ROWS)}")
        wish = Wish(rows, triggers, orphans, long, name)
        return await self._live(wish, confirm).bring_back(self._names, self._state)

    @in_own_task
    async def undo(
        self,
        *,
        triggers: bool = False,
        orphans: bool = False,
        long: bool = False,
        confirm: Confirm | None = None,
    ) -> BroughtBack:
        """Undo what was last brought back into the live database, within the hour; the tables need not be named.

        Raises `NothingToRestore`, `RowsChanged` with the rows that were changed since (nothing was done), and what `bring_back` does.
        """
        return await self._live(Wish(triggers=triggers, orphans=orphans, long=long), confirm).undo()

    def _live(self, wish: Wish, confirm: Confirm | None) -> LiveDatabase:
        live = LiveDatabase(self._services, self._database, self._show, self._publish, wish)
        return replace(live, confirm=confirm) if confirm else live

    @in_own_task
    async def restore(self, output: str | os.PathLike[str], *, force: bool = False) -> RestoredTables:
        """Write the tables, with their indexes, triggers and sequences, to a new database. Only what they need is fetched.

        An existing file is replaced only with `force`, and kept beside the new one. Raises `UsageError` for a table that is not
        there and for a file that is, `DatabaseBusy`, `NoRoom`, and what `Sidecar.diff` raises.
        """
        target = Path(output).resolve()
        _require_free(self._database, target, force=force)
        async with opened_state(self._services, self._database, self._state, self._show) as opened:
            with local_errors(target):
                require_writable(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                with self._show(f"restore {', '.join(self._names)}"):
                    kept = await to_thread.run_sync(_write, self._services, opened, self._names, target)
            return RestoredTables(opened.named.name, tuple(self._names), target, kept)


def _require_free(database: Database, output: Path, *, force: bool) -> None:
    if output == database.path:
        raise UsageError(
            "some tables cannot take the place of the whole database",
            "name another file, or use `sidecar restore --into live`",
        )
    if output.is_dir():
        raise UsageError(f"the output {output} is a directory", "name a file")
    if output.exists():
        if not force:
            raise UsageError(
                f"{output} exists", "`sidecar restore --force` replaces it and keeps the old one beside it"
            )
        require_unused(output, own=True)


def _write(services: Services, opened: Opened, tables: Sequence[str], output: Path) -> Path | None:
    """Stage first, then swap. Returns where the old file is kept."""
    staged, at = temporary(output), Timestamp.of(datetime.now(UTC))
    staged.unlink(missing_ok=True)
    os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        write_tables(services.driver, opened, tables, staged, from_thread.check_cancelled)
        opened.named.check()
        exists = output.exists() and output.stat().st_size
        if exists:
            require_unused(output, own=True)
        kept = aside(output, "replaced", at) if exists else None
        swap(Swap(staged, output, kept, at, services.durable(output)))
    finally:
        staged.unlink(missing_ok=True)
    if kept:
        log.info("replaced database kept", path=str(kept))
    return kept
