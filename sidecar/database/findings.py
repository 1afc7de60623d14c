"""The complaints of SQLite's check about a database, and which of them mean that a table cannot be read. Pure.

A newer SQLite complains about more than the app's own SQLite does: values, constraints, unused pages, indexes of
extensions, a schema that it cannot load. None of that keeps the app from reading its rows, so it is only a finding. Only a
table whose b-tree cannot be read to its end counts as damage.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sidecar.database import errors
from sidecar.database.errors import CORRUPT, CORRUPT_VTAB, NOT_A_DATABASE, code_of, is_schema_error

MODES = ("none", "quick", "full", "strict")  # each covers the one before it
KEPT = 20  # findings: a damaged index can cause thousands
LONGEST = 300  # characters of a finding
# The check reports a page that it could not read as a complaint, whatever the reason (`checkTreePage` in btree.c).
_NO_PAGE = re.compile(r"unable to get the page\. error code=(\d+)")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of SQLite's check in one mode.

    `findings` are its complaints, at most `KEPT`. `unreadable` names the first table that cannot be read to its end, with
    the reason; it is one of the findings.
    """

    mode: str
    findings: tuple[str, ...] = ()
    unreadable: str = ""

    @classmethod
    def of(cls, mode: str, complaints: Iterable[str], unreadable: str = "") -> Self:
        """The report of SQLite's own lines, with `unreadable` first."""
        lines = (_one_line(each) for each in (unreadable, *complaints) if each)
        return cls(mode, tuple(dict.fromkeys(lines))[:KEPT], _one_line(unreadable))

    def covers(self, mode: str) -> bool:
        """Whether the check included everything that this mode checks."""
        return _rank(self.mode) >= _rank(mode) and self.mode != "none"

    def to_json(self) -> dict[str, object]:
        """For the index of a restore point."""
        return {"mode": self.mode, "findings": list(self.findings), "unreadable": self.unreadable}

    @classmethod
    def of_json(cls, value: object) -> Self | None:
        """The report that `to_json` wrote. None for anything else, so that the database counts as not checked."""
        if (
            not isinstance(value, Mapping)
            or value.get("mode") not in MODES
            or not isinstance(value.get("findings"), list)
        ):
            return None
        return cls(str(value["mode"]), tuple(map(str, value["findings"])), str(value.get("unreadable", "")))


def complaints_of(rows: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """The complaints in the rows of `PRAGMA quick_check` or `integrity_check`. A single `ok` means none."""
    found = [each for row in rows if row for each in _text(row[0]).split("\n") if each]
    return tuple(each for each in found if each != "ok" and not each.startswith("*** in database"))


def is_about_content(error: Exception) -> bool:
    """Whether SQLite failed because of the database's content, rather than a lock, the disk or memory."""
    return errors.is_about_content(code_of(error))


def not_read(complaints: Iterable[str]) -> str:
    """The first complaint that is about this machine's disk or memory rather than the database. Empty if there is none."""
    for each in complaints:
        if (found := _NO_PAGE.search(each)) and not errors.is_about_content(int(found[1])):
            return each
    return ""


def is_unreadable(error: Exception) -> bool:
    """Whether this error, raised while a table was read, means that its b-tree is broken.

    Damage to an extension's index has a result code of its own, and a part of the schema that cannot be loaded says nothing
    about the pages of the table.
    """
    code = code_of(error)
    return code & 0xFF in {CORRUPT, NOT_A_DATABASE} and code != CORRUPT_VTAB and not is_schema_error(error)


def _rank(mode: str) -> int:
    return min(MODES.index(mode), MODES.index("full"))  # strict differs in what follows from a finding


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:LONGEST]
