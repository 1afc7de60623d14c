"""Two states of a random database, for whoever compares them: tables of many kinds, and steps that change them.

A step that SQLite refuses is left out. Nothing but the seed decides what is written.
"""

import random
import shutil
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.database import default_driver

LIBRARY: Any = default_driver()._module
Dump = tuple[dict[str, Counter[tuple[Any, ...]]], dict[tuple[str, str], str]]

TABLES = {
    "plain": "(id INTEGER PRIMARY KEY, a, b TEXT, c REAL, d BLOB)",
    "sequence": "(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b TEXT UNIQUE, c REAL, d BLOB)",
    "text key": "(k TEXT PRIMARY KEY, a, c FLOAT, d)",
    "two keys": "(x, y TEXT COLLATE NOCASE, a NUMERIC, d, PRIMARY KEY(y, x))",
    "no key": "(a, b TEXT, c DOUBLE, d)",
    "without rowid": "(k TEXT PRIMARY KEY, a, c REAL, d) WITHOUT ROWID",
    "descending": "(a, x INT, y TEXT COLLATE NOCASE, d, PRIMARY KEY(y DESC, x)) WITHOUT ROWID",
    "trimmed": "(k TEXT COLLATE RTRIM PRIMARY KEY, a, d) WITHOUT ROWID",
    "generated": "(id INTEGER PRIMARY KEY, a, v AS (a || 'v') VIRTUAL, b, s TEXT AS (b || 's') STORED, c REAL, d)",
    "strict": "(id INTEGER PRIMARY KEY, a ANY, b TEXT, c REAL, d BLOB) STRICT",
    "any case": "(k TEXT COLLATE NOCASE PRIMARY KEY, a TEXT COLLATE NOCASE, d)",
    "no alias": "(id INTEGER PRIMARY KEY DESC, a, c REAL, d)",
    "large": "(id INTEGER PRIMARY KEY, d BLOB, a)",
    "hidden rowid": "(rowid TEXT, a, d)",
}
STEPS = (
    "insert", "insert", "insert many", "update", "update", "update many", "delete", "delete many", "clear", "away and back",
    "tail", "tail", "add column", "rename column", "rename table", "drop column", "drop table", "create table", "index",
    "drop index", "trigger", "view", "vacuum", "page size", "incremental vacuum", "words", "boxes", "rewrite words",
    "version",
)  # fmt: skip
WORDS, BOXES = "CREATE VIRTUAL TABLE words USING fts5(x)", "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)"


@dataclass(frozen=True, slots=True)
class Shape:
    """How the database is made."""

    page_size: int = 1024
    encoding: str = "UTF-8"
    auto_vacuum: int = 0
    secure_delete: bool = False
    virtual: tuple[str, ...] = ()
    rows: int = 100


def name(text: str) -> str:
    """A name as SQL."""
    return '"' + text.replace('"', '""') + '"'


def connect(path: Path) -> Any:
    connection = LIBRARY.connect(str(path), isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    return connection


class Author:
    """Writes into a database whatever the seed decides."""

    def __init__(self, connection: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self._connection = connection
        connection.create_function("chance", 1, lambda _: self.random.getrandbits(30))

    def run(self, sql: str, values: Sequence[object] = ()) -> bool:
        try:
            self._connection.execute(sql, values)
        except (LIBRARY.IntegrityError, LIBRARY.OperationalError, LIBRARY.DataError) as error:
            if "malformed" in str(error):
                raise
            return False
        return True

    def tables(self) -> list[str]:
        hidden = "name NOT LIKE 'sqlite~_%' ESCAPE '~' AND name NOT LIKE 'words~_%' ESCAPE '~' AND name NOT LIKE 'boxes~_%' ESCAPE '~'"
        found = f"SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND {hidden}"
        return [row[0] for row in self._connection.execute(found)]

    def columns(self, table: str) -> list[tuple[str, str, bool]]:
        info = self._connection.execute(f"PRAGMA table_xinfo({name(table)})")
        return [(row[1], row[2].upper(), bool(row[5])) for row in info if row[6] == 0]

    def value(self, *, large: bool = True) -> Any:
        pick, r = self.random.random(), self.random
        if pick < 0.08:
            return None
        if pick < 0.3:
            return r.choice(
                [0, 1, -1, 2, 127, 128, 32768, -32769, 2**31, 2**47, 2**63 - 1, -(2**63), r.randrange(-(10**6), 10**6)]
            )
        if pick < 0.45:
            return r.choice(
                [0.0, -0.0, 1.0, 1.5, 1e300, 5e-324, float("inf"), float("-inf"), 0.1, 0.1 + 0.2, r.random(), 1e16]
            )
        if pick < 0.75:
            words = [
                "",
                "a",
                "A",
                "a ",
                "it's",
                "naïve ☃ 𝄞",
                "x\0y",
                "line\nline",
                "\x1b[31mred",
                "\u202eevil",
                str(r.randrange(1000)),
            ]
            return r.choice([*words, "word " * r.randrange(1, 30)])
        if pick < 0.9 or not large:
            return r.choice([b"", b"\0", r.randbytes(r.randrange(1, 60))])
        return r.randbytes(r.randrange(500, 9000)) if r.random() < 0.7 else "long " * r.randrange(200, 3000)

    def fill(self, table: str, count: int) -> None:
        columns = self.columns(table)
        names, marks = ", ".join(name(each) for each, _, _ in columns), ", ".join("?" * len(columns))
        for _ in range(count):
            values = [self._value_for(kind, is_key=is_key) for _, kind, is_key in columns]
            self.run(f"INSERT OR IGNORE INTO {name(table)}({names}) VALUES ({marks})", values)
        if self.random.random() < 0.2:  # text that is not valid
            at = self.random.choice(columns)[0]
            self.run(
                f"UPDATE OR IGNORE {name(table)} SET {name(at)} = CAST(X'41ff42' AS TEXT) WHERE chance(1) % 40 = 0"
            )

    def _value_for(self, kind: str, *, is_key: bool) -> Any:
        if is_key and "INT" in kind:
            return None if self.random.random() < 0.5 else self.random.randrange(1, 10 ** self.random.randrange(2, 9))
        return self.value(large=not is_key)

    def step(self, step: str) -> None:
        """One change, if it is possible."""
        tables = self.tables()
        if not tables:
            return
        table = self.random.choice(tables)
        others = [each for each, _, is_key in self.columns(table) if not is_key]
        getattr(self, "_" + step.replace(" ", "_"))(table, others)

    def _some(self, table: str, count: int) -> str:
        """A condition that a few rows meet."""
        first = name(self.columns(table)[0][0])
        return f"{first} IN (SELECT {first} FROM {name(table)} ORDER BY chance(1) LIMIT {count})"

    def _insert(self, table: str, _: list[str]) -> None:
        self.fill(table, self.random.choice([1, 3]))

    def _insert_many(self, table: str, _: list[str]) -> None:
        self.fill(table, 60)

    def _update(self, table: str, others: list[str], count: int = 0) -> None:
        if others:
            column, count = self.random.choice(others), count or self.random.choice([1, 1, 5])
            self.run(
                f"UPDATE OR IGNORE {name(table)} SET {name(column)} = ? WHERE {self._some(table, count)}",
                [self.value()],
            )

    def _update_many(self, table: str, others: list[str]) -> None:
        self._update(table, others, 40)

    def _delete(self, table: str, _: list[str]) -> None:
        self.run(f"DELETE FROM {name(table)} WHERE {self._some(table, self.random.choice([1, 3]))}")

    def _delete_many(self, table: str, _: list[str]) -> None:
        self.run(f"DELETE FROM {name(table)} WHERE {self._some(table, 50)}")

    def _clear(self, table: str, _: list[str]) -> None:
        self.run(f"DELETE FROM {name(table)}")

    def _away_and_back(self, table: str, _: list[str]) -> None:
        names = ", ".join(name(each) for each, _, _ in self.columns(table))
        self.run(f"CREATE TEMP TABLE kept AS SELECT {names} FROM {name(table)}")
        self.run(f"DELETE FROM {name(table)}")
        self.run(f"INSERT OR IGNORE INTO {name(table)}({names}) SELECT {names} FROM temp.kept")
        self.run("DROP TABLE temp.kept")

    def _tail(self, table: str, others: list[str]) -> None:
        """Other values of the same length: SQLite writes their overflow pages in place."""
        for column, kind in ((each, kind) for each in others for kind in ("blob", "text")):
            at = name(column)
            value = f"CAST(substr({at}, 1, length({at}) - 2) || '{self.random.choice(['qq', 'zz'])}' AS {kind})"
            self.run(
                f"UPDATE {name(table)} SET {at} = {value} WHERE typeof({at}) = '{kind}' AND length({at}) > 600 AND chance(1) % 3"
            )

    def _add_column(self, table: str, _: list[str]) -> None:
        kind = self.random.choice(["", "TEXT", "INT", "REAL"])
        default = self.random.choice(["", "DEFAULT 7", "DEFAULT 2.5", "DEFAULT 'x'", 'DEFAULT "x"', "DEFAULT x"])
        self.run(f"ALTER TABLE {name(table)} ADD COLUMN n{self.random.randrange(99)} {kind} {default}")

    def _rename_column(self, table: str, _: list[str]) -> None:
        column = self.random.choice(self.columns(table))[0]
        self.run(f"ALTER TABLE {name(table)} RENAME COLUMN {name(column)} TO r{self.random.randrange(99)}")

    def _rename_table(self, table: str, _: list[str]) -> None:
        self.run(f"ALTER TABLE {name(table)} RENAME TO t{self.random.randrange(100, 999)}")

    def _drop_column(self, table: str, others: list[str]) -> None:
        if len(others) > 1:
            self.run(f"ALTER TABLE {name(table)} DROP COLUMN {name(self.random.choice(others))}")

    def _drop_table(self, table: str, _: list[str]) -> None:
        self.run(f"DROP TABLE {name(table)}")

    def _create_table(self, _table: str, _: list[str]) -> None:
        new = f"t{self.random.randrange(20, 60)}"
        if self.run(f"CREATE TABLE {new}{self.random.choice(list(TABLES.values()))}"):
            self.fill(new, 20)

    def _index(self, table: str, _: list[str]) -> None:
        column, unique = self.random.choice(self.columns(table))[0], self.random.choice(["", "UNIQUE"])
        self.run(f"CREATE {unique} INDEX i{self.random.randrange(9)} ON {name(table)}({name(column)})")

    def _drop_index(self, _table: str, _: list[str]) -> None:
        found = self._connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        if found:
            self.run(f"DROP INDEX {name(self.random.choice(found)[0])}")

    def _trigger(self, table: str, _: list[str]) -> None:
        self.run("CREATE TABLE IF NOT EXISTS audit(what)")
        body = "INSERT INTO audit(what) VALUES (old.rowid)"
        self.run(f"CREATE TRIGGER g{self.random.randrange(3)} AFTER UPDATE ON {name(table)} BEGIN {body}; END")

    def _view(self, table: str, _: list[str]) -> None:
        self.run("DROP VIEW IF EXISTS v1")
        self.run(f"CREATE VIEW v1 AS SELECT count(*) FROM {name(table)}")

    def _vacuum(self, _table: str, _: list[str]) -> None:
        self.run("VACUUM")

    def _page_size(self, _table: str, _: list[str]) -> None:
        self.run(f"PRAGMA page_size = {self.random.choice([512, 1024, 4096])}")
        self.run("VACUUM")

    def _incremental_vacuum(self, _table: str, _: list[str]) -> None:
        self.run("PRAGMA incremental_vacuum(20)")

    def _words(self, _table: str, _: list[str]) -> None:
        self.run("INSERT INTO words(x) VALUES (?)", [f"some words {self.random.random()}"])
        self.run("DELETE FROM words WHERE rowid % 7 = 1")

    def _boxes(self, _table: str, _: list[str]) -> None:
        for _row in range(20):
            self.run(
                "INSERT OR REPLACE INTO boxes VALUES (?, 1, ?)",
                [self.random.randrange(300), self.random.randrange(2, 99)],
            )

    def _version(self, _table: str, _: list[str]) -> None:
        self.run(f"PRAGMA user_version = {self.random.choice([-1, 7, 2**31 - 1])}")
        self.run(f"PRAGMA application_id = {self.random.choice([-9, 1])}")

    def _rewrite_words(self, _table: str, _: list[str]) -> None:
        if self.run("DROP TABLE words"):
            self.run("CREATE VIRTUAL TABLE words USING fts5(x, tokenize = 'porter')")
            self.run("INSERT INTO words(x) VALUES ('other words')")


def write_states(
    before: Path,
    after: Path,
    shape: Shape,
    kinds: Sequence[str],
    earlier: Sequence[str],
    later: Sequence[str],
    seed: int,
) -> None:
    """Write the earlier state, and the later one that the steps `later` make of it."""
    with closing(connect(before)) as connection:
        for setting, value in (
            ("page_size", shape.page_size),
            ("encoding", f"'{shape.encoding}'"),
            ("auto_vacuum", shape.auto_vacuum),
        ):
            connection.execute(f"PRAGMA {setting} = {value}")
        connection.execute(f"PRAGMA secure_delete = {int(shape.secure_delete)}")
        author = Author(connection, seed)
        for number, kind in enumerate(kinds):
            table = author.random.choice([f"t{number}", f'we ird"{number}'])
            author.run(f"CREATE TABLE {name(table)}{TABLES[kind]}")
        for statement in shape.virtual:
            author.run(statement)
        connection.execute("BEGIN")
        for table in author.tables():
            author.fill(table, author.random.choice([0, 5, shape.rows, shape.rows]))
        for step in ("words", "boxes"):
            author.step(step)
        connection.execute("COMMIT")
        for step in earlier:
            author.step(step)
    shutil.copy(before, after)
    with closing(connect(after)) as connection:
        connection.execute(f"PRAGMA secure_delete = {int(shape.secure_delete)}")
        author = Author(connection, seed + 1)
        for step in later:
            author.step(step)


def dump(path: Path) -> Dump:
    """All rows, typed and byte for byte, and the schema. Asserts that SQLite finds the file in order."""
    with closing(LIBRARY.connect(str(path))) as connection:
        connection.text_factory = bytes
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == b"ok"
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0").fetchall()
        rows = {table.decode(): _rows(connection, table.decode()) for (table,) in tables}
        written = (
            "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        )
        numbers = {
            ("number", each): str(connection.execute(f"PRAGMA {each}").fetchone()[0])
            for each in ("user_version", "application_id")
        }
        schema = numbers | {
            (kind.decode(), each.decode()): sql.decode() for kind, each, sql in connection.execute(written)
        }
    return {table: found for table, found in rows.items() if table != "sqlite_sequence" or found}, schema


def _rows(connection: Any, table: str) -> Counter[tuple[Any, ...]]:
    columns = [row[1].decode() for row in connection.execute(f"PRAGMA table_xinfo({name(table)})") if row[6] in {0, 3}]
    parts = [
        f"typeof({c}), CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END" for c in map(name, columns)
    ]
    found: Counter[tuple[Any, ...]] = Counter()
    for row in connection.execute(f"SELECT {', '.join(parts)} FROM {name(table)}"):
        found[tuple(struct.pack(">d", each) if isinstance(each, float) else each for each in row)] += 1
    return found


def apply(statements: Sequence[str], path: Path) -> None:
    """Run a patch."""
    with closing(connect(path)) as connection:
        for statement in statements:
            try:
                connection.execute(statement)
            except LIBRARY.Error as error:
                raise AssertionError(f"{error}: {statement[:300]}") from error
