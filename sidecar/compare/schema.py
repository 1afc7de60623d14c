"""The schema of one state: SQLite itself parses it, in memory, where nothing of the database is.

The app's collations and functions get a stand-in, because nothing is sorted or computed by them. What cannot be parsed
all the same is named in `problems`, and never left out.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from sidecar.compare.defaults import Defaults
from sidecar.compare.image import Entry
from sidecar.compare.tables import Column, Table
from sidecar.database import Driver
from sidecar.database.driver import Connection

SEQUENCE = "sqlite_sequence"
_TOKENS = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)|.""", re.DOTALL
)  # as far as comments matter
_UNKNOWN = re.compile(r"(?:no such|unknown) (collation sequence|function): (.*?)(?:\(\))?$")
_SELECT, _ATTACH, _DENY = 21, 24, 1  # https://sqlite.org/c3ref/c_alter_table.html
_MODULE = re.compile(
    r"""CREATE\s+VIRTUAL\s+TABLE\s+(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|'(?:[^']|'')*'|\[[^]]*\]|\S+)\s+USING\s+["`'\[]?(\w+)""",
    re.IGNORECASE,
)
_FTS, _RTREE = {"content", "segments", "segdir", "docsize", "stat"}, {"node", "parent", "rowid"}
_SHADOWS: Mapping[str, set[str]] = {  # how the names of the tables end in which the modules of SQLite store content
    "fts5": {"data", "idx", "content", "docsize", "config"},
    "fts3": _FTS,
    "fts4": _FTS,
    **dict.fromkeys(("rtree", "rtree_i32", "geopoly"), _RTREE),
    **{each: set() for each in ("fts5vocab", "fts4aux", "fts3aux")},
}
_STORED, _GENERATED = {0, 3}, {2, 3}  # `hidden` of PRAGMA table_xinfo


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database has. `problems` says for a table why it cannot be understood; `unknown` are functions and collations."""

    entries: tuple[Entry, ...]
    tables: Mapping[str, Table]
    problems: Mapping[str, str]
    unknown: tuple[str, ...]

    def objects(self) -> dict[tuple[str, str], Entry]:
        """Indexes, views and triggers that were created by a statement, by type and name."""
        kinds = {"index", "view", "trigger"}
        return {(each.type, each.name): each for each in self.entries if each.type in kinds and each.sql}

    def virtual(self) -> dict[str, Entry]:
        """The virtual tables, by name."""
        return {each.name: each for each in self.entries if each.type == "table" and not each.root}


def read_schema(driver: Driver, entries: Iterable[Entry]) -> Schema:
    """Parse the rows of `sqlite_schema`."""
    found = tuple(entries)
    with closing(driver.in_memory()) as memory, closing(Defaults(driver)) as defaults:
        loading = _Loading(driver, memory, defaults, found)
        try:
            return loading.schema()
        finally:
            memory.set_authorizer(None)  # else the connection and it keep each other for ever


class _Loading:
    def __init__(self, driver: Driver, memory: Connection, defaults: Defaults, entries: tuple[Entry, ...]) -> None:
        self._error, self._memory, self._entries = driver.error, memory, entries
        self._defaults = defaults
        self._unknown: list[str] = []
        self._creating = False
        memory.set_authorizer(self._authorize)

    def schema(self) -> Schema:
        tables: dict[str, Table] = {}
        problems: dict[str, str] = {}
        for entry in self._entries:
            if entry.type != "table" or not entry.root or _is_internal(entry.name):
                continue
            problem = self._create(entry)
            if problem:
                problems[entry.name] = problem
            else:
                tables[entry.name] = self._table(entry, entry.name)
        sequence = next((each for each in self._entries if each.name == SEQUENCE), None)
        if sequence:
            self._memory.execute("CREATE TABLE IF NOT EXISTS sidecar_sequence(a INTEGER PRIMARY KEY AUTOINCREMENT)")
            tables[SEQUENCE] = self._table(sequence, SEQUENCE)
        return Schema(self._entries, tables, problems, tuple(self._unknown))

    def _authorize(self, action: int, *_: object) -> int:
        """The statements come from a file: they may create tables, and neither read nor open anything."""
        return _DENY if self._creating and action in {_SELECT, _ATTACH} else 0

    def _create(self, entry: Entry) -> str:
        """Create a table in memory; returns why that is not possible."""
        if not re.match(r"CREATE\s+TABLE\b", entry.sql, re.IGNORECASE):
            return "its definition is not a CREATE TABLE statement"
        while True:
            self._creating = True
            try:
                self._memory.execute(entry.sql)
            except self._error as error:
                unknown = _UNKNOWN.search(str(error))
                if not unknown or unknown[2] in self._unknown:
                    return str(error)
                self._stand_in(unknown[1], unknown[2])
            except ValueError as error:  # a NUL in the statement
                return str(error)
            else:
                return ""
            finally:
                self._creating = False

    def _stand_in(self, kind: str, name: str) -> None:
        self._unknown.append(name)
        if kind == "function":
            self._memory.create_function(name, -1, lambda *_: None, deterministic=True)
        else:
            self._memory.create_collation(name, lambda one, other: (one > other) - (one < other))

    def _table(self, entry: Entry, name: str) -> Table:
        memory, quoted = self._memory, quote(name)
        info = memory.execute(f"PRAGMA table_xinfo({quoted})").fetchall()
        without_rowid, strict = memory.execute(
            "SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)
        ).fetchone()
        stored = [row for row in info if row[6] in _STORED]
        columns = tuple(self._column(row, strict=bool(strict)) for row in stored)
        position = {row[0]: at for at, row in enumerate(stored)}
        key = tuple(position[row[0]] for row in sorted((row for row in info if row[5]), key=lambda row: row[5]))
        indexes = memory.execute(f"PRAGMA index_list({quoted})").fetchall()
        primary = next((row[1] for row in indexes if row[3] == "pk"), None)
        order: tuple[int, ...] = tuple(range(len(stored)))
        collations: tuple[tuple[str, bool], ...] = ()
        if primary is not None:
            stored_order, collations = self._key_order(primary, position)
            order = stored_order if without_rowid else order
        alias = key[0] if len(key) == 1 and primary is None and not without_rowid else None
        hidden = {row[1].lower() for row in info}
        free = next((each for each in ("rowid", "_rowid_", "oid") if each not in hidden), None)
        rowid = None if without_rowid else columns[alias].name if alias is not None else free
        unique = any(row[2] and row[3] != "pk" for row in indexes) or self._has_unique_index(name)
        return Table(
            name,
            entry.root,
            entry.sql,
            columns,
            order,
            key,
            alias,
            bool(without_rowid),
            collations,
            rowid,
            unique,
            self._virtual_of(name),
            "" if without_rowid else primary or "",
        )

    def _key_order(
        self, primary: str, position: Mapping[int, int]
    ) -> tuple[tuple[int, ...], tuple[tuple[str, bool], ...]]:
        """Where the columns of a WITHOUT ROWID table are in its records, and what its key is sorted by."""
        rows = self._memory.execute(f"PRAGMA index_xinfo({quote(primary)})").fetchall()
        order = tuple(position[row[1]] for row in rows if row[1] in position)
        return order, tuple((str(row[4]).upper(), bool(row[3])) for row in rows if row[5])

    def _column(self, row: tuple[object, ...], *, strict: bool) -> Column:
        name, kind, default = str(row[1]), str(row[2] or ""), row[4]
        sql = None if default is None else str(default)
        is_real = affinity(kind) == "REAL"
        kept = kind if strict else affinity(kind)  # a type may be any text, which would not always be SQL again
        value = None if sql is None else self._defaults.value(kept, sql, strict=strict)
        return Column(name, kind, bool(row[3]), value, sql, is_real, row[6] in _GENERATED)

    def _has_unique_index(self, table: str) -> bool:
        return any(
            each.type == "index" and each.table == table and re.match(r"CREATE\s+UNIQUE", each.sql, re.IGNORECASE)
            for each in self._entries
        )

    def _virtual_of(self, name: str) -> str:
        """The virtual table that a shadow table belongs to: it begins with that name and an underscore."""
        virtual = (each for each in self._entries if each.type == "table" and not each.root)
        return max((each.name for each in virtual if _is_shadow(name, each)), key=len, default="")


def is_known_module(virtual: Entry) -> bool:
    """Whether it is known of a virtual table which tables it stores its content in."""
    return _ends_of(virtual) is not None


def _ends_of(virtual: Entry) -> set[str] | None:
    module = _MODULE.match(virtual.sql)
    return _SHADOWS.get(module[1].lower()) if module else None


def _is_shadow(name: str, virtual: Entry) -> bool:
    """Whether a table of this name stores content of a virtual one; of an unknown module, whether it may."""
    start, ends = f"{virtual.name}_", _ends_of(virtual)
    return name.startswith(start) and (ends is None or name.removeprefix(start) in ends)


def affinity(kind: str) -> str:
    """The affinity of a declared type: section 3.1 of https://sqlite.org/datatype3.html."""
    upper = kind.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(each in upper for each in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not upper or "BLOB" in upper:
        return "BLOB"
    return "REAL" if any(each in upper for each in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def quote(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def terminated(statement: str) -> str:
    """A statement with its semicolon. SQLite keeps a comment at the end of one that makes an index or a view."""
    last = ""
    if statement.startswith("CREATE"):
        for match in _TOKENS.finditer(statement):
            last = match[0]
    if last.startswith("--"):
        return f"{statement}\n;"
    return f"{statement}*/;" if last.startswith("/*") and not last.endswith("*/") else f"{statement};"


def _is_internal(name: str) -> bool:
    return name.lower().startswith("sqlite_")
