"""`sidecar diff`: compare two states, and print what differs. The status is 0 if nothing does, 1 if something does."""

import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import click

from sidecar.cli.diff.html import page
from sidecar.cli.diff.objects import objects
from sidecar.cli.diff.text import Style, lines
from sidecar.cli.diff.view import Overview, View
from sidecar.cli.new_file import new_file
from sidecar.cli.output import printable, stop_printing
from sidecar.cli.session import attended
from sidecar.compare.options import KEPT_ROWS, Options
from sidecar.compare.patch import statements
from sidecar.compare.reading import KINDS, Result
from sidecar.compare.schema import terminated
from sidecar.database import default_driver
from sidecar.errors import ExitCode, UsageError
from sidecar.progress import progress_bar
from sidecar.settings import Configuration
from sidecar.states import difference, difference_of_files, is_path

DEFAULT_LIMIT = 20  # rows of a table
PAGE_LIMIT = 500
_MOST_PAGED = 5000  # lines


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line, as they were given."""

    tables: Sequence[str]
    only: Sequence[str]
    ignored: Sequence[str]
    keys: Sequence[str]
    skip_damaged: bool
    summary: bool
    limit: int | None
    form: str  # text, json or sql
    page: Path | None  # the file of an HTML page, beside the summary as text
    everything: bool
    colour: str

    @property
    def needs_everything(self) -> bool:
        """Whether all rows and whole values are needed."""
        return self.everything or self.form == "sql"


async def diff(configuration: Configuration, *, states: Sequence[str], asked: Asked) -> int:
    """Compare two states of one database; without any, the newest in the store and the live one."""
    options, view = _options(asked), _view(asked)
    async with attended(configuration) as services:
        started = time.monotonic()
        if len(services.databases) > 1:
            raise UsageError("states of one database are compared", "name it with --database")
        database = services.databases[0]
        found = difference(services, database, states, options, progress_bar, everything=asked.needs_everything)
        async with found as result:
            return await _show(result, database.name, view, asked, started)


async def diff_files(*, states: Sequence[str], asked: Asked) -> int:
    """Compare two files, which needs no settings."""
    options, view, started = _options(asked), _view(asked), time.monotonic()
    before, after = map(Path, states)
    everything = asked.needs_everything
    found = difference_of_files(default_driver(), before, after, options, progress_bar, everything=everything)
    async with found as result:
        return await _show(result, after.name, view, asked, started)


def are_files(states: Sequence[str]) -> bool:
    """Whether two files are named, so that no store is needed."""
    return len(states) == 2 and all(map(is_path, states))


async def _show(result: Result, database: str, view: View, asked: Asked, started: float) -> int:
    overview = await Overview.of(result, database, view, time.monotonic() - started)
    if asked.page is not None:
        await _write_page(result, overview, view, asked.page)
        view = replace(view, summary=True)
    try:
        async with aclosing(_lines(result, overview, view, asked)) as shown:
            await _print(shown, asked)
    except BrokenPipeError:  # `sidecar diff | head`: the states differ whoever reads it
        stop_printing()
    return ExitCode.OK if overview.is_same else ExitCode.DIFFERENT


def _lines(result: Result, overview: Overview, view: View, asked: Asked) -> AsyncGenerator[str, None]:
    match asked.form:
        case "json":
            return objects(result, overview, view)
        case "sql":
            return _sql(result, overview)
    return lines(result, overview, view, Style(shutil.get_terminal_size((120, 24)).columns, _has_colour(asked.colour)))


async def _sql(result: Result, overview: Overview) -> AsyncGenerator[str, None]:
    if overview.is_same:
        return
    for name, reason in overview.not_compared:
        yield f"-- not compared: {' '.join(name.split())}: {' '.join(reason.split())}"
    async for statement in statements(result):
        yield terminated(statement)


async def _write_page(result: Result, overview: Overview, view: View, path: Path) -> None:
    """A new file that gets its name once it is complete, readable by its owner alone: it has data."""
    with new_file(path) as file:
        async with aclosing(page(result, overview, view)) as shown:
            async for line in shown:
                file.write(f"{line}\n".encode("utf-8", "backslashreplace"))


async def _print(shown: AsyncIterator[str], asked: Asked) -> None:
    """Print the lines as they come; on a terminal through a pager, if they are more than fit on it."""
    waiting: list[str] = []
    terminal = sys.stdout.isatty()
    paged = terminal and asked.form == "text"
    async for found in shown:
        line = printable(found) if terminal and asked.form != "text" else found  # names must not control it
        if paged and len(waiting) < _MOST_PAGED:
            waiting.append(line)
            continue
        paged = False
        for each in (*waiting, line):
            _write(each)
        waiting.clear()
    if len(waiting) >= shutil.get_terminal_size().lines:
        click.echo_via_pager("\n".join(waiting) + "\n", color=_has_colour(asked.colour))
    else:
        for each in waiting:
            _write(each)
    sys.stdout.flush()


def _write(line: str) -> None:
    """As UTF-8, whatever the locale is: a patch must not be changed on its way."""
    sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")


def _has_colour(asked: str) -> bool:
    if asked == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return asked == "always"


def _options(asked: Asked) -> Options:
    keys = dict(map(_key, asked.keys))
    kept = 0 if asked.summary and asked.form == "text" and asked.page is None else KEPT_ROWS
    return Options(tuple(asked.tables), tuple(_split(asked.ignored)), keys, skip_damaged=asked.skip_damaged, kept=kept)


def _key(text: str) -> tuple[str, tuple[str, ...]]:
    table, separator, columns = text.partition("=")
    names = tuple(_split([columns]))
    if not (table and separator and names):
        raise UsageError(f"--key {text!r} is not TABLE=COLUMN,…", "write it like --key orders=number")
    return table, names


def _view(asked: Asked) -> View:
    kinds = list(_split(asked.only)) or list(KINDS)
    if wrong := [each for each in kinds if each not in KINDS]:
        raise UsageError(f"--only {wrong[0]!r} is not a kind of change", "it takes added, removed and changed")
    if asked.form == "sql" and (asked.only or asked.summary or asked.limit is not None or asked.ignored):
        raise UsageError(
            "--sql is a whole patch: --only, --ignore, --summary and --limit would leave something out",
            "leave them out",
        )
    if asked.colour not in {"auto", "always", "never"}:
        raise UsageError(f"--color {asked.colour!r} is not known", "it takes auto, always and never")
    if asked.page is not None and asked.form != "text":
        raise UsageError("--html and --json or --sql exclude each other", "give one of them")
    limit = asked.limit
    if limit is not None and limit < 0:
        raise UsageError(f"--limit {limit} is negative", "0 shows all rows")
    if limit is None and asked.form == "text" and not asked.everything:
        limit = PAGE_LIMIT if asked.page else DEFAULT_LIMIT
    return View([each for each in KINDS if each in kinds], asked.summary, limit or None)


def _split(texts: Sequence[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]
