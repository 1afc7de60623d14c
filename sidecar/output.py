"""What commands print: lines, tables and progress; for people on a terminal, for logs and pipes elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from sidecar.quantities import format_size

log = structlog.get_logger()

LOG_EVERY = 10.0


def say(line: str) -> None:
    """A line on stdout."""
    print(line, flush=True)  # noqa: T201 - the output of a command


class Table:
    """Columns for people. Never wraps or cuts a key, so that it can be copied, and read by `awk`."""

    def __init__(self, *head: str) -> None:
        self._rows: list[tuple[str, ...]] = [head]

    def add(self, *cells: str) -> None:
        """One row; as many cells as the head has."""
        self._rows.append(cells)

    def show(self, *, empty: str) -> None:
        """Print the table, or one line when it has no rows."""
        if len(self._rows) == 1:
            say(empty)
            return
        widths = [max(len(row[column]) for row in self._rows) for column in range(len(self._rows[0]))]
        for row in self._rows:
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function to tell (bytes done, bytes in all): a bar with rate and time left, or a log line each 10 s."""
    if not sys.stderr.isatty():
        yield _logged(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _logged(title: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY:
            last = time.monotonic()
            log.info(title, done=format_size(done), total=format_size(total), percent=round(100 * done / max(total, 1)))

    return tell
