"""Which full-text indexes follow a table, and so must follow rows that are brought back. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.compare.image import Entry
from sidecar.compare.schema import quote

_MODULE = re.compile(r"\bUSING\s+fts[345]\b", re.IGNORECASE)
_CONTENT = re.compile(r"""\bcontent\s*=\s*(?:'([^']*)'|"([^"]*)"|\[([^]]*)\]|`([^`]*)`|([^\s,)'"]*))""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SearchIndexes:
    """`rebuilt` take their text from the tables. `copies` have a text of their own, which triggers of the tables write."""

    rebuilt: tuple[str, ...]
    copies: tuple[str, ...]

    def statements(self) -> Iterable[str]:
        """Rebuild the indexes (https://sqlite.org/fts5.html#the_rebuild_command)."""
        for name in self.rebuilt:
            yield f"INSERT INTO {quote(name)}({quote(name)}) VALUES ('rebuild')"  # noqa: S608 - names are quoted


def source_of(entry: Entry) -> str:
    """The table that a full-text index takes its text from; empty if it keeps the text itself, or none, or is no such index."""
    content = _CONTENT.search(entry.sql) if _MODULE.search(entry.sql) else None
    return next((each for each in content.groups() if each), "") if content else ""


def search_indexes(entries: Iterable[Entry], tables: Iterable[str]) -> SearchIndexes:
    """The indexes that follow these tables."""
    known, found = list(entries), {each.lower() for each in tables}
    bodies = [each.sql for each in known if each.type == "trigger" and each.table.lower() in found]
    rebuilt, copies = list[str](), list[str]()
    for entry in known:
        if entry.type != "table" or entry.root or not _MODULE.search(entry.sql):
            continue
        source = source_of(entry)
        is_kept = any(re.search(rf"(?<!\w){re.escape(entry.name)}(?!\w)", body, re.IGNORECASE) for body in bodies)
        if source and (is_kept or source.lower() in found):
            rebuilt.append(entry.name)
        elif is_kept:
            copies.append(entry.name)
    return SearchIndexes(tuple(rebuilt), tuple(copies))
