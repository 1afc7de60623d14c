"""What SQLite's check says about a database, and which of it means that a table cannot be read. Pure.

A newer SQLite complains about more than the one that an app uses: values, constraints, unused pages, indexes of extensions,
a schema that it cannot load. None of that keeps the app from its rows, so all of it is only a finding. What counts as
damage is a table whose b-tree cannot be read to its end.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sidecar.database import errors
from sidecar.database.errors import CORRUPT, CORRUPT_VTAB, NOT_A_DATABASE, code_of, is_schema_error

MODES = ("none", "quick", "full", "strict")  # each looks for what the one before looks for, and more
KEPT = 20  # findings; a damaged index can have thousands
LONGEST = 300  # characters of one
# How the check says that it could not read a page (`checkTreePage` in btree.c): as a complaint, whatever the reason.
_NO_PAGE = re.compile(r"unable to get the page\. error code=(\d+)")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of SQLite's check in one mode.

    `findings` is what it complains about, at most `KEPT`; `unreadable` names the first table that cannot be read to its
    end, with the reason, and is one of the findings.
    """

    mode: str
    findings: tuple[str, ...] = ()
    unreadable: str = ""

    @classmethod
    def of(cls, mode: str, complaints: Iterable[str], unreadable: str = "") -> Self:
        """From SQLite's own lines; what cannot be read comes first."""
        lines = (_one_line(each) for each in (unreadable, *complaints) if each)
        return cls(mode, tuple(dict.fromkeys(lines))[:KEPT], _one_line(unreadable))

    def covers(self, mode: str) -> bool:
        """Whether the check looked for all that this mode looks for."""
        return _rank(self.mode) >= _rank(mode) and self.mode != "none"

    def to_json(self) -> dict[str, object]:
        """For the index of a restore point."""
        return {"mode": self.mode, "findings": list(self.findings), "unreadable": self.unreadable}

    @classmethod
    def of_json(cls, value: object) -> Self | None:
        """The report that `to_json` wrote. None for anything else: the database counts as not checked then."""
        if (
            not isinstance(value, Mapping)
            or value.get("mode") not in MODES
            or not isinstance(value.get("findings"), list)
        ):
            return None
        return cls(str(value["mode"]), tuple(map(str, value["findings"])), str(value.get("unreadable", "")))


def complaints_of(rows: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """The complaints among the rows of `PRAGMA quick_check` or `integrity_check`; a single `ok` means none."""
    found = [each for row in rows if row for each in _text(row[0]).split("\n") if each]
    return tuple(each for each in found if each != "ok" and not each.startswith("*** in database"))


def is_about_content(error: Exception) -> bool:
    """Whether SQLite stopped because of the database's content, and not because of a lock, the disk or memory."""
    return errors.is_about_content(code_of(error))


def not_read(complaints: Iterable[str]) -> str:
    """The first complaint that is about this machine's disk or memory, and not about the database; empty when none is."""
    for each in complaints:
        if (found := _NO_PAGE.search(each)) and not errors.is_about_content(int(found[1])):
            return each
    return ""


def is_unreadable(error: Exception) -> bool:
    """Whether this error, raised while a table was read, means that its b-tree is broken.

    Extensions report their own indexes with a code of their own, and a part of the schema that cannot be loaded says
    nothing about the table's pages.
    """
    code = code_of(error)
    return code & 0xFF in {CORRUPT, NOT_A_DATABASE} and code != CORRUPT_VTAB and not is_schema_error(error)


def _rank(mode: str) -> int:
    return min(MODES.index(mode), MODES.index("full"))  # strict differs in what follows from a finding


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:LONGEST]
