"""Bringing rows back ends at any moment, by kill -9 or without room: all is done or nothing, while an app writes.

Some processes for each moment, and their start makes most of the time.
"""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.harness.bringing_back import connect, make, rows, session_of
from tests.harness.environment import ROOT

APP = """
import sqlite3, sys, time
app = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
app.execute("PRAGMA synchronous = OFF")
app.execute("INSERT INTO orders(customer, state) VALUES (1, 'written')")
print(flush=True)
while True:
    app.execute("UPDATE customers SET name = name + 1 WHERE id = 3")
    time.sleep(0.001)
"""
ORDERS = "SELECT id, state, total FROM orders WHERE state <> 'written' ORDER BY id"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    make(tmp_path / "app.db", rows=400)
    return tmp_path / "app.db"


async def published(database: Path) -> str:
    """The key of a restore point of the database."""
    async with session_of(database) as session:
        return str((await session.backup()).databases[0].restore_point)


async def undo(database: Path) -> None:
    async with session_of(database) as session:
        await session.tables().undo()


def bring_back(database: Path, key: str, moment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.harness.bring_back_process", str(database), key, moment]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("moment", "status", "is_done"),
    [
        ("saving", -9, False),
        ("saved", -9, False),
        ("uncommitted", -9, False),
        ("committed", -9, True),
        ("no room to save", 73, False),
        ("no room in the log", 73, False),
    ],
)
def test_all_is_done_or_nothing(database: Path, moment: str, status: int, *, is_done: bool) -> None:
    """
    1. 300 rows are overwritten; an app writes without a pause.
    2. Bringing them back ends at the moment.
    3. The app goes on. Later they are brought back, and that is undone.
    Result: what was there, or what was to be; a file of saved rows is whole, and none is left where there was no room.
    """
    key, good = anyio.run(published, database), rows(database, ORDERS)
    with closing(connect(database)) as app:
        app.execute("UPDATE orders SET state = 'wrong', total = 0 WHERE id <= 300")
    wrong = rows(database, ORDERS)
    with subprocess.Popen([sys.executable, "-c", APP, str(database)], stdout=subprocess.PIPE) as app_process:
        try:
            assert app_process.stdout
            app_process.stdout.readline()
            ended, said = bring_back(database, key, moment)
            assert ended == status, said
            assert rows(database, ORDERS) == (good if is_done else wrong)
            assert rows(database, "PRAGMA integrity_check") == [("ok",)]
            saved = list(database.parent.glob("app.db.before-*.sqlite3"))
            assert len(saved) == (moment not in {"saving", "no room to save", "no room in the log"})
            for each in saved:
                assert rows(each, "PRAGMA integrity_check") == [("ok",)]
                assert rows(each, "SELECT count(*) FROM before_orders WHERE state = 'wrong'") == [(300,)]
            if not is_done:
                assert bring_back(database, key, "whole") == (0, "")
                assert rows(database, ORDERS) == good
            anyio.run(undo, database)
            assert rows(database, ORDERS) == wrong
            assert app_process.poll() is None
        finally:
            app_process.kill()
    assert list(database.parent.glob(".*")) == []
