"""A row is found by its key as SQLite finds it, whatever its table is like."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.compare.files import opened_file
from sidecar.compare.lookup import find_row, key_of_text, text_of_key
from sidecar.compare.opening import Named, Opened
from sidecar.database import default_driver
from sidecar.errors import UsageError
from tests.harness.database_states import connect

TABLES = {
    "alias": ("id INTEGER PRIMARY KEY, v", "", "id"),
    "descending": ("id INTEGER PRIMARY KEY DESC, v", "", "id"),
    "text": ("v, id TEXT PRIMARY KEY", "", "id"),
    "nocase": ("id TEXT COLLATE NOCASE PRIMARY KEY, v", "", "id"),
    "indexed": ("x UNIQUE, id BLOB PRIMARY KEY, v, y UNIQUE", "", "id"),
    "double": ("a REAL, v, b TEXT, PRIMARY KEY(b, a)", "", "b, a"),
    "without": ("a TEXT, b INT, v, PRIMARY KEY(a DESC, b)", "WITHOUT ROWID", "a, b"),
    "own": ("id TEXT COLLATE mine PRIMARY KEY, v", "", "id"),
}


def fill(path: Path, encoding: str, page_size: int) -> None:
    numbers = random.Random(7)
    with closing(connect(path)) as db:
        db.create_collation("mine", lambda one, other: (one < other) - (one > other))
        db.execute(f"PRAGMA encoding = '{encoding}'")
        db.execute(f"PRAGMA page_size = {page_size}")
        for name, (columns, options, _) in TABLES.items():
            db.execute(f"CREATE TABLE {name}({columns}) {options}")
            for number in range(250):
                value, filler = numbers.randrange(10**6), "é" * numbers.randrange(60)
                if name in {"double", "without"}:
                    db.execute(f"INSERT INTO {name}(a, b, v) VALUES (?, ?, ?)", (number % 50, value, filler))
                    continue
                key = {"alias": value, "descending": value, "indexed": f"{value}".encode()}.get(name, f"Kä{value}")
                db.execute(f"INSERT OR IGNORE INTO {name}(id, v) VALUES (?, ?)", (key, filler))


@pytest.mark.parametrize(("encoding", "page_size"), [("UTF-8", 512), ("UTF-16le", 1024)])
def test_every_row_is_found_by_its_key_and_no_other_one(tmp_path: Path, encoding: str, page_size: int) -> None:
    path = tmp_path / "t.db"
    fill(path, encoding, page_size)
    with closing(connect(path)) as db, opened_file(path) as state:
        db.create_collation("mine", lambda one, other: (one < other) - (one > other))
        opened = Opened.of(default_driver(), Named("t", state))
        for name, (_, _, key) in TABLES.items():
            table = opened.schema.tables[name]
            rows = db.execute(f"SELECT {key}, {', '.join(table.names)} FROM {name}").fetchall()
            assert len(rows) > 200
            for row in rows[:: 40 if name == "own" else 1]:
                wanted, found = row[: len(table.key)], row[len(table.key) :]
                assert find_row(opened.image, opened.entries, table, wanted) == found
                assert key_of_text(text_of_key(wanted), table) == wanted
            missing = tuple(b"none" if name == "indexed" else "none" for _ in table.key)
            assert find_row(opened.image, opened.entries, table, missing) is None


def test_a_key_is_read_as_the_column_stores_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.db")) as db:
        db.execute("CREATE TABLE t(a INT, b TEXT, c REAL, d BLOB, PRIMARY KEY(a, b, c, d))")
        db.execute("CREATE TABLE n(v)")
        db.execute("CREATE TABLE s(id TEXT PRIMARY KEY)")
    with opened_file(tmp_path / "t.db") as state:
        tables = Opened.of(default_driver(), Named("t", state)).schema.tables
    assert key_of_text("17,17,17,X'17'", tables["t"]) == (17, "17", 17.0, b"\x17")
    assert key_of_text('["x", "a,b", 1, {"$base64": "Fw=="}]', tables["t"]) == ("x", "a,b", 1, b"\x17")
    assert key_of_text("a,b", tables["s"]) == ("a,b",)
    assert key_of_text("[", tables["s"]) == ("[",)
    with pytest.raises(UsageError, match="is not a key of t, which has 4 columns"):
        key_of_text("17", tables["t"])
    with pytest.raises(UsageError, match="n has no primary key"):
        key_of_text("17", tables["n"])
