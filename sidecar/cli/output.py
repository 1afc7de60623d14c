"""Output of commands: lines and tables, for people on a terminal, for logs and pipes elsewhere."""

import os
import re
import sys
from contextlib import suppress
from datetime import timedelta

from sidecar.units import format_duration

UNKNOWN = "-"  # in a table, for a value that is not known
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Replace control characters other than newlines: text that others wrote to the store must not control a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(line: str) -> None:
    """Print a line on stdout. A character that the terminal's encoding lacks becomes a question mark, never an error."""
    encoding = sys.stdout.encoding or "utf-8"
    text = printable(line).encode(encoding, "replace").decode(encoding)
    print(text, flush=True)  # noqa: T201 - the output of a command


def stop_printing() -> None:
    """Nobody reads any more: drop what is still buffered, which would be an error at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(line: str) -> None:
    """Print a line on stderr. Never fails, even when nobody reads it."""
    with suppress(OSError, ValueError):
        print(printable(" ".join(f"sidecar: {line}".split())), file=sys.stderr, flush=True)  # noqa: T201 - as above


def format_age(seconds: float) -> str:
    """A duration to the second."""
    return format_duration(timedelta(seconds=round(seconds)))


class Table:
    """Columns for people. It never wraps or cuts a key, so that keys can be copied and read by `awk`."""

    def __init__(self, *head: str) -> None:
        self._rows: list[tuple[str, ...]] = [head]

    def add(self, *cells: str) -> None:
        """Add a row with as many cells as the head has."""
        self._rows.append(cells)

    def show(self, *, empty: str) -> None:
        """Print the table, or one line when it has no rows."""
        if len(self._rows) == 1:
            say(empty)
            return
        widths = [max(len(row[column]) for row in self._rows) for column in range(len(self._rows[0]))]
        for row in self._rows:
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
