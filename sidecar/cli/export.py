"""`sidecar export`: the rows of one state, as NDJSON, CSV or SQL, to the standard output, a file, or a file for each table."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from anyio import from_thread, to_thread

from sidecar.cli.new_file import new_file
from sidecar.cli.output import printable
from sidecar.cli.session import attended
from sidecar.compare.export import ENDS, TABLE_FORMATS, chosen_tables, sql
from sidecar.compare.opening import Opened
from sidecar.compare.schema import terminated
from sidecar.database import default_driver
from sidecar.errors import ExitCode, UsageError
from sidecar.host import local_errors
from sidecar.progress import progress_bar
from sidecar.settings import Configuration
from sidecar.states import is_path, opened_file_to_export, opened_state

_CHECK_EVERY = 500  # rows


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write, and where: to the standard output without an `output`."""

    tables: Sequence[str]
    form: str
    output: Path | None
    force: bool


async def export(configuration: Configuration, *, state: str | None, wanted: Wanted) -> int:
    """Export a state of one database; by default the live one, or the newest in the store where nothing is live."""
    async with attended(configuration) as services:
        if len(services.databases) > 1:
            raise UsageError("one database is exported at a time", "name it with --database")
        return await _export(opened_state(services, services.databases[0], state, progress_bar), wanted)


async def export_file(path: Path, *, wanted: Wanted) -> int:
    """Export a file, which needs no settings."""
    return await _export(opened_file_to_export(default_driver(), path, progress_bar), wanted)


def is_file(state: str | None) -> bool:
    """Whether a file is named, so that no store is needed."""
    return state is not None and is_path(state)


async def _export(state: AbstractAsyncContextManager[Opened], wanted: Wanted) -> int:
    if wanted.form not in ENDS:
        raise UsageError(f"--format {wanted.form!r} is not a format", f"it takes {', '.join(ENDS)}")
    async with state as opened:
        await to_thread.run_sync(_write, opened, wanted)
    return ExitCode.OK


def _write(opened: Opened, wanted: Wanted) -> None:
    if wanted.form == "sql":
        with _target(wanted.output, wanted) as file:
            _write_lines(file, map(terminated, sql(opened, wanted.tables)), wanted.form)
            opened.named.check()
        return
    tables, lines = chosen_tables(opened, wanted.tables), TABLE_FORMATS[wanted.form]
    into = _files(wanted) if len(tables) != 1 or (wanted.output and wanted.output.is_dir()) else None
    for table in tables:
        with _target(into(table.name) if into else wanted.output, wanted) as file:
            _write_lines(file, lines(opened, table), wanted.form)
            opened.named.check()


def _files(wanted: Wanted) -> Callable[[str], Path]:
    """The file of each table, in a directory. Raises `UsageError` without one."""
    if wanted.output is None:
        raise UsageError(
            f"several tables are several files of {wanted.form}", "name one with --table, or a directory with -o"
        )
    with local_errors(wanted.output):
        wanted.output.mkdir(exist_ok=True)
    return partial(_file_of, wanted.output, wanted.form)


def _file_of(directory: Path, form: str, table: str) -> Path:
    return directory / f"{quote(table, safe=' ')}.{form}"


@contextmanager
def _target(path: Path | None, wanted: Wanted) -> Iterator[BinaryIO]:
    """The standard output, or a new file that gets its name once it is complete, readable by its owner alone."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with new_file(path, force=wanted.force) as file:
        yield file


def _write_lines(file: BinaryIO, lines: Iterator[str], form: str) -> None:
    """What is in the rows must not control a terminal: there, control characters are replaced."""
    end, shown = ENDS[form], file is sys.stdout.buffer and sys.stdout.isatty()
    for number, line in enumerate(lines):
        if not number % _CHECK_EVERY:
            from_thread.check_cancelled()
        file.write((printable(line) + "\n" if shown else line + end).encode())
