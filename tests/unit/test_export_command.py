"""`sidecar export` of a file: exact rows in each format, new files only, and no chunk that is not needed."""

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.cli.main import run_command_line
from sidecar.compare.export import chosen_tables, ndjson
from sidecar.compare.files import FileState, opened_file
from sidecar.compare.opening import Named, Opened
from sidecar.compare.values import of_json, same
from sidecar.database import default_driver
from tests.harness.database_states import apply, connect, dump

VALUES = [None, 1, 1.0, -0.0, float("inf"), 2**63 - 1, "a", "", 'say "a,b"\n', "x\0y", b"\0\xff", "naïve ☃"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command beside a database; nothing may be left in the temporary directory."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path / "data")
    with closing(connect(Path("app.db"))) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v)")
        connection.executemany("INSERT INTO t(v) VALUES (?)", [(each,) for each in VALUES])
        connection.execute("CREATE TABLE u(a)")
        connection.execute("CREATE INDEX i ON u(a)")
        connection.execute("PRAGMA user_version = 7")
    with closing(connect(Path("virtual.db"))) as connection:
        connection.execute("CREATE VIRTUAL TABLE v USING rtree(id, low, high)")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = run_command_line(["export", *arguments])
        assert list((tmp_path / "scratch").iterdir()) == []
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_ndjson_is_exact(run: Run) -> None:
    status, out, err = run("app.db", "--table", "t")
    assert (status, err) == (0, "")
    found = [of_json(json.loads(line)["v"]) for line in out.splitlines()]
    assert [same(one, other) for one, other in zip(found, VALUES, strict=True)] == [True] * len(VALUES)  # type: ignore[arg-type]


def test_csv_tells_null_from_empty_text(run: Run) -> None:
    out = run("app.db", "--table", "t", "--format", "csv")[1]
    assert out.split("\r\n")[:9] == [
        "id,v",
        "1,",
        "2,1",
        "3,1.0",
        "4,-0.0",
        "5,inf",
        "6,9223372036854775807",
        "7,a",
        '8,""',
    ]
    assert '9,"say ""a,b""\n"' in out


def test_sql_makes_the_database_anew(run: Run) -> None:
    assert run("app.db", "--format", "sql", "-o", "new.sql")[0] == 0
    assert Path("new.sql").stat().st_mode & 0o777 == 0o600
    apply(Path("new.sql").read_text().split(";\n")[:-1], Path("new.db"))
    assert dump(Path("new.db")) == dump(Path("app.db"))
    out = run("app.db", "--format", "sql", "--table", "u")[1]
    assert "CREATE INDEX i" in out
    assert "INSERT" not in out


def test_sql_keeps_hidden_rowids_by_which_a_search_index_knows_its_rows(run: Run) -> None:
    """Also negative ones, and the largest, after which SQLite chooses at random."""
    rowids = [-5, 1, 2, 7, 8, 2**63 - 1]
    with closing(connect(Path("app.db"))) as connection:
        connection.executemany("INSERT INTO u(rowid, a) VALUES (?, 'word')", [(each,) for each in rowids])
        connection.execute("CREATE VIRTUAL TABLE f USING fts5(a, content='u')")
        connection.execute("INSERT INTO f(f) VALUES ('rebuild')")
    assert run("app.db", "--format", "sql", "-o", "new.sql")[0] == 0
    apply(Path("new.sql").read_text().split(";\n")[:-1], Path("new.db"))
    with closing(connect(Path("new.db"))) as connection:
        assert [each for (each,) in connection.execute("SELECT rowid FROM u ORDER BY rowid")] == rowids
        assert [each for (each,) in connection.execute("SELECT rowid FROM f('word') ORDER BY rowid")] == rowids
    assert Path("new.sql").read_text().count('"u"(rowid, ') == 4  # 2 and 8 are what SQLite would choose


def test_each_table_has_its_file_and_none_is_replaced(run: Run) -> None:
    assert run("app.db", "-o", "rows")[0] == 0
    assert sorted(each.name for each in Path("rows").iterdir()) == ["t.ndjson", "u.ndjson"]
    status, _, err = run("app.db", "-o", "rows")
    assert (status, err.count("\n")) == (64, 1)
    assert "rows/t.ndjson exists" in err
    assert run("app.db", "-o", "rows", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("app.db",), 64, "several tables are several files of ndjson"),
        (
            ("virtual.db", "--table", "v"),
            64,
            "only its module can read (name what it stores in the database: v_node, v_parent, v_rowid)",
        ),
        (("app.db", "--table", "nix"), 64, "app.db has no table nix (its tables are sqlite_sequence, t, u)"),
        (("app.db", "--format", "xml"), 64, "--format 'xml' is not a format"),
        (("missing.db",), 66, "there is no database at missing.db"),
        (("app.db", "--table", "t", "-o", "no/such/file"), 78, "cannot write no/such/file"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert message in err


def test_only_the_chunks_of_the_table_are_read(tmp_path: Path) -> None:
    path, asked = tmp_path / "app.db", set[int]()
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE large(a)")
        connection.execute("CREATE TABLE small(a)")
        connection.executemany("INSERT INTO large VALUES (zeroblob(3000))", [()] * 2000)
        connection.execute("INSERT INTO small VALUES (1)")

    class Counting(FileState):
        def fetch(self, chunks: Iterable[int]) -> None:
            asked.update(chunks)

    with opened_file(path) as state:
        counting = Counting(state._file)
        opened = Opened.of(default_driver(), Named("app.db", counting))
        (small,) = chosen_tables(opened, ("small",))
        assert list(ndjson(opened, small)) == ['{"a": 1}']
        assert asked == {0}
        list(ndjson(opened, chosen_tables(opened, ("large",))[0]))
        assert asked == set(range(counting.chunks))


def test_a_table_whose_name_is_no_name_of_a_file(run: Run) -> None:
    """It is too long; the others are there."""
    with closing(connect(Path("app.db"))) as connection:
        connection.execute(f"CREATE TABLE {'x' * 300}(a)")
    status, out, err = run("app.db", "-o", "all")
    assert (status, out, err.count("\n")) == (78, "", 1)
    assert "File name too long" in err
    assert sorted(each.name for each in Path("all").iterdir()) == ["t.ndjson", "u.ndjson"]
