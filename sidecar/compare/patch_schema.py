"""What a difference as SQL does with the objects of the schema, before the rows and after them. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.compare.image import Entry
from sidecar.compare.reading import ComparedTable
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.values import Shown

_OTHERS = ("trigger", "view", "index")
_AUTOINCREMENT = re.compile(r"\bAUTOINCREMENT\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The entries of both schemas that are compared. `everything`: that is all of both; else there is no view among them."""

    before: Sequence[Entry]
    after: Sequence[Entry]
    tables: Sequence[ComparedTable]
    taken: frozenset[str]
    everything: bool

    @classmethod
    def of(
        cls,
        before: Sequence[Entry],
        after: Sequence[Entry],
        tables: Sequence[ComparedTable],
        not_compared: Sequence[tuple[str, str]],
        *,
        everything: bool,
    ) -> "Plan":
        """Whatever belongs to a table that was `not_compared` is left out."""
        left = {name.lower() for name, _ in not_compared}
        known = {each.lower() for table in tables for each in (table.name, table.former) if each}
        taken = frozenset(each.name.lower() for each in (*before, *after))

        def concerned(entries: Sequence[Entry]) -> list[Entry]:
            return [
                each
                for each in entries
                if each.table.lower() not in left
                and (everything or each.table.lower() in known or each.name == SEQUENCE)
            ]

        return cls(concerned(before), concerned(after), tables, taken, everything and not left)

    @property
    def has_sequence(self) -> bool:
        """Whether there is a table of sequences to be written to in the end."""
        earlier, later = (any(each.name == SEQUENCE for each in entries) for entries in (self.before, self.after))
        return later and (bool(self.sequences) or (earlier and self.everything))

    @property
    def sequences(self) -> Sequence[str]:
        """The tables that have a sequence, by their name in one of both states."""
        found = (each.name for each in (*self.before, *self.after) if _AUTOINCREMENT.search(each.sql))
        return tuple(dict.fromkeys(found))

    def has_sequence_of(self, name: Shown) -> bool:
        """Whether the sequence with this name is one of what is compared."""
        return self.everything or name in self.sequences

    def free_name(self, name: str) -> str:
        """A name like this that neither state has."""
        found = f"~{name}"
        while found.lower() in self.taken:
            found = f"~{found}"
        return found

    def drops(self) -> Iterator[str]:
        """Drop triggers, changed indexes and views, and the tables that are no more."""
        for kind in _OTHERS:
            for each in self.before:
                if each.type == kind and each.sql and not self._stays(each):
                    yield f"DROP {kind.upper()} IF EXISTS {quote(each.name)}"
        later = {each.name: each.sql for each in _virtual(self.after)}
        for each in _virtual(self.before):
            if later.get(each.name) != each.sql:
                yield f"DROP TABLE {quote(each.name)}"
        for table in self.tables:
            if table.state == "removed" and table.name != SEQUENCE:
                yield f"DROP TABLE IF EXISTS {quote(table.name)}"

    def creates(self) -> Iterator[str]:
        """Create the tables that are new; a virtual one makes its shadow tables, which are emptied."""
        known = {each.name: each.sql for each in _virtual(self.before)}
        made = [each for each in _virtual(self.after) if known.get(each.name) != each.sql]
        yield from (each.sql for each in made)
        names = {each.name for each in made}
        for table in self.tables:
            if table.state == "added" and table.name != SEQUENCE and table.after is not None:
                is_shadow = table.after.virtual in names
                yield f"DELETE FROM {quote(table.name)}" if is_shadow else table.after.sql  # noqa: S608 - a name is quoted

    def puts_back(self) -> Iterator[str]:
        """Create the indexes, views and triggers that are not there, in the order of the later schema."""
        kept = {(each.type, each.name) for each in self.before if self._stays(each)}
        for kind in reversed(_OTHERS):
            for each in self.after:
                if each.type == kind and each.sql and (kind, each.name) not in kept:
                    yield each.sql

    def _stays(self, entry: Entry) -> bool:
        """Whether an index or view is the same in both, on a table that is not rebuilt."""
        if entry.type == "trigger" or entry.table in self._rebuilt():
            return False
        return any((each.type, each.name, each.sql) == (entry.type, entry.name, entry.sql) for each in self.after)

    def _rebuilt(self) -> set[str]:
        changed = set()
        for each in self.tables:
            if each.before and each.after and each.before.sql != each.after.sql:
                changed |= {each.before.name, each.after.name}
        return changed


def _virtual(entries: Sequence[Entry]) -> list[Entry]:
    return [each for each in entries if each.type == "table" and not each.root]
