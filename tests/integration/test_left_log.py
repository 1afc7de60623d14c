"""An app that closes its database while it is copied, and puts another file in its place, finds that file without the old log."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from tests.harness.sql_process import SqlProcess

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO t VALUES (randomblob(3000))"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def app(path: Path) -> Iterator[SqlProcess]:
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t (a)")
        app.script(*[INSERT] * 20)
        yield app


async def copy_beside(path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Take a snapshot, and do this meanwhile."""
    backup = SqliteSnapshotter._backup

    def slowly(self: SqliteSnapshotter, *arguments: Any) -> None:
        backup(self, *arguments)
        work()

    with monkeypatch.context() as patch:
        patch.setattr(SqliteSnapshotter, "_backup", slowly)
        async with SqliteSnapshotter(Staging(path.parent)).snapshot(path):
            pass


def another(path: Path) -> Path:
    """A database with other rows."""
    new = path.with_name("new.db")
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("new",)] * 500)
    return new


def log_size(path: Path) -> int:
    log = path.with_name("app.db-wal")
    return log.stat().st_size if log.exists() else 0


@pytest.mark.parametrize("writes", [True, False])
async def test_the_log_of_an_app_that_closes_its_database_during_a_copy_is_emptied(
    path: Path, app: SqlProcess, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    def close() -> None:
        if writes:
            app.script(*[INSERT] * 20)
        app.close()

    await copy_beside(path, monkeypatch, close)
    assert log_size(path) == 0
    shutil.copyfile(another(path), path)
    app.open()
    assert app.run("SELECT count(*), max(a) FROM t") == [[500, "new"]]
    assert app.run("PRAGMA integrity_check") == [["ok"]]


async def test_nothing_of_what_it_committed_is_lost(
    path: Path, app: SqlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close() -> None:
        app.script(*[INSERT] * 20)
        app.close()

    await copy_beside(path, monkeypatch, close)
    app.open()
    assert app.run("SELECT count(*) FROM t") == [[40]]


async def test_an_app_that_came_and_went_during_the_copy_leaves_no_log_either(
    path: Path, app: SqlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.close()

    def come_and_go() -> None:
        app.open()
        app.run(INSERT)
        app.close()

    await copy_beside(path, monkeypatch, come_and_go)
    assert log_size(path) == 0


async def test_a_log_that_is_in_use_or_was_left_before_stays(
    path: Path, app: SqlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A final backup would else take the emptied log for a late write."""
    await copy_beside(path, monkeypatch, lambda: app.run(INSERT))
    size = log_size(path)
    assert size
    app.kill()
    await copy_beside(path, monkeypatch, lambda: None)
    assert log_size(path) == size


async def test_nothing_is_written_into_a_file_that_is_in_its_place_already(
    path: Path, app: SqlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = another(path)

    def replace() -> None:
        app.run(INSERT)
        app.close()
        shutil.copyfile(new, path)

    await copy_beside(path, monkeypatch, replace)
    assert path.read_bytes() == new.read_bytes()
