"""What is brought back is exact whatever the tables are like, and undone exactly: random tables, built cases, search indexes."""

import random
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sidecar.errors import RowsChanged, UsageError
from tests.harness.bringing_back import connect, rows, session_of
from tests.harness.database_states import TABLES, Shape, dump, write_states

pytestmark = pytest.mark.anyio
DATA = ("insert", "update", "update many", "delete", "delete many", "clear", "away and back", "tail", "vacuum")
UNKNOWN_ROWS = 0  # rows without a key whose old hidden rowids were taken: an undo does not know them from equal ones
SWAPPED = "CREATE TABLE t(k TEXT PRIMARY KEY, a UNIQUE, b TEXT COLLATE NOCASE)"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    return tmp_path / "app.db"


async def bring_back(
    database: Path, earlier: Path, *tables: str, rows: str = "exact", triggers: bool = False, undone: bool = False
) -> None:
    """Bring tables of another file back into the database; and undo that, if it is to be `undone`."""
    async with session_of(database) as session:
        done = await session.tables(*tables, state=str(earlier)).bring_back(rows=rows, triggers=triggers)
        if undone and done.saved:
            await session.tables().undo()


@pytest.mark.parametrize("seed", range(8))
async def test_random_tables_are_exact_and_undone_exactly(database: Path, seed: int) -> None:
    chosen = random.Random(seed)
    earlier = database.with_name("earlier.db")
    shape = Shape(chosen.choice([512, 1024, 4096]), chosen.choice(["UTF-8", "UTF-16le", "UTF-16be"]), rows=40)
    kinds = list(TABLES) if seed % 2 else chosen.sample(list(TABLES), 5)
    steps = [chosen.choice(DATA) for _ in range(8)]
    write_states(earlier, database, shape, kinds, ["index", "trigger", "view"], steps, seed)
    before, wrong = dump(earlier), dump(database)
    tables = [each for each in before[0] if each != "sqlite_sequence"]
    async with session_of(database) as session:
        chosen_tables = session.tables(*tables, state=str(earlier))
        done = await chosen_tables.bring_back(rows="exact")
        found = dump(database)
        assert {name: found[0][name] for name in tables} == {name: before[0][name] for name in tables}
        assert found[1] == wrong[1]
        if seed == UNKNOWN_ROWS:
            with pytest.raises(RowsChanged):
                await session.tables().undo()
            assert dump(database) == found
            return
        if done.saved:
            await session.tables().undo()
        undone = dump(database)
        assert {name: undone[0][name] for name in tables} == {name: wrong[0][name] for name in tables}
        assert undone[1] == wrong[1]
        with suppress(UsageError):  # other rows have unique values of those that are gone
            await chosen_tables.bring_back()
    more = dump(database)[0]
    assert all(wrong[0][name] <= more[name] for name in tables)


def write(path: Path, *statements: str) -> None:
    with closing(connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_unique_values_that_were_swapped_come_back(database: Path) -> None:
    earlier = database.with_name("earlier.db")
    write(earlier, SWAPPED, "INSERT INTO t VALUES ('x', 1, 'a'), ('y', 2, 'b')")
    write(database, SWAPPED, "INSERT INTO t VALUES ('x', 2, 'a'), ('y', 1, 'B')")
    await bring_back(database, earlier, "t")
    assert rows(database, "SELECT * FROM t") == [("x", 1, "a"), ("y", 2, "b")]


async def test_rows_without_a_key_get_their_hidden_rowids_back_where_they_are_free(database: Path) -> None:
    """An index of the app's own may refer to them."""
    earlier = database.with_name("earlier.db")
    write(earlier, "CREATE TABLE t(a)", "INSERT INTO t VALUES ('a'), ('b'), ('b'), ('d')")
    write(database, "CREATE TABLE t(a)", "INSERT INTO t(rowid, a) VALUES (1, 'a'), (4, 'other')")
    wrong = rows(database, "SELECT rowid, a FROM t")
    await bring_back(database, earlier, "t", rows="missing", undone=True)
    assert rows(database, "SELECT rowid, a FROM t") == wrong
    write(database, "DELETE FROM t WHERE a = 'other'")
    await bring_back(database, earlier, "t", rows="missing")
    assert rows(database, "SELECT rowid, a FROM t") == [(1, "a"), (2, "b"), (3, "b"), (4, "d")]


async def test_missing_rows_overwrite_nothing_whatever_the_table_says(database: Path) -> None:
    earlier, table = (
        database.with_name("earlier.db"),
        "CREATE TABLE t(id INTEGER PRIMARY KEY, mail UNIQUE ON CONFLICT REPLACE)",
    )
    write(earlier, table, "INSERT INTO t VALUES (1, 'a@x')")
    write(database, table, "INSERT INTO t VALUES (2, 'a@x')")
    with pytest.raises(UsageError, match=r"other rows have their place now.*t 1: UNIQUE constraint failed: t.mail"):
        await bring_back(database, earlier, "t", rows="missing")
    assert rows(database, "SELECT * FROM t") == [(2, "a@x")]


async def test_wide_tables_and_long_values(database: Path) -> None:
    """SQLite has a bound on how deep an expression is."""
    earlier, table = database.with_name("earlier.db"), f"CREATE TABLE t({', '.join(f'c{n}' for n in range(700))})"
    write(earlier, table, "INSERT INTO t(c0, c1) VALUES (1, zeroblob(300000))", "INSERT INTO t(c0) VALUES (2)")
    write(database, table, "INSERT INTO t(c0) VALUES (1)", "INSERT INTO t(c0) VALUES (3)")
    await bring_back(database, earlier, "t", undone=True)
    assert rows(database, "SELECT c0, c1 FROM t") == [(1, None), (3, None)]


@pytest.mark.parametrize("kept", [True, False])
async def test_search_indexes_over_a_table_are_rebuilt(database: Path, *, kept: bool) -> None:
    earlier = database.with_name("earlier.db")
    index = (
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, text)",
        "CREATE VIRTUAL TABLE found USING fts5(text, content='notes', content_rowid='id')",
    )
    trigger = (
        "CREATE TRIGGER i AFTER INSERT ON notes BEGIN INSERT INTO found(rowid, text) VALUES (new.id, new.text); END"
    )
    made = (*index, trigger) if kept else index
    write(earlier, *made, "INSERT INTO notes VALUES (1, 'lost words')")
    write(database, *made, "INSERT INTO notes VALUES (2, 'other words')")
    await bring_back(database, earlier, "notes", rows="missing")
    assert rows(database, "SELECT rowid FROM found('words') ORDER BY rowid") == [(1,), (2,)]
    write(database, "INSERT INTO found(found, rank) VALUES ('integrity-check', 1)")


async def test_a_search_index_with_a_text_of_its_own_needs_its_triggers(database: Path) -> None:
    earlier = database.with_name("earlier.db")
    made = (
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, text)",
        "CREATE VIRTUAL TABLE found USING fts5(text)",
        "CREATE TRIGGER i AFTER INSERT ON notes BEGIN INSERT INTO found(rowid, text) VALUES (new.id, new.text); END",
    )
    write(earlier, *made, "INSERT INTO notes VALUES (1, 'lost words')")
    write(database, *made)
    with pytest.raises(UsageError, match="has a text of its own"):
        await bring_back(database, earlier, "notes", rows="missing")
    await bring_back(database, earlier, "notes", rows="missing", triggers=True)
    assert rows(database, "SELECT rowid FROM found('words')") == [(1,)]


VIRTUAL = {
    "fts5": ("USING fts5(text)", "(text) VALUES ({})", "SELECT rowid, * FROM v('words') ORDER BY rowid"),
    "fts5 without text": (
        "USING fts5(text, content='')",
        "(text) VALUES ({})",
        "SELECT rowid FROM v('words') ORDER BY 1",
    ),
    "fts4": ("USING fts4(text)", "(text) VALUES ({})", "SELECT docid, * FROM v WHERE v MATCH 'words' ORDER BY docid"),
    "rtree": (
        "USING rtree(id, low, high)",
        "(low, high) VALUES (length({0}), 500)",
        "SELECT id, low FROM v WHERE high > 99 ORDER BY 1",
    ),
}


async def test_an_undo_takes_no_row_that_is_merely_equal(database: Path) -> None:
    """The row that was brought back is gone again, and the app has one with the same values."""
    earlier = database.with_name("earlier.db")
    for path in (earlier, database):
        write(path, "CREATE TABLE t(v)", "INSERT INTO t(rowid, v) VALUES (1, 'a'), (2, 'a')")
    write(database, "DELETE FROM t WHERE rowid = 2")
    await bring_back(database, earlier, "t", rows="missing")
    write(database, "DELETE FROM t WHERE rowid = 2")
    async with session_of(database) as session:
        with pytest.raises(RowsChanged):
            await session.tables().undo()
    assert rows(database, "SELECT rowid, v FROM t") == [(1, "a")]


@pytest.mark.parametrize("name", ["", "u_old"])
async def test_an_undo_keeps_a_table_that_the_app_has_changed_since(database: Path, name: str) -> None:
    earlier, table = database.with_name("earlier.db"), name or "u"
    write(earlier, "CREATE TABLE u(id INTEGER PRIMARY KEY, n)", "INSERT INTO u VALUES (1, 2)")
    write(database, "CREATE TABLE other(a)")
    async with session_of(database) as session:
        await session.tables("u", state=str(earlier)).bring_back(name=name)
        write(database, f"ALTER TABLE {table} ADD COLUMN email", f"UPDATE {table} SET email = 'a@example.com'")
        with pytest.raises(RowsChanged, match="was changed since it was brought back"):
            await session.tables().undo()
    assert rows(database, f"SELECT email FROM {table}") == [("a@example.com",)]


@pytest.mark.parametrize("kind", VIRTUAL)
async def test_virtual_tables_come_back_as_a_whole(database: Path, kind: str) -> None:
    """An app that has it open, and has used it, sees that."""
    using, values, query = VIRTUAL[kind]
    earlier, insert = database.with_name("earlier.db"), f"INSERT INTO v{values}"
    made = f"CREATE VIRTUAL TABLE v {using}"
    write(earlier, made, *(insert.format(f"'lost words {'x' * n}'") for n in range(300)))
    write(database, made, *(insert.format(f"'other words {'x' * n}'") for n in range(20)))
    with closing(connect(database)) as app:
        before = app.execute(query).fetchall()
        assert len(before) == 20
        await bring_back(database, earlier, "v", undone=False)
        assert app.execute(query).fetchall() == rows(earlier, query)
        app.execute(insert.format("'more words'"))
        assert len(app.execute(query).fetchall()) == 301
        if "fts" in kind:
            app.execute("INSERT INTO v(v) VALUES ('integrity-check')")
        assert app.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("now", "table", "wish", "refusal"),
    [
        ("fts5(text)", "v", "missing", "is a virtual table, which is brought back as a whole .*--rows exact"),
        ("fts5(text)", "v_content", "exact", "v_content holds the content of the virtual table v .bring back v itself"),
        ("fts5(text, tokenize=porter)", "v", "exact", "is gone, or is not defined as it was"),
        ("fts5(other, text)", "v", "exact", "is gone, or is not defined as it was"),
        (None, "v", "exact", "is gone, or is not defined as it was"),
        ("fts5(text, content='t')", "v", "exact", "takes its text from t .bring back t"),
    ],
)
async def test_virtual_tables_that_cannot_come_back(
    database: Path, now: str | None, table: str, wish: str, refusal: str
) -> None:
    earlier, insert = database.with_name("earlier.db"), "INSERT INTO v(text) VALUES ('words')"
    write(database, *([f"CREATE VIRTUAL TABLE v USING {now}"] if now else ["CREATE TABLE t(a)"]))
    source = "content='t'" in (now or "")
    write(earlier, f"CREATE VIRTUAL TABLE v USING {now if source else 'fts5(text)'}", insert)
    with pytest.raises(UsageError, match=refusal):
        await bring_back(database, earlier, table, rows=wish)


async def test_what_a_module_of_the_app_stores_is_left_to_it(database: Path) -> None:
    """A table of the app that begins with the same name would be overwritten."""
    for path in (earlier := database.with_name("earlier.db"), database):
        write(path, "CREATE VIRTUAL TABLE v USING fts5(text)", "CREATE TABLE v_notes(a)", "PRAGMA writable_schema = ON")
        write(
            path,
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET sql = replace(sql, 'fts5', 'apps') WHERE name = 'v'",
        )
    write(earlier, "INSERT INTO v_notes VALUES (1)")
    with pytest.raises(UsageError, match="which tables v stores its content in is known to its module alone"):
        await bring_back(database, earlier, "v")


@pytest.mark.parametrize("index", ["t(a COLLATE ours)", "t(ours(a))", "t(a) WHERE ours(a) > 0"])
async def test_indexes_with_something_of_the_app_are_refused(database: Path, index: str) -> None:
    for path in (earlier := database.with_name("earlier.db"), database):
        with closing(connect(path)) as app:
            app.create_collation("ours", lambda one, other: (one > other) - (one < other))
            app.create_function("ours", 1, lambda _: 1, deterministic=True)
            app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            app.execute(f"CREATE INDEX i ON {index}")
            if path == earlier:
                app.execute("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(UsageError, match=r"something of the app's own: (no such|unknown) .*diff --sql"):
        await bring_back(database, earlier, "t")


async def test_functions_that_the_app_has_replaced_are_noticed(database: Path) -> None:
    """An index on lower() where the app's lower() is another one: what we would write into it would never be found."""
    for path in (earlier := database.with_name("earlier.db"), database):
        with closing(connect(path)) as app:
            app.create_function("lower", 1, lambda value: str(value).swapcase(), deterministic=True)
            app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            app.execute("CREATE INDEX i ON t(lower(a))")
            app.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
            if path == earlier:
                app.execute("INSERT INTO t VALUES (3, 'c')")
    with pytest.raises(UsageError, match="is not as SQLite's own functions would have it"):
        await bring_back(database, earlier, "t")
