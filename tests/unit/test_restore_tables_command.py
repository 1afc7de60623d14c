"""`sidecar restore --table` on the command line: what it shows, asks and refuses."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.cli.main import run_command_line
from tests.harness.bringing_back import connect, make, rows

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = run_command_line([*arguments, "--database", "app.db", "--store", f"file://{tmp_path}/store"])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--table t", "--table needs to know where to"),
        ("--into live", "name them with --table"),
        ("--table t --into dead", "it takes live"),
        ("--table t --into live --output x.db", "not for the live database"),
        ("--table t --into live --rows all", "it takes missing, changed, exact"),
        ("--table t --into live --at 1h --key k", "--at and --key exclude each other"),
        ("--table t --into live --stream s", "--stream restores whole databases"),
        ("--table t --into live --rows exact --as u", "leave out --rows"),
        ("--table t --output x.db --rows exact", "add --into live"),
        ("--undo --table t", "--undo undoes what was brought back last"),
    ],
)
def test_options_that_exclude_each_other(run: Run, arguments: str, said: str) -> None:
    status, _, error = run("restore", *arguments.split())
    assert (status, said in error) == (64, True), error


def test_the_newest_state_may_be_too_new(run: Run, tmp_path: Path) -> None:
    """The loss is in it already: the way to an earlier one is told, unless one was named."""
    make(tmp_path / "app.db")
    with closing(connect(tmp_path / "app.db")) as app:
        app.execute("DELETE FROM orders WHERE id > 18")
    assert run("backup")[0] == 0
    command = ("restore", "--table", "orders", "--into", "live")
    told = "`sidecar log --table orders` shows when it changed"
    assert [told in run(*command, *more)[1] for more in ((), ("--at", "1s"))] == [True, False]


def test_rows_are_brought_back_once_that_is_confirmed(run: Run, tmp_path: Path) -> None:
    """No terminal is there to be asked. The preview is shown in any case."""
    make(tmp_path / "app.db")
    assert run("backup")[0] == 0
    with closing(connect(tmp_path / "app.db")) as app:
        app.execute("UPDATE orders SET state = 'wrong' WHERE id <= 4")
        app.execute("DELETE FROM orders WHERE id > 18")
        command = ("restore", "--table", "orders", "--into", "live", "--rows", "changed")
        status, out, error = run(*command)
        assert (status, "add --yes" in error) == (64, True)
        assert out.splitlines()[1:3] == [
            "  orders: 2 rows inserted, 4 rows changed back",
            "  triggers that do not fire: second, first (--triggers lets them); TEMP triggers of the app do not in any case",
        ]
        assert rows(tmp_path / "app.db", "SELECT count(*) FROM orders") == [(18,)]
        status, out, error = run(*command, "--yes")
        assert status == 0
        assert "6 rows brought back" in out
        assert "`sidecar restore --undo` undoes it" in out
        assert rows(tmp_path / "app.db", "SELECT count(*) FROM orders WHERE state = 'open'") == [(20,)]
        status, out, _ = run("restore", "--undo", "--yes")
        assert (status, "6 rows as before" in out) == (0, True)
        assert rows(tmp_path / "app.db", "SELECT count(*) FROM orders WHERE state = 'wrong'") == [(4,)]
        status, _, error = run("restore", "--undo", "--yes")
        assert (status, "can be undone" in error) == (66, True)


def test_nothing_to_bring_back_is_said(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "app.db")
    assert run("backup")[0] == 0
    status, out, _ = run("restore", "--table", "orders", "--into", "live")
    assert (status, out.splitlines()[0]) == (0, "orders: nothing to bring back")
