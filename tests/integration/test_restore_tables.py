"""Some tables are restored to a new database: exact, with what belongs to them, and without fetching the others."""

import random
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

import sidecar
from sidecar.errors import DatabaseBusy, UsageError
from sidecar.repository.chunks import Chunks
from tests.harness.database_states import LIBRARY, TABLES, Author, connect, dump, name

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    return tmp_path / "app.db"


@pytest.fixture
async def session(database: Path) -> AsyncIterator[sidecar.Sidecar]:
    with closing(connect(database)) as app:
        app.execute("CREATE TABLE customers(id INTEGER PRIMARY KEY, name)")
        app.execute("CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, customer REFERENCES customers, total)")
        app.execute("CREATE INDEX by_total ON orders(total)")
        app.execute("CREATE TRIGGER counted AFTER INSERT ON orders BEGIN UPDATE customers SET name = 1; END")
        app.execute("INSERT INTO customers VALUES (1, 'Ada')")
        app.executemany("INSERT INTO orders VALUES (?, 1, ?)", [(1, 1.0), (2, float("inf")), (9, b"x\0")])
        app.execute("DELETE FROM orders WHERE id = 9")
    async with sidecar.open(databases=[database], store=f"file://{database.parent}/store") as session:
        await session.backup()
        yield session


async def test_a_table_comes_with_its_indexes_triggers_and_sequence(session: sidecar.Sidecar, database: Path) -> None:
    with closing(connect(database)) as app:
        app.execute("DELETE FROM orders")
    output = database.with_name("old.db")
    restored = await session.tables("orders").restore(output)
    assert (restored.tables, restored.path, restored.kept) == (("orders",), output, None)
    with closing(connect(output)) as old:
        assert old.execute("SELECT id, total FROM orders").fetchall() == [(1, 1.0), (2, float("inf"))]
        assert [each[0] for each in old.execute("SELECT name FROM sqlite_schema ORDER BY rowid")] == [
            "orders", "sqlite_sequence", "by_total", "counted",
        ]  # fmt: skip
        assert old.execute("SELECT * FROM sqlite_sequence").fetchall() == [("orders", 9)]
        assert old.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert output.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in database.parent.iterdir() if "sidecar-restore" in each.name] == []


async def test_rows_of_a_table_without_a_key_keep_their_rowids(session: sidecar.Sidecar, database: Path) -> None:
    with closing(connect(database)) as app:
        app.execute("CREATE TABLE log(line)")
        app.executemany("INSERT INTO log(rowid, line) VALUES (?, 'x')", [(-3,), (7,), (2**63 - 1,)])
    await session.backup()
    await session.tables("log").restore(database.with_name("old.db"))
    with closing(connect(database.with_name("old.db"))) as old:
        assert old.execute("SELECT rowid FROM log").fetchall() == [(-3,), (7,), (2**63 - 1,)]


async def test_virtual_tables_come_with_what_they_store(session: sidecar.Sidecar, database: Path) -> None:
    with closing(connect(database)) as app:
        app.execute("CREATE VIRTUAL TABLE notes USING fts5(text)")
        app.execute("CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)")
        app.executemany("INSERT INTO notes VALUES (?)", [(f"word {n}",) for n in range(50)])
        app.executemany("INSERT INTO boxes VALUES (?, ?, 999)", [(n, n) for n in range(200)])
    await session.backup()
    await session.tables("notes", "orders", "boxes").restore(database.with_name("old.db"))
    with closing(connect(database.with_name("old.db"))) as old:
        assert old.execute("SELECT count(*) FROM notes('word')").fetchall() == [(50,)]
        assert old.execute("SELECT count(*) FROM boxes WHERE low >= 150").fetchall() == [(50,)]
        assert old.execute("SELECT count(*) FROM orders").fetchall() == [(2,)]
        old.execute("INSERT INTO notes(notes) VALUES ('integrity-check')")
        assert old.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_what_is_refused_changes_nothing(session: sidecar.Sidecar, database: Path) -> None:
    output = database.with_name("old.db")
    with pytest.raises(UsageError, match="has no table order "):
        await session.tables("order").restore(output)
    assert not output.exists()
    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        await session.tables("orders").restore(output)
    with pytest.raises(UsageError, match="whole database"):
        await session.tables("orders").restore(database, force=True)
    assert output.read_bytes() == b"mine"


async def test_an_existing_file_is_kept_and_never_replaced_while_it_is_open(
    session: sidecar.Sidecar, database: Path
) -> None:
    output = database.with_name("old.db")
    with closing(connect(output)) as reader:
        reader.execute("CREATE TABLE mine(a)")
        with pytest.raises(DatabaseBusy):
            await session.tables("orders").restore(output, force=True)
    restored = await session.tables("orders").restore(output, force=True)
    assert restored.kept is not None
    with closing(connect(restored.kept)) as kept:
        assert kept.execute("SELECT name FROM sqlite_schema").fetchall() == [("mine",)]


async def test_tables_that_need_something_of_the_app_are_refused(session: sidecar.Sidecar, database: Path) -> None:
    with closing(connect(database)) as app:
        app.create_collation("ours", lambda one, other: (one > other) - (one < other))
        app.execute("CREATE TABLE odd(a COLLATE ours UNIQUE)")
    await session.backup()
    with pytest.raises(UsageError, match="no such collation sequence: ours"):
        await session.tables("odd").restore(database.with_name("old.db"))
    assert not database.with_name("old.db").exists()


async def test_only_the_chunks_of_the_tables_are_fetched(
    session: sidecar.Sidecar, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(database)) as app:
        app.execute("CREATE TABLE large(a)")
        app.executemany("INSERT INTO large VALUES (?)", [(random.Random(n).randbytes(100_000),) for n in range(60)])
    await session.backup()
    fetched = set[int]()
    fetch = Chunks.fetch

    async def count(self: Chunks, chunks: list[int], keep: object) -> None:
        fetched.update(chunks)
        await fetch(self, chunks, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(Chunks, "fetch", count)
    await session.tables("orders").restore(database.with_name("old.db"))
    assert len(fetched) <= 2


@pytest.mark.parametrize("seed", range(4))
async def test_tables_of_every_kind_are_exact(database: Path, seed: int) -> None:
    encoding = ("UTF-8", "UTF-16le", "UTF-16be")[seed % 3]
    with closing(connect(database)) as app:
        app.execute(f"PRAGMA encoding = '{encoding}'")
        author = Author(app, seed)
        for kind, columns in TABLES.items():
            app.execute(f"CREATE TABLE {name(kind)}{columns}")
        for _ in range(60):
            author.step("insert")
    async with sidecar.open(databases=[database], store=f"file://{database.parent}/store", sqlite=LIBRARY) as session:
        await session.backup()
        await session.tables(*TABLES).restore(database.with_name("old.db"))
    assert dump(database.with_name("old.db")) == dump(database)
