"""`sidecar restore --table`: bring back some tables, to a new database or into the live one; `--undo` undoes the latter."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.compare.fitness import Preview, TablePlan
from sidecar.errors import ExitCode, UsageError
from sidecar.progress import progress_bar
from sidecar.settings import Configuration
from sidecar.states.bring_back import ROWS, BroughtBack

_STORED = " (virtual table, as it is stored)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tables of which state, and how they are to be brought back into the live database. The names are the options'."""

    tables: Sequence[str]
    at: str | None
    key: str | None
    into: str | None = None
    rows: str | None = None
    name: str | None = None
    triggers: bool = False
    orphans: bool = False
    long: bool = False
    yes: bool = False
    undo: bool = False

    @property
    def state(self) -> str:
        """The state, as `sidecar diff` names it."""
        return self.at or self.key or "newest"

    def require_sound(self, *, stream: str | None, output: str | None, force: bool) -> None:
        """Raise `UsageError` for options that exclude each other."""
        if self.at and self.key:
            raise UsageError("--at and --key exclude each other", "give one of them")
        if stream:
            raise UsageError("--stream restores whole databases", "leave out --table, or use --at or --key")
        if self.undo:
            self._require_none(self.tables or self.at or self.key or self.into or self.rows or self.name or output)
        elif not self.tables:
            raise UsageError("--into, --rows and --as are for single tables", "name them with --table")
        elif self.into is None and output is None:
            raise UsageError("--table needs to know where to", "add --output FILE or --into live")
        elif self.into is not None:
            self._require_live(output=output, force=force)
        elif self.rows or self.name or self.triggers or self.orphans or self.long:
            raise UsageError(
                "--rows, --as, --triggers, --orphans and --long are for the live database", "add --into live"
            )

    def _require_none(self, other: object) -> None:
        if other:
            raise UsageError("--undo undoes what was brought back last, and needs no table or state", "leave them out")

    def _require_live(self, *, output: str | None, force: bool) -> None:
        if self.into != "live":
            raise UsageError(f"--into {self.into!r} is not known", "it takes live; --output writes to a file")
        if output or force:
            raise UsageError("--output and --force are not for the live database", "leave them out")
        if self.rows not in {None, *ROWS}:
            raise UsageError(f"--rows {self.rows!r} is not known", f"it takes {', '.join(ROWS)}")
        if self.name and self.rows:
            raise UsageError("--as brings all rows back, in a new table", "leave out --rows")


async def restore_tables(configuration: Configuration, *, wanted: Wanted, output: str | None, force: bool) -> int:
    """Restore the tables, or undo that."""
    async with attended(configuration) as services:
        session = Sidecar(services, progress_bar)
        if len(session.databases) > 1:
            raise UsageError("tables of one database are restored at a time", "name it with --database")
        if output is not None:
            return await _to_file(session, wanted, output, force=force)
        confirm = partial(_confirm, wanted, session.databases[0].name)
        tables = session.tables(*wanted.tables, state=wanted.state)
        flags = {"triggers": wanted.triggers, "orphans": wanted.orphans, "long": wanted.long}
        if wanted.undo:
            _say_undone(await tables.undo(confirm=confirm, **flags))
        else:
            _say_done(
                await tables.bring_back(
                    rows=wanted.rows or "missing", name=wanted.name or "", confirm=confirm, **flags
                ),
                wanted.tables,
                earlier=wanted.state == "newest",
            )
    return ExitCode.OK


async def _to_file(session: Sidecar, wanted: Wanted, output: str, *, force: bool) -> int:
    restored = await session.tables(*wanted.tables, state=wanted.state).restore(output, force=force)
    if restored.kept:
        say(f"the database that was there is kept at {restored.kept}")
    say(f"{', '.join(restored.tables)} as of {restored.state} restored to {restored.path}")
    return ExitCode.OK


async def _confirm(wanted: Wanted, database: str, preview: Preview) -> None:
    """Show what would be done, and go on only if a person types the table's name, or has said so before."""
    for line in _lines(wanted, database, preview):
        say(line)
    if wanted.yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("nothing was done: this needs to be confirmed", "add --yes")
    name = preview.tables[0].name if len(preview.tables) == 1 else database
    say(f"Type {name} to go on:")
    await anyio.wait_readable(sys.stdin)
    if sys.stdin.readline().strip() != name:
        raise UsageError("nothing was done: it was not confirmed", f"type {name}, or add --yes")


def _lines(wanted: Wanted, database: str, preview: Preview) -> Iterator[str]:
    what = (
        f"undo what was brought back into {database}"
        if wanted.undo
        else f"from {preview.state} into the live {database}"
    )
    removed = "removed again" if wanted.undo else "removed, because they are newer"
    yield f"{what}:"
    yield from (f"  {each.name}{_STORED if each.virtual else ''}: {_plan(each, removed)}" for each in preview.tables)
    if preview.triggers:
        yield f"  triggers that do not fire: {', '.join(preview.triggers)} (--triggers lets them); TEMP triggers of the app do not in any case"
    elif not wanted.triggers:
        yield "  TEMP triggers of the app do not fire"
    if preview.search_indexes:
        yield f"  search indexes that are rebuilt: {', '.join(preview.search_indexes)}"
    yield f"  programs that write wait for about {max(preview.seconds, 0.01):.2f} s"
    if not wanted.undo:
        yield "  first, a restore point of the live database is published, and what is overwritten is saved beside it"


def _plan(plan: TablePlan, removed: str = "removed, because they are newer") -> str:
    parts = [
        f"{_rows(count)} {words}"
        for count, words in (
            (plan.added, "inserted"),
            (plan.changed, "changed back"),
            (plan.removed, removed),
        )
        if count
    ]
    if plan.created:
        parts.insert(0, "the table is created")
    if plan.dropped:
        parts.append("the table is dropped")
    left = [
        f"{count:,} {word}" for count, word in ((plan.left_changed, "changed"), (plan.left_newer, "newer")) if count
    ]
    rows = "row stays as it is" if plan.left_changed + plan.left_newer == 1 else "rows stay as they are"
    stay = f"; {' and '.join(left)} {rows} (see --rows)" if left else ""
    return (", ".join(parts) or "nothing to bring back") + stay


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _say_done(done: BroughtBack, tables: Sequence[str], *, earlier: bool) -> None:
    """`earlier`: the newest state was taken, so that one from before the loss may be meant."""
    if done.saved is None:
        for each in done.preview.tables:
            say(f"{each.name}: {_plan(each)}")
        say(f"nothing was done: the live database was compared with {done.preview.state}")
        if earlier:
            say(
                f"name an earlier state with --at or --key: `sidecar log --table {shlex.quote(tables[0])}` shows when it changed"
            )
        return
    say(f"{_rows(done.preview.rows)} brought back; writers waited for {done.held:.2f} s")
    say(f"the database as it was before is in the restore point {done.restore_point}")
    say(f"the rows that were overwritten or removed are saved in {done.saved}")
    say("`sidecar restore --undo` undoes it, within the hour")


def _say_undone(done: BroughtBack) -> None:
    say(f"{_rows(done.preview.rows)} as before; the saved rows are kept in {done.saved}")
