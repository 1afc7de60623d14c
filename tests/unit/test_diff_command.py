"""`sidecar diff` with two files: what it prints, what its exit status says, and what it leaves behind."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.cli.main import run_command_line
from tests.docs.json_fields import documented, fields
from tests.harness.database_states import apply, connect, dump

EXAMPLE = (
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, status TEXT, total)",
    "CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
    "INSERT INTO customers VALUES (1, 'Ada'), (2, 'Grace')",
    "INSERT INTO orders VALUES (17, 1, 'open', 75.5), (18, 1, 'open', 129.0), (19, 2, 'paid', 5)",
)
CHANGES = (
    "UPDATE orders SET status = 'cancelled', total = 129 WHERE id = 18",
    "DELETE FROM orders WHERE id = 17",
    "INSERT INTO orders VALUES (20, 2, 'open', 12.0)",
    "ALTER TABLE customers ADD COLUMN note TEXT",
)

Run = Callable[..., tuple[int, str, str]]


def write(path: Path, *statements: str) -> None:
    with closing(connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a directory with two states; nothing may be left in the temporary directory."""
    scratch, data = tmp_path / "scratch", tmp_path / "data"
    scratch.mkdir()
    data.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.chdir(data)
    write(Path("old.db"), *EXAMPLE)
    shutil.copy("old.db", "new.db")
    write(Path("new.db"), *CHANGES)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = run_command_line(["diff", *arguments])
        assert list(scratch.iterdir()) == []
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_a_person_sees_the_summary_first_then_rows(run: Run) -> None:
    status, out, err = run("old.db", "new.db")
    assert (status, err) == (1, "")
    first, *lines = out.splitlines()
    assert first.startswith("new.db   old.db  ->  new.db   (compared 1 of 1 chunks in ")
    assert lines == [
        "schema   + customers: column note added: TEXT (default NULL)",
        "orders        +1       -1       ~1",
        "1 table differs, 1 is the same.",
        "",
        "orders   key id",
        "~ 18   status   'open'  ->  'cancelled'",
        "       total    129.0  ->  129   (real -> integer)",
        "- 17   customer 1   status 'open'   total 75.5",
        "+ 20   customer 2   status 'open'   total 12.0",
    ]


def test_nothing_differs(run: Run) -> None:
    """A database without a difference in rows or schema, although its pages differ."""
    shutil.copy("old.db", "again.db")
    write(Path("again.db"), "UPDATE orders SET total = 6 WHERE id = 19", "UPDATE orders SET total = 5 WHERE id = 19")
    status, out, _ = run("old.db", "again.db")
    assert (status, out.splitlines()[1:]) == (0, ["No row differs in 2 tables."])
    assert run("old.db", "again.db", "--sql")[:2] == (0, "")


def test_a_value_in_a_new_column_was_not_null_before(run: Run) -> None:
    """As after a migration that fills the column."""
    write(Path("new.db"), "UPDATE customers SET note = 'vip' WHERE id = 1")
    status, _, _ = run("old.db", "new.db", "--table", "customers", "--html", "page.html")
    assert "~ 1   note   (new column)  ->  'vip'" in run("old.db", "new.db")[1].splitlines()
    assert (status, "<dd>(new column)</dd>" in Path("page.html").read_text()) == (1, True)


def test_a_new_column_that_takes_no_null_has_no_default_of_null(run: Run) -> None:
    """As Django adds one: the table is made anew."""
    write(
        Path("new.db"), "DROP TABLE orders", "CREATE TABLE orders(id INTEGER PRIMARY KEY, phone varchar(30) NOT NULL)"
    )
    shown = run("old.db", "new.db")[1].splitlines()
    assert "schema   + orders: column phone added: varchar(30) NOT NULL" in shown


def test_options_say_what_is_shown_and_the_status_agrees(run: Run) -> None:
    assert "~ 18" not in run("old.db", "new.db", "--only", "removed,added")[1]
    assert run("old.db", "new.db", "--summary")[1].splitlines()[-1] == "1 table differs, 1 is the same."
    assert "orders   key id   [first 1 of 3; --limit 0 shows more]" in run("old.db", "new.db", "--limit", "1")[1]
    status, out, _ = run("old.db", "new.db", "--table", "orders", "--only", "changed", "--ignore", "status,total")
    assert (status, out.splitlines()[1:]) == (0, ["No row was changed in 1 table."]), "others were added"
    narrowed = run("old.db", "new.db", "--only", "added", "--summary")[1]
    assert narrowed.splitlines()[-1] == "Rows were added in 1 of 2 tables."
    assert run("old.db", "new.db", "--table", "orders", "--summary")[1].splitlines()[-1] == "1 table differs."


def test_the_sql_makes_the_later_state_of_the_earlier_one(run: Run) -> None:
    status, out, _ = run("old.db", "new.db", "--sql")
    assert status == 1
    apply([each for each in out.split(";\n") if each], Path("old.db"))
    assert dump(Path("old.db")) == dump(Path("new.db"))


def test_the_sql_of_some_tables_leaves_the_others_alone(run: Run) -> None:
    """With their indexes, triggers and sequences; and so it does with one that is damaged."""
    both = ("CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, a)", "INSERT INTO n(a) VALUES (1)")
    for path in ("old.db", "new.db"):
        write(Path(path), *both, "CREATE TABLE o(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    write(Path("old.db"), "CREATE INDEX i ON n(a)", "CREATE VIEW v AS SELECT 1")
    write(Path("new.db"), "CREATE TABLE p(a)", "CREATE INDEX j ON p(a)", "INSERT INTO n(a) VALUES (2)")
    write(Path("new.db"), "CREATE INDEX k ON o(id)", "INSERT INTO o VALUES (5)")
    before = dump(Path("old.db"))
    _, out, _ = run("old.db", "new.db", "--sql", "--table", "o")
    apply([each for each in out.split(";\n") if each], Path("old.db"))
    rows, schema = dump(Path("old.db"))
    wanted = dump(Path("new.db"))
    assert rows.pop("o") == wanted[0]["o"]
    assert schema.pop(("index", "k")) == wanted[1]["index", "k"]
    assert sorted(row[1] for row in rows.pop("sqlite_sequence")) == [b"n", b"o"]
    assert schema == before[1]
    assert rows == {name: each for name, each in before[0].items() if name in rows}


def test_the_sql_is_read_by_the_shell_of_sqlite(run: Run) -> None:
    """Also where SQLite has kept a comment at the end of a statement; and names do not control a terminal."""
    write(
        Path("new.db"),
        "CREATE VIEW v AS SELECT 1 -- one",
        "CREATE INDEX i ON orders(total) /* two",
        "CREATE TABLE u(a)",
    )
    script = run("old.db", "new.db", "--sql")[1]
    with closing(connect(Path("old.db"))) as connection:
        connection.executescript(script)
    rows, schema = dump(Path("old.db"))
    assert rows == dump(Path("new.db"))[0]
    assert {("view", "v"), ("index", "i"), ("table", "u")} < schema.keys()


def test_the_sql_does_not_control_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("new.db"), 'CREATE TABLE "\x1b]0;owned\x07"(a)')
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = run("old.db", "new.db", "--sql")[1]
    assert "owned" in out
    assert [each for each in out if each in "\x1b\x07"] == []


def test_the_json_has_the_documented_fields(run: Run) -> None:
    shown = [json.loads(line) for line in run("old.db", "new.db", "--json")[1].splitlines()]
    assert [each["type"] for each in shown] == ["schema", "row", "row", "row", "summary"]
    assert shown[1]["key"] == {"id": 18}
    assert (shown[1]["before"]["total"], shown[1]["after"]["total"]) == (129.0, 129)
    assert not shown[-1]["same"]
    data = {"id", "customer", "status", "total"}
    assert fields(shown) - data == documented("diff") - {"reason"}


def test_hostile_names_and_values_do_not_reach_the_terminal(run: Run) -> None:
    hostile = "\x1b]0;owned\x07\u202egpj.exe\r\x9b31m"
    name = '"' + hostile.replace("\r", "") + '"'
    for path in ("old.db", "new.db"):
        write(Path(path), f"CREATE TABLE {name}({name} TEXT, b BLOB)")
    with closing(connect(Path("new.db"))) as connection:
        connection.execute(f"INSERT INTO {name} VALUES (?, ?)", [hostile, hostile.encode()])
    for form in ((), ("--json",)):
        out = run("old.db", "new.db", *form)[1]
        assert [each for each in out if not each.isprintable() and each != "\n"] == []
        assert "owned" in out


def test_the_page_has_rows_and_no_scripts_and_replaces_no_file(run: Run) -> None:
    """Names and values that are HTML are text on it."""
    hostile = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"
    with closing(connect(Path("new.db"))) as connection:
        connection.execute(f'CREATE TABLE "{hostile}"("{hostile}" TEXT)')
        connection.execute(f'INSERT INTO "{hostile}" VALUES (?)', [hostile])
    status, out, _ = run("old.db", "new.db", "--html", "page.html")
    assert (status, len(out.splitlines())) == (1, 6)
    assert Path("page.html").stat().st_mode & 0o777 == 0o600
    text = Path("page.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "<dt>status</dt><dd>&#x27;open&#x27;</dd>" in text
    assert "<dt>status</dt><dd>&#x27;cancelled&#x27;</dd>" in text
    status, _, err = run("old.db", "new.db", "--html", "page.html")
    assert (status, err.count("\n")) == (64, 1)
    assert "page.html exists" in err
    assert sorted(each.name for each in Path().iterdir()) == ["new.db", "old.db", "page.html"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("old.db", "missing.db"), 66, "there is no database at missing.db"),
        (("old.db", "letter"), 65, "letter is not a SQLite database, or it is encrypted"),
        (("old.db", "."), 64, ". is a directory"),
        (("old.db", "new.db", "--json", "--sql"), 64, "--json and --sql exclude each other"),
        (("old.db", "new.db", "old.db"), 64, "at most two states"),
        (("old.db", "new.db", "--table", "nix"), 64, "neither state has a table nix (the tables are customers, orders)"),
        (("old.db", "new.db", "--ignore", "nix"), 64, "no table has a column nix"),
        (("old.db", "new.db", "--only", "moved"), 64, "--only 'moved' is not a kind of change"),
        (("old.db", "new.db", "--key", "orders"), 64, "--key 'orders' is not TABLE=COLUMN"),
        (("old.db", "new.db", "--key", "orders=nix"), 64, "orders does not have the column nix"),
        (("old.db", "new.db", "--sql", "--only", "added"), 64, "--sql is a whole patch"),
        (("old.db", "new.db", "--limit", "-1"), 64, "--limit -1 is negative"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    Path("letter").write_text("Dear all,\n" * 100)
    found, out, err = run(*arguments)
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert message in err


def test_a_damaged_table_is_left_out_only_if_asked(run: Run) -> None:
    """And listed then; the others are compared, and the SQL changes nothing of it. Here a page of `orders` is overwritten."""
    with closing(connect(Path("new.db"))) as connection:
        connection.execute("CREATE INDEX i ON orders(total)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'orders'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("UPDATE customers SET name = 'Ida' WHERE id = 1")
    with Path("new.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\0" * size)
    status, out, err = run("old.db", "new.db")
    damage = f"new.db is damaged: page {root} is not a b-tree page"
    assert (status, out) == (65, "")
    assert err == f"sidecar: {damage} (`sidecar diff --skip-damaged` compares the tables that can be read)\n"
    status, out, err = run("old.db", "new.db", "--skip-damaged")
    assert (status, err) == (1, "")
    assert [each.split() for each in out.splitlines()[3:4]] == [["customers", "~1"]]
    assert out.splitlines()[4:6] == [
        f"not compared: orders: {damage}",
        "1 table differs, 1 was not compared.",
    ]
    sql = run("old.db", "new.db", "--skip-damaged", "--sql")[1]
    assert [line for line in sql.splitlines() if "orders" in line] == [f"-- not compared: orders: {damage}"]
