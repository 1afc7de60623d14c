"""Databases that work for their apps, but that another SQLite may complain about or not even understand.

Each is built with Python's own SQLite, whose version and limits differ from those of the library that sidecar uses.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

Build = Callable[[sqlite3.Connection], object]
ROWS = 50


@dataclass(frozen=True)
class Odd:
    """A kind of database: SQL or a function that builds it, and a change of its bytes afterwards.

    `setup` comes before the first table. `finding` is a part of what SQLite's full check reports; empty if it finds nothing.
    """

    name: str
    build: str | Build
    setup: str = ""
    patch: Callable[[bytearray], object] | None = None
    finding: str = ""

    def write(self, path: Path) -> None:
        """Create the database, with an ordinary table `keep` besides the odd part."""
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(self.setup)
            connection.execute("CREATE TABLE keep(n INTEGER PRIMARY KEY, t TEXT)")
            connection.executemany("INSERT INTO keep VALUES (?, ?)", [(n, f"row {n}" * 20) for n in range(ROWS)])
            connection.create_function("app_function", 1, lambda value: value, deterministic=True)
            connection.create_collation("app_order", lambda one, two: (one > two) - (one < two))
            if isinstance(self.build, str):
                connection.executescript(self.build)
            else:
                self.build(connection)
        if self.patch:
            content = bytearray(path.read_bytes())
            self.patch(content)
            path.write_bytes(content)


def rewritten(name: str, sql: str) -> str:
    """The result of a migration by hand that replaces the definition but not the rows."""
    return f"""
        PRAGMA writable_schema=ON;
        UPDATE sqlite_schema SET sql = '{sql.replace("'", "''")}' WHERE name = '{name}';
        PRAGMA writable_schema=RESET;
    """


def _many_columns(connection: sqlite3.Connection) -> None:
    columns = ", ".join(f"c{number}" for number in range(2100))
    connection.executescript("CREATE TABLE wide(c0); INSERT INTO wide VALUES (1)")
    connection.executescript(rewritten("wide", f"CREATE TABLE wide({columns})"))


def _put(offset: int, value: int, size: int = 4) -> Callable[[bytearray], None]:
    def patch(content: bytearray) -> None:
        content[offset : offset + size] = value.to_bytes(size, "big")

    return patch


def _unused_page(content: bytearray) -> None:
    size = int.from_bytes(content[16:18], "big")
    content += bytes(size)
    _put(28, len(content) // size)(content)


def _reserved(connection: sqlite3.Connection) -> None:
    """The first page of an empty database that reserves 32 bytes at the end of each page for the app's own checksums."""
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    connection.close()
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as empty:
        empty.execute("PRAGMA user_version=1")
    content = bytearray(path.read_bytes())
    content[20] = 32
    content[105:107] = (len(content) - 32).to_bytes(2, "big")
    path.write_bytes(content)
    with closing(sqlite3.connect(path, isolation_level=None)) as again:
        again.execute("CREATE TABLE keep(n INTEGER PRIMARY KEY, t TEXT)")
        again.executemany("INSERT INTO keep VALUES (?, ?)", [(n, "x" * 5000) for n in range(ROWS)])


def _swapped_indexes(connection: sqlite3.Connection) -> None:
    connection.executescript("""
        CREATE TABLE t(a, b); INSERT INTO t SELECT n, -n FROM keep; CREATE INDEX ia ON t(a); CREATE INDEX ib ON t(b);
    """)
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'index'"))
    connection.execute("PRAGMA writable_schema=ON")
    connection.executemany(
        "UPDATE sqlite_schema SET rootpage = ? WHERE name = ?", [(roots["ia"], "ib"), (roots["ib"], "ia")]
    )


def _broken_index(content: bytearray) -> None:
    """The index is the last b-tree of the file."""
    size = int.from_bytes(content[16:18], "big")
    content[-size] = 77


def _other_text(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a)")
    connection.executemany("INSERT INTO t VALUES (CAST(? AS TEXT))", [(b"\xff\xfe",), (b"a\x00b",), (b"\xed\xa0\x80",)])


def _index_by_app_order() -> str:
    return "CREATE TABLE t(a TEXT COLLATE app_order); INSERT INTO t SELECT t FROM keep; CREATE INDEX i ON t(a)"


FTS = "CREATE VIRTUAL TABLE f USING {0}; INSERT INTO f SELECT t FROM keep;"

ODD = (
    Odd("pages of 512 bytes", "", "PRAGMA page_size=512"),
    Odd("pages of 1024 bytes", "CREATE INDEX i ON keep(t)", "PRAGMA page_size=1024"),
    Odd("pages of 64 KiB", "CREATE INDEX i ON keep(t)", "PRAGMA page_size=65536"),
    Odd("UTF-16, little endian", "CREATE TABLE \"ä\"(a); INSERT INTO \"ä\" VALUES ('ü')", "PRAGMA encoding='UTF-16le'"),
    Odd("UTF-16, big endian", "CREATE TABLE \"ä\"(a); INSERT INTO \"ä\" VALUES ('ü')", "PRAGMA encoding='UTF-16be'"),
    Odd("schema format 1", "CREATE TABLE t(a); INSERT INTO t VALUES ('old')", patch=_put(44, 1)),
    Odd("schema format 2", "ALTER TABLE keep ADD COLUMN later", patch=_put(44, 2)),
    Odd("auto_vacuum=full", "DELETE FROM keep WHERE n > 10", "PRAGMA auto_vacuum=1"),
    Odd("auto_vacuum=incremental, free pages", "CREATE TABLE t AS SELECT * FROM keep; DROP TABLE t", "PRAGMA auto_vacuum=2"),
    Odd("free pages", "CREATE TABLE t AS SELECT * FROM keep; DROP TABLE t"),
    Odd("rollback journal mode", "", "PRAGMA journal_mode=DELETE"),
    Odd("without rowid", "CREATE TABLE t(a TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t SELECT t, n FROM keep"),
    Odd("reserved bytes", _reserved),
    Odd("application_id and user_version", "PRAGMA application_id=252006673; PRAGMA user_version=-7"),
    Odd("autoincrement", "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (9223372036854775807)"),
    Odd("statistics", "CREATE INDEX i ON keep(t); ANALYZE"),
    Odd("generated columns", "CREATE TABLE t(a, b AS (a * 2), c AS (a || 'x') STORED); INSERT INTO t SELECT n FROM keep"),
    Odd("generated by the app's function", "CREATE TABLE t(a, b AS (app_function(a)), c AS (app_function(a)) STORED); INSERT INTO t SELECT n FROM keep"),
    Odd("partial index", "CREATE INDEX i ON keep(t) WHERE n > 10"),
    Odd("partial index by the app's function", "CREATE INDEX i ON keep(t) WHERE app_function(n)", finding="app_function"),
    Odd("index on the app's function", "CREATE INDEX i ON keep(app_function(t))", finding="app_function"),
    Odd("the app's function in a constraint", "CREATE TABLE t(a CHECK (app_function(a))); INSERT INTO t VALUES (1)"),
    Odd("the app's function in a default", "CREATE TABLE t(a, b DEFAULT (app_function(1))); INSERT INTO t VALUES (1, 2)"),
    Odd("the app's function in a view and a trigger", "CREATE VIEW v AS SELECT app_function(n) FROM keep; CREATE TRIGGER r AFTER INSERT ON keep BEGIN SELECT app_function(1); END"),
    Odd("the app's collation", _index_by_app_order(), finding="app_order"),
    Odd("key in the app's order", "CREATE TABLE t(a TEXT COLLATE app_order PRIMARY KEY) WITHOUT ROWID; INSERT INTO t SELECT t FROM keep", finding="app_order"),
    Odd("the app's module", "PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING app_module(a)')"),
    Odd("the app's tokenizer", FTS.format("fts5(t)") + rewritten("f", "CREATE VIRTUAL TABLE f USING fts5(t, tokenize='app_tokens')"), finding="ended early"),
    Odd("the app's tokenizer of FTS4", FTS.format("fts4(t)") + rewritten("f", "CREATE VIRTUAL TABLE f USING fts4(t, tokenize=app_tokens)"), finding="app_tokens"),
    Odd("trigrams of a text with a zero", "CREATE VIRTUAL TABLE f USING fts5(x, tokenize='trigram'); INSERT INTO f VALUES ('abc' || char(0) || 'def ghij')", finding="inverted index"),
    Odd("stale FTS5 index", FTS.format("fts5(t)") + "UPDATE f_content SET c0 = 'other' WHERE id < 5", finding="f"),
    Odd("FTS5 without its index", FTS.format("fts5(t)") + "DELETE FROM f_data", finding="f"),
    Odd("stale FTS4 index", FTS.format("fts4(t)") + "UPDATE f_content SET c0t = 'other' WHERE docid < 5", finding="f"),
    Odd("stale FTS3 index", FTS.format("fts3(t)") + "DELETE FROM f_segdir", finding="f"),
    Odd("stale R-Tree", "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r SELECT n, n, n + 1 FROM keep; DELETE FROM r_rowid WHERE rowid < 3", finding="r"),
    Odd("R-Tree with broken nodes", "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r SELECT n, n, n + 1 FROM keep; UPDATE r_node SET data = x'00'", finding="r"),
    Odd("NULL where none may be", "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, NULL);" + rewritten("t", "CREATE TABLE t(a, b NOT NULL)"), finding="NULL value in t.b"),
    Odd("value against a constraint", "CREATE TABLE t(a CHECK (a > 0)); PRAGMA ignore_check_constraints=ON; INSERT INTO t VALUES (-1)"),  # SQLite ignores the constraints of a file that it opens read-only
    Odd("value against a type", "CREATE TABLE t(a ANY); INSERT INTO t VALUES ('x');" + rewritten("t", "CREATE TABLE t(a INTEGER) STRICT"), finding="t.a"),
    Odd("twice in a unique index", "CREATE TABLE t(a); INSERT INTO t VALUES (1), (1); CREATE INDEX i ON t(a);" + rewritten("i", "CREATE UNIQUE INDEX i ON t(a)"), finding="non-unique entry"),
    Odd("indexes of each other", _swapped_indexes, finding="missing from index"),
    Odd("broken index", "CREATE INDEX i ON keep(n)", patch=_broken_index, finding="malformed"),
    Odd("unused page", "", patch=_unused_page, finding="never used"),
    Odd("wrong number of free pages", "", patch=_put(36, 3), finding="reelist"),
    Odd("more columns than we allow", _many_columns, finding="too many columns"),
    Odd("definition that is no SQL", "CREATE TABLE t(a); INSERT INTO t VALUES (1);" + rewritten("t", "CREATE TABLE t(a,,)"), finding="malformed database schema"),
    Odd("view of a table that is gone", "CREATE TABLE t(a); CREATE VIEW v AS SELECT * FROM t; DROP TABLE t"),
    Odd("foreign key to nowhere", "CREATE TABLE t(a REFERENCES nowhere(b)); INSERT INTO t VALUES (1)"),
    Odd("table without a name", 'CREATE TABLE ""(""); INSERT INTO "" VALUES (1)'),
    Odd("names like databases", 'CREATE TABLE "main"(a); CREATE TABLE "temp.x"(a); CREATE TABLE "a""b\'c"(d); INSERT INTO "a""b\'c" VALUES (1)'),
    Odd("very long name", f'CREATE TABLE "{"long " * 3000}"(a); INSERT INTO "{"long " * 3000}" VALUES (1)'),
    Odd("large values", "CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(3000000)), (randomblob(70000))"),
    Odd("extreme numbers", "CREATE TABLE t(a REAL); INSERT INTO t VALUES (9e999), (-9e999), (9e999 - 9e999), (5e-324), (-0.0)"),
    Odd("text that is none", _other_text),
    Odd("no table but one", ""),
)  # fmt: skip
