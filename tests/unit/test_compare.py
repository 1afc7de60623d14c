"""Comparisons that are hard to meet at random, each built on purpose."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.compare.fileformat import INTERIOR, Header, Malformed, decode_record, text_decoder
from sidecar.compare.files import opened_file
from sidecar.compare.image import Image
from sidecar.compare.options import Options
from sidecar.compare.whole import Merge, NotMerged
from sidecar.errors import DamagedDatabase, DatabaseBusy, UsageError
from tests.harness.comparing import Outcome, compare_files
from tests.harness.database_states import apply, connect, dump
from tests.soak.rounds import require_export

Write = Callable[[Any], object]


@pytest.fixture
def compared(tmp_path: Path) -> "Compared":
    return Compared(tmp_path)


class Compared:
    """Writes two states, and compares them."""

    def __init__(self, directory: Path) -> None:
        self.before, self.after = directory / "before.db", directory / "after.db"

    def __call__(self, first: Write, then: Write, options: Options | None = None) -> Outcome:
        with closing(connect(self.before)) as connection:
            first(connection)
        shutil.copy(self.before, self.after)
        with closing(connect(self.after)) as connection:
            then(connection)
        return compare_files(self.before, self.after, options)


def script(*statements: str) -> Write:
    return lambda connection: [connection.execute(each) for each in statements]


def root_of(path: Path, table: str) -> int:
    with closing(connect(path)) as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])


def depth(path: Path, table: str) -> int:
    """The levels of a table's b-tree."""
    with opened_file(path) as state:
        image, page, levels = Image(state, Header.parse(state.read(0, 100))), root_of(path, table), 1
        while image.kind(page) in INTERIOR:
            page, levels = image.page(page).children[0], levels + 1
    return levels


def test_a_long_value_written_in_place_far_from_its_row_is_found(compared: Compared) -> None:
    """The page with the row is the same, and in another chunk than the overflow page that differs: only reading tables finds it."""
    first = script(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, d BLOB)", "INSERT INTO t VALUES (1, zeroblob(5 << 18)), (2, 'x')"
    )
    found = compared(first, script("UPDATE t SET d = CAST(substr(d, 1, (5 << 18) - 1) || x'01' AS BLOB) WHERE id = 1"))
    assert found.counts() == {"t": (1, 1)}
    assert found.tables["t"].how == "pages"


def test_a_b_tree_that_loses_a_level_hides_no_row_and_shows_no_other(compared: Compared) -> None:
    """Interior pages that are the same in both have another parent now: what is below them is compared on neither side.

    The pages that are free now are as they were: what is below those is compared, although no image differs.
    """
    before, after = compared.before, compared.after
    with closing(connect(before)) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        connection.execute("CREATE TABLE other(id INTEGER PRIMARY KEY)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t(a) VALUES (?)", [("x" * 390,)] * 5000)
        connection.execute("COMMIT")
    assert depth(before, "t") == 4
    left = 5000
    shutil.copy(before, after)
    while depth(after, "t") == 4:
        left -= 200
        with closing(connect(after)) as connection:
            connection.execute("DELETE FROM t WHERE id > ?", (left,))
    found = compare_files(before, after)
    assert found.counts() == {"t": (0, 5000 - left)}
    assert found.tables["t"].how == "pages"


def test_tables_that_look_alike_are_told_apart(compared: Compared) -> None:
    """Their pages could be of either; only looking for them in both b-trees tells."""
    names = ("one", "other", "third")

    def first(connection: Any) -> None:
        for table in names:
            connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, a)")
        connection.execute("BEGIN")
        for number in range(3000):
            for table in names:
                connection.execute(
                    f"INSERT INTO {table} VALUES (?, 'text of some length, so that there are many pages')", (number,)
                )
        connection.execute("COMMIT")

    found = compared(first, script(*(f"UPDATE {table} SET a = 1 WHERE id % 1000 = 7" for table in names)))
    assert found.counts() == dict.fromkeys(names, (3, 3))
    assert {each.how for each in found.tables.values()} == {"pages"}


def test_a_table_that_was_renamed_and_got_a_column_is_the_same_table(compared: Compared) -> None:
    """As a migration does it; with an index and a reference to the table. Only the row that changed differs."""
    found = compared(
        script(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, CHECK (a > 0)) STRICT",
            "CREATE TABLE u(id INTEGER PRIMARY KEY, t INT REFERENCES t(id))",
            "CREATE INDEX i ON t(a)",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ),
        script(
            "ALTER TABLE t ADD COLUMN n TEXT DEFAULT 'x'",
            "ALTER TABLE t RENAME TO notes",
            "UPDATE notes SET n = 'y' WHERE id = 2",
        ),
    )
    assert [(each.kind, each.object, each.name) for each in found.schema][:2] == [
        ("renamed", "table", "notes"),
        ("added", "column", "n"),
    ]
    assert found.counts() == {"notes": (1, 1)}
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)


def test_a_row_that_is_older_than_a_column_has_its_default(compared: Compared) -> None:
    """It is written anew, with the same value: nothing differs."""
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) INSERT INTO t SELECT i, i FROM n"
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", rows, "ALTER TABLE t ADD COLUMN n DEFAULT 7.5")
    found = compared(
        first,
        script("UPDATE t SET a = a || ''", "UPDATE t SET a = CAST(a AS INTEGER)", "UPDATE t SET n = 8 WHERE id = 3"),
    )
    (change,) = found.changes["t"]
    assert (change.before, change.after) == ((3, 3, 7.5), (3, 3, 8))


@pytest.mark.parametrize(
    "column",
    [
        'TEXT DEFAULT "no"',
        "DEFAULT no",
        '"of any (sort" DEFAULT 5',
        "VARCHAR(9) DEFAULT 1e3",
        "DECIMAL(9, 2) DEFAULT -0.0",
    ],
)
def test_the_default_of_an_older_row_is_what_sqlite_reads(compared: Compared, column: str) -> None:
    """In quotes of either kind or without, with any text as a type, and without the detour by a number."""
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    found = compared(first, script(f"ALTER TABLE t ADD COLUMN x {column}", "INSERT INTO t(id) SELECT 2"))
    assert found.counts() == {"t": (1, 0)}
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)
    require_export(compared.after, compared.after.with_name("exported.db"))


def test_a_computed_default_is_no_difference(compared: Compared) -> None:
    """Of a column that came with a new table, because ALTER TABLE adds none."""
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    then = ("CREATE TABLE n(id INTEGER PRIMARY KEY, x DEFAULT (1 + 1))", "INSERT INTO n(id) SELECT id FROM t")
    found = compared(first, script(*then, "DROP TABLE t", "ALTER TABLE n RENAME TO t"))
    assert not found.counts()


def rebuilt(columns: str, *changes: str) -> Write:
    """The table t is made anew with other columns, as the documentation of SQLite says, after some changes."""
    return script(
        *changes,
        f"CREATE TABLE n({columns})",
        "INSERT INTO n SELECT * FROM t",
        "DROP TABLE t",
        "ALTER TABLE n RENAME TO t",
    )


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        ("id INTEGER PRIMARY KEY, a UNIQUE", "DELETE FROM t WHERE id = 2"),
        ("id INTEGER PRIMARY KEY, a UNIQUE", "UPDATE t SET a = 'y' WHERE id = 2"),
        ("id INTEGER PRIMARY KEY, a CHECK (a <> 'x')", "UPDATE t SET a = id WHERE a = 'x'"),
        ("id INTEGER PRIMARY KEY, a NOT NULL", "UPDATE t SET a = 0 WHERE a IS NULL"),
    ],
)
def test_the_sql_makes_a_table_whose_new_constraints_the_earlier_rows_break(
    compared: Compared, columns: str, change: str
) -> None:
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, NULL)")
    second = "CREATE TABLE '~t'(id INTEGER PRIMARY KEY)"
    found = compared(lambda connection: [first(connection), connection.execute(second)], rebuilt(columns, change))
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)


def test_the_sql_knows_rows_by_what_is_surely_a_key(compared: Compared) -> None:
    """Whatever a person has chosen to match them by; that others have the same is noticed only if they are compared."""
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO t SELECT i, i % 90, hex(zeroblob(99)) FROM n"
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY, k, x)", rows)
    found = compared(first, script("DELETE FROM t WHERE id = 7"), Options(keys={"t": ("k",)}))
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)


def test_one_of_several_equal_rows_that_sql_cannot_name_is_said(compared: Compared) -> None:
    """Else all of them would be deleted."""
    first = script("CREATE TABLE t(rowid, oid, _rowid_)", "INSERT INTO t VALUES (1, 2, 3), (1, 2, 3)")
    then = script("CREATE TABLE n AS SELECT 1, 2, 3", "DELETE FROM t", "INSERT INTO t SELECT * FROM n", "DROP TABLE n")
    with pytest.raises(UsageError, match="t has columns named rowid, oid and _rowid_, so SQL cannot name one"):
        compared(first, then)


def test_only_the_tables_of_a_virtual_table_store_its_content(compared: Compared) -> None:
    """One of the app's own may have a name that begins like theirs."""
    first = script(
        "CREATE VIRTUAL TABLE doc USING fts5(x)", "CREATE TABLE doc_tags(a)", "INSERT INTO doc_tags VALUES (1)"
    )
    found = compared(
        first,
        script("DROP TABLE doc", 'CREATE VIRTUAL TABLE "doc" USING fts5(x, y)', "INSERT INTO doc_tags VALUES (2)"),
    )
    assert found.tables["doc_data"].virtual == "doc"
    assert found.tables["doc_tags"].virtual == ""
    assert found.counts()["doc_tags"] == (1, 0)
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)
    require_export(compared.after, compared.after.with_name("exported.db"))


def test_a_table_that_is_renamed_to_the_same_letters(compared: Compared) -> None:
    first = script("CREATE TABLE Orders(id INTEGER PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
    found = compared(first, script("ALTER TABLE Orders RENAME TO o", "ALTER TABLE o RENAME TO orders"))
    apply(found.patch, compared.before)
    assert dump(compared.before) == dump(compared.after)


def test_a_table_with_many_columns_is_compared(compared: Compared) -> None:
    """More than fit into one expression of SQL."""
    columns = [f"c{number}" for number in range(600)]
    first = script(f"CREATE TABLE t(id INTEGER PRIMARY KEY, {', '.join(columns)})", "INSERT INTO t(id) VALUES (1)")
    found = compared(first, script("UPDATE t SET c7 = 7"), Options(pages=False, merged=0))
    assert found.counts() == {"t": (1, 1)}


def test_a_whole_number_in_a_real_column_is_real(compared: Compared) -> None:
    """SQLite stores it as an integer."""
    found = compared(
        script("CREATE TABLE t(id INTEGER PRIMARY KEY, a REAL, b)", "INSERT INTO t VALUES (1, 1, 1)"),
        script("UPDATE t SET a = 2, b = 1.0"),
    )
    (change,) = found.changes["t"]
    assert (repr(change.before), repr(change.after)) == ("(1, 1.0, 1)", "(1, 2.0, 1.0)")
    assert change.columns == (1, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("0.0", "-0.0"),
        ("'a'", "'A'"),
        ("'a'", "x'61'"),
        ("0.3", "0.1 + 0.2"),
        ("'x' || char(0) || 'y'", "'x'"),
    ],
)
@pytest.mark.parametrize("vacuumed", [False, True])
def test_values_that_sql_takes_for_equal_differ(compared: Compared, one: str, other: str, vacuumed: bool) -> None:
    then = [f"UPDATE t SET a = {other}", *(["PRAGMA page_size = 8192", "VACUUM"] if vacuumed else [])]
    found = compared(
        script("CREATE TABLE t(id INTEGER PRIMARY KEY, a COLLATE NOCASE)", f"INSERT INTO t VALUES (1, {one})"),
        script(*then),
    )
    assert found.counts() == {"t": (1, 1)}


def test_an_added_column_is_one_change_of_the_schema_and_none_of_a_row(compared: Compared) -> None:
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, i FROM n"
    found = compared(
        script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", rows),
        script("ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'none'"),
    )
    assert found.counts() == {}
    assert [(each.kind, each.object, each.name) for each in found.schema] == [("added", "column", "note")]


def test_a_table_with_what_only_the_app_knows_is_compared(compared: Compared) -> None:
    """A collation and a function that the app registers; nothing is sorted or computed by them."""

    def first(connection: Any) -> None:
        connection.create_collation("german", lambda one, other: (one > other) - (one < other))
        connection.create_function("shout", 1, str.upper, deterministic=True)
        connection.execute("CREATE TABLE t(k TEXT COLLATE german PRIMARY KEY, a, b AS (shout(k)) STORED) WITHOUT ROWID")
        connection.executemany("INSERT INTO t(k, a) VALUES (?, 1)", [(f"k{number}",) for number in range(300)])

    def then(connection: Any) -> None:
        connection.create_collation("german", lambda one, other: (one > other) - (one < other))
        connection.create_function("shout", 1, str.upper, deterministic=True)
        connection.execute("UPDATE t SET a = 2 WHERE k = 'k7'")

    found = compared(first, then)
    assert found.counts() == {"t": (1, 1)}
    assert found.not_compared == []


def test_what_cannot_be_understood_is_said(compared: Compared) -> None:
    found = compared(
        script("CREATE TABLE t(a)", "CREATE TABLE u(a)"),
        script(
            "PRAGMA writable_schema = ON", "UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a, CHECK' WHERE name = 't'"
        ),
    )
    assert [name for name, _ in found.not_compared] == ["t"]


def test_a_definition_with_a_nul_is_said(compared: Compared) -> None:
    found = compared(
        script("CREATE TABLE t(a)"),
        script("PRAGMA writable_schema = ON", "UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a' || char(0) || ')'"),
    )
    assert [name for name, _ in found.not_compared] == ["t"]


def test_a_chain_that_is_longer_than_the_file_is_damage(compared: Compared) -> None:
    """A row that says it has 2 GB, in overflow pages that lead in a circle."""
    first = script("CREATE TABLE t(a)", "INSERT INTO t VALUES (zeroblob(9000))")
    compared(first, script("UPDATE t SET a = zeroblob(8999)"))
    data = bytearray(compared.after.read_bytes())
    page = (root_of(compared.after, "t") - 1) * 4096
    at = page + int.from_bytes(data[page + 8 : page + 10], "big")
    data[at : at + 2] = b"\xff\xff"  # the length of the row, a varint
    compared.after.write_bytes(data)
    with pytest.raises(DamagedDatabase, match="is damaged"):
        compare_files(compared.before, compared.after)


@pytest.mark.parametrize(
    "record",
    [b"", b"\x05\x01", b"\x02\x06\x01", b"\x02\x07\x01", b"\x02\x20ab", b"\x0b" + b"\xff" * 8 + b"\xfe\x07"],
    ids=["empty", "header", "integer", "real", "blob", "huge"],
)
def test_a_record_that_is_cut_off_is_malformed(record: bytes) -> None:
    with pytest.raises(Malformed):
        decode_record(record, text_decoder("utf-8"))


def test_what_is_no_number_is_null() -> None:
    """SQLite never writes it, and reads it so."""
    assert decode_record(b"\x03\x07\x07" + b"\x7f\xf8" + bytes(6) + b"\x7f\xf0" + bytes(6), str) == [None, float("inf")]


def test_a_page_in_the_place_of_another_one_is_damage(compared: Compared) -> None:
    """Rows would else be there twice, and others not at all."""
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO t SELECT i, hex(zeroblob(50)) FROM n"
    compared(script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", rows), script())
    with opened_file(compared.after) as state:
        image = Image(state, Header.parse(state.read(0, 100)))
        one, other, size = *image.children(root_of(compared.after, "t"))[2:4], image.page_size
        page = image.raw(one)
    with compared.after.open("r+b") as file:
        file.seek((other - 1) * size)
        file.write(page)
    with pytest.raises(DamagedDatabase, match=r"after\.db is damaged: page \d+ has rows that are in another one, too"):
        compare_files(compared.before, compared.after, Options(pages=False, merged=1 << 60))


def test_ignored_columns_make_no_difference(compared: Compared) -> None:
    first = script("CREATE TABLE t(id INTEGER PRIMARY KEY, a, at)", "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)")
    found = compared(first, script("UPDATE t SET at = 9", "UPDATE t SET a = 9 WHERE id = 2"), Options(ignored=("at",)))
    assert [each.key for each in found.changes["t"]] == [(2,)]


def test_rows_are_matched_by_a_chosen_key_unless_it_is_none(compared: Compared) -> None:
    first = script(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, number, a)", "INSERT INTO t VALUES (1, 10, 'a'), (2, 20, 'a')"
    )
    then = script("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3, 10, 'b')")
    found = compared(first, then, Options(keys={"t": ("number",)}))
    assert [(each.kind, each.key) for each in found.changes["t"]] == [("changed", (10,))]
    with pytest.raises(UsageError, match="a is not a key of t: 2 rows have 'a'"):
        compared(script(), script("UPDATE t SET number = 1"), Options(keys={"t": ("a",)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(tables=("nix",)), "neither state has a table nix"),
        (Options(ignored=("nix",)), "no table has a column nix"),
        (Options(ignored=("t.nix",)), "no table has a column t.nix"),
        (Options(keys={"t": ("nix",)}), "t does not have the column nix"),
    ],
)
def test_unknown_names_are_refused(compared: Compared, options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compared(script("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"), script("INSERT INTO t VALUES (1)"), options)


def test_a_damaged_file_is_named(compared: Compared, tmp_path: Path) -> None:
    compared(script("CREATE TABLE t(a)"), script("INSERT INTO t VALUES (1)"))
    with compared.after.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    with pytest.raises(DamagedDatabase, match=r"after\.db is damaged: page 1 is not a b-tree page"):
        compare_files(compared.before, compared.after)
    (tmp_path / "letter").write_text("Dear all," * 100)
    with pytest.raises(DamagedDatabase, match="letter is not a SQLite database, or it is encrypted"):
        compare_files(tmp_path / "letter", compared.before)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE t(a)")
    with opened_file(path) as state:
        state.require_unchanged()
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(DatabaseBusy, match="was changed or replaced while it was read"):
            state.require_unchanged()
        path.unlink()
        with pytest.raises(DatabaseBusy, match="was changed or replaced while it was read"):
            state.require_unchanged()


def test_rows_are_read_where_sqlite_cannot_compare_tables(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it fails in the middle; and what is damaged is named, not called so by SQLite alone."""
    first = script(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        "CREATE TABLE u(id INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 1)",
    )
    then = script("UPDATE t SET a = 2", "INSERT INTO u VALUES (1)")
    alone = Merge._alone

    def failing(merge: Merge, *arguments: Any) -> Any:
        yield from alone(merge, *arguments)
        raise NotMerged

    monkeypatch.setattr(Merge, "_alone", failing)
    assert compared(first, then, Options(pages=False, merged=0)).counts() == {"t": (1, 1), "u": (1, 0)}


def test_a_schema_that_sqlite_does_not_read_is_damage_of_that_state(compared: Compared) -> None:
    def break_root(connection: Any) -> None:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'u'")

    tables = script("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "CREATE TABLE u(id INTEGER PRIMARY KEY)")
    with pytest.raises(DamagedDatabase, match=r"before\.db is damaged|after\.db is damaged"):
        compared(tables, break_root, Options(pages=False, merged=0))
