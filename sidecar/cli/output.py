"""What commands print: lines, tables and progress; for people on a terminal, for logs and pipes elsewhere."""

import re
import sys
from contextlib import suppress

import structlog

log = structlog.get_logger()

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text without control characters but newlines: what others wrote to the store must not steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(line: str) -> None:
    """A line on stdout."""
    print(printable(line), flush=True)  # noqa: T201 - the output of a command


def complain(line: str) -> None:
    """A line on stderr, whether somebody reads it or not."""
    with suppress(OSError, ValueError):
        print(printable(" ".join(f"sidecar: {line}".split())), file=sys.stderr, flush=True)  # noqa: T201 - as above


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
