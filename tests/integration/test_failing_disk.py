"""A disk that fails says nothing about the data: nothing is called damaged for it, and nothing older is restored.

SQLite itself is real. What cannot be had without a broken disk is the error in the middle of a check, so a connection
raises it there, with SQLite's own code.
"""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sidecar.database import Lineage, SqliteIntegrity
from sidecar.database.driver import Driver
from sidecar.database.findings import not_read
from sidecar.errors import (
    ConfigurationError,
    DamagedDatabase,
    DatabaseBusy,
    LocalFailure,
    NoRoom,
    SidecarError,
)
from sidecar.host import local_errors
from tests.fakes import MemoryStore
from tests.integration.wiring import Machine, write

pytestmark = pytest.mark.anyio

IOERR_READ, IOERR_CORRUPTFS = 10 | 1 << 8, 10 | 33 << 8


def failing(message: str, code: int | None, when: str) -> Driver:
    """A driver whose statements that begin with `when` fail in this way; with code None for want of memory."""

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if statement.startswith(when):
                if code is None:
                    raise MemoryError
                error = sqlite3.OperationalError(message)
                error.sqlite_errorcode = code
                raise error
            return super().execute(statement, *arguments)

    module = ModuleType("failing")
    for name in ("Error", "sqlite_version", "sqlite_version_info"):
        setattr(module, name, getattr(sqlite3, name))

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Connection, **named)

    module.connect = connect  # type: ignore[attr-defined]
    return Driver(module)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Its check has a finding, so that the tables are read, too."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("CREATE TABLE t(n); INSERT INTO t VALUES (NULL); PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(n NOT NULL)'")
    return path


@pytest.mark.parametrize(
    "when", ["PRAGMA quick_check", "SELECT * FROM sqlite_schema", 'SELECT "n"', "SELECT name, hidden"]
)
@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        ("disk I/O error", 10, LocalFailure),
        ("disk I/O error", IOERR_READ, LocalFailure),
        ("disk I/O error", IOERR_CORRUPTFS, LocalFailure),
        ("out of memory", 7, LocalFailure),
        ("out of memory", None, LocalFailure),
        ("large file support is disabled", 22, LocalFailure),
        ("database or disk is full", 13, NoRoom),
        ("unable to open database file", 14, ConfigurationError),
        ("locking protocol", 15, DatabaseBusy),
        ("database is locked", 5, DatabaseBusy),
    ],
)
async def test_check_that_this_machine_cannot_make_is_no_damage(
    database: Path, when: str, message: str, code: int | None, kind: type[SidecarError]
) -> None:
    assert (await SqliteIntegrity().check(database, "quick")).findings  # so that all statements are reached
    with pytest.raises(kind) as raised:
        await SqliteIntegrity(failing(message, code, when)).check(database, "quick")
    assert not isinstance(raised.value, DamagedDatabase)
    assert raised.value.exit_code != 65


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        ("Tree 2 page 5: unable to get the page. error code=266", True),
        ("Tree 2 page 5: unable to get the page. error code=7", True),
        ("Tree 2 page 5: unable to get the page. error code=11", False),
        ("row 1 missing from index i", False),
    ],
)
def test_page_that_the_disk_does_not_give_is_no_finding(complaint: str, expected: bool) -> None:
    """`PRAGMA integrity_check` reports an I/O error as it reports a broken page."""
    assert bool(not_read(["row 1 missing from index i", complaint])) == expected


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, LocalFailure),
        (errno.EMFILE, LocalFailure),
        (errno.ESTALE, LocalFailure),
        (errno.ENOSPC, NoRoom),
        (errno.EFBIG, NoRoom),
        (errno.EACCES, ConfigurationError),
        (errno.EROFS, ConfigurationError),
    ],
)
def test_errors_of_the_operating_system_are_no_damage(tmp_path: Path, number: int, kind: type[SidecarError]) -> None:
    with pytest.raises(kind, match=r"app\.db"), local_errors(tmp_path / "app.db"):
        raise OSError(number, os.strerror(number))


def test_marker_that_the_disk_does_not_give_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would make a conflict, in which the local database is moved aside for an older state."""
    lineage, opened = Lineage(tmp_path / "app.db", "file:///store", durable=False), os.open
    lineage.require_readable()

    def fail(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path) == lineage.path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(LocalFailure, match=r"app\.db\.sidecar\.json"):
        lineage.require_readable()


async def test_boot_on_a_failing_disk_restores_nothing_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest restore point is good; the disk fails when it is checked. The boot ends, and another machine restores it."""
    store = MemoryStore()
    machine = Machine(store, tmp_path / "app.db", checked=False, staging=tmp_path)
    for _ in range(2):
        write(machine.database.path, 1)
        assert await machine.backup.cycle.run() == "published"
    (tmp_path / "fresh").mkdir()
    fresh = Machine(store, tmp_path / "fresh" / "app.db", staging=tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(fresh.checker, "_driver", failing("disk I/O error", IOERR_READ, "PRAGMA quick_check"))
        with pytest.raises(LocalFailure):
            await fresh.boot()
    assert not fresh.database.path.exists()
    booted = await fresh.boot()
    assert booted.outcome == "restored"
    assert booted.restored
    assert booted.restored.point == await machine.newest()
