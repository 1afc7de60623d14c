"""`import sidecar`: what a session does, and that the process around it stays as it is."""

import asyncio
import ctypes
import gc
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from anyio import from_thread

import sidecar
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.repository import reader
from sidecar.repository.reader import Reader, Restored
from tests.harness.environment import clean_environment

pytestmark = pytest.mark.anyio

IMPORTED = """
import sys
before = set(sys.modules)
import sidecar
heavy = ("anyio", "asyncio", "pydantic", "structlog", "sqlite3", "aiohttp", "sidecar.")
print([name for name in set(sys.modules) - before if name.startswith(heavy)])
"""


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files are in the temporary directory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one row."""
    path = tmp_path / "app.db"
    write(path, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('first')")
    return path


@asynccontextmanager
async def session_of(*databases: Path) -> AsyncIterator[sidecar.Sidecar]:
    """A session with a store beside the databases."""
    async with sidecar.open(databases=databases, store=f"file://{databases[0].parent}/store") as session:
        yield session


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def notes(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


async def test_a_backup_is_published_once_and_restored_by_key_time_or_as_the_newest(database: Path) -> None:
    async with session_of(database) as session:
        (first,) = (await session.backup()).databases
        (again,) = (await session.backup()).databases
        write(database, "INSERT INTO notes VALUES ('second')")
        (second,) = (await session.backup()).databases
        assert [first.outcome, again.outcome, second.outcome] == ["published", "unchanged", "published"]
        assert (first.restore_point, again.restore_point) == (again.restore_point, first.restore_point)
        history = await session.list()
        keys = [entry.point.key for entry in history.restore_points]
        assert keys == [first.restore_point, second.restore_point]

        for number, (asked, expected) in enumerate(
            [
                ({}, ["first", "second"]),
                ({"key": keys[0]}, ["first"]),
                ({"at": history.restore_points[0].point.timestamp}, ["first"]),
                ({"at": datetime.now(UTC)}, ["first", "second"]),
                ({"at": (datetime.now(UTC) + timedelta(days=1)).replace(tzinfo=None)}, ["first", "second"]),
            ]
        ):
            copy = database.parent / f"copy-{number}.db"
            result = await session.restore(output=copy, **asked)  # type: ignore[arg-type]
            assert (result.path, result.kept, notes(copy)) == (copy, None, expected)


async def test_a_restore_onto_the_own_path_keeps_the_old_database_and_names_the_newer_point(database: Path) -> None:
    async with session_of(database) as session:
        (first,) = (await session.backup()).databases
        write(database, "INSERT INTO notes VALUES ('second')")
        (second,) = (await session.backup()).databases
        write(database, "INSERT INTO notes VALUES ('never published')")
        before = database.read_bytes()
        with pytest.raises(sidecar.errors.UsageError, match="exists"):
            await session.restore(key=first.restore_point)
        assert database.read_bytes() == before
        result = await session.restore(key=first.restore_point, force=True)
        assert (notes(database), result.newer) == (["first"], second.restore_point)
        assert result.kept is not None
        assert notes(result.kept) == ["first", "second", "never published"]
        (chosen,) = (await session.backup()).databases
        assert chosen.outcome == "published", "it was chosen by hand, and becomes the newest"
        assert notes((await session.restore(output=database.with_name("copy.db"))).path) == ["first"]


async def test_an_existing_file_elsewhere_is_replaced_by_force_alone_and_kept(database: Path) -> None:
    copy = database.with_name("copy.db")
    write(copy, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('of somebody')")
    async with session_of(database) as session:
        await session.backup()
        with pytest.raises(sidecar.errors.UsageError, match="exists"):
            await session.restore(output=copy)
        assert notes(copy) == ["of somebody"]
        result = await session.restore(output=copy, force=True)
        assert result.kept is not None
        assert (notes(copy), notes(result.kept)) == (["first"], ["of somebody"])


async def test_a_database_that_is_opened_during_the_download_is_left_alone(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, stage = [], Reader.stage

    async def stage_while_an_app_starts(self: Reader, *arguments: Any) -> tuple[Restored, Path]:
        staged = await stage(self, *arguments)
        opened.append(database.open("rb"))
        return staged

    async with session_of(database) as session:
        await session.backup()
        monkeypatch.setattr(Reader, "stage", stage_while_an_app_starts)
        before = sorted(database.parent.glob("**/*"))
        with pytest.raises(sidecar.errors.DatabaseBusy):
            await session.restore(force=True)
        opened[0].close()
    assert sorted(database.parent.glob("**/*")) == before
    assert notes(database) == ["first"]


async def test_a_restore_is_refused_while_this_process_has_the_database_open(database: Path) -> None:
    """The program that embeds us would go on writing into a file that has no name any more."""
    async with session_of(database) as session:
        await session.backup()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT * FROM notes").fetchall()
            for output in (None, database):
                with pytest.raises(sidecar.errors.DatabaseBusy, match="is open in process"):
                    await session.restore(output=output, force=True)
        assert (await session.restore(force=True)).kept


async def test_a_damaged_restore_point_is_reported_and_required_good_raises(database: Path) -> None:
    async with session_of(database) as session:
        await session.backup()
        write(database, "INSERT INTO notes VALUES ('second')")
        await session.backup()
        newest = max((database.parent / "store" / "app.db").glob("*.zst"))
        newest.write_bytes(b"no restore point")
        report = await session.verify(all=True)
        assert [each.outcome for each in report.results] == ["good", "damaged"]
        assert not report.good
        with pytest.raises(sidecar.errors.DamagedRestorePoint, match="1 of 2"):
            report.require_good()
        assert (await session.status()).health.level == "bad"


async def test_status_without_a_daemon_is_the_stores(database: Path) -> None:
    async with session_of(database) as session:
        assert (await session.status()).health.title == "Not protected"
        (published,) = (await session.backup()).databases
        report = await session.status()
        assert (report.source, report.health.level) == ("store", "wait")
        (shown,) = report.databases
        assert (shown["restore_point"], shown["listing"]["count"]) == (published.restore_point, 1)


async def test_events_of_the_session_end_with_it(database: Path) -> None:
    """What happened before `events` was called is not among them."""
    async with session_of(database) as session:
        await session.backup()
        events = session.events()
        write(database, "INSERT INTO notes VALUES ('second')")
        await session.backup()
        first = await anext(events)
        assert (first.kind, first.database) == ("published", "app.db")
    rest = [event.kind async for event in events]
    assert "published" not in rest


async def test_an_event_wakes_whoever_waits_for_it(database: Path) -> None:
    async with session_of(database) as session:
        events = session.events()
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()
        await session.backup()
        assert (await waiting).kind == "published"


@pytest.mark.parametrize("operation", ["backup", "restore"])
async def test_a_cancelled_operation_leaves_no_thread_behind(
    operation: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` and `asyncio.timeout` cancel a task as asyncio does, of which anyio's threads know nothing."""
    under_way = threading.Event()

    def endless(*_: object) -> None:
        under_way.set()
        try:
            while True:
                from_thread.check_cancelled()
                time.sleep(0.5)
        finally:
            under_way.clear()

    async with session_of(database) as session:
        await session.backup()
        write(database, "INSERT INTO notes VALUES ('second')")
        before = sorted(database.parent.glob("**/*"))
        with monkeypatch.context() as patch:
            patch.setattr(SqliteSnapshotter, "_copy_live", endless)
            patch.setattr(reader, "_write_run", endless)
            work = session.backup() if operation == "backup" else session.restore(force=True)
            task = asyncio.create_task(work)
            while not under_way.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not under_way.is_set(), "its thread still works, with what is closed by now"
        assert sorted(database.parent.glob("**/*")) == before
        assert [each.outcome for each in (await session.backup()).databases] == ["published"]


async def test_several_databases_are_restored_by_name(database: Path) -> None:
    other = database.with_name("other.db")
    write(other, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('of the other')")
    async with session_of(database, other) as session:
        assert [each.outcome for each in (await session.backup()).databases] == ["published", "published"]
        with pytest.raises(sidecar.errors.UsageError, match="several databases"):
            await session.restore(output=database.with_name("copy.db"))
        with pytest.raises(sidecar.errors.UsageError, match="not one of the databases"):
            await session.restore("third.db", output=database.with_name("copy.db"))
        result = await session.restore("other.db", output=database.with_name("copy.db"))
        assert notes(result.path) == ["of the other"]


async def test_a_database_of_another_lineage_is_not_published_above_the_newest(database: Path) -> None:
    async with session_of(database) as session:
        await session.backup()
        database.unlink()
        database.with_name("app.db.sidecar.json").unlink()
        write(database, "CREATE TABLE unrelated (text)")
        with pytest.raises(sidecar.errors.ConfigurationError, match="does not descend"):
            await session.backup()
        assert len((await session.list()).restore_points) == 1


async def test_nothing_to_back_up_and_nothing_to_restore_raise(tmp_path: Path) -> None:
    async with session_of(tmp_path / "app.db") as session:
        with pytest.raises(sidecar.errors.ConfigurationError, match="there is no database"):
            await session.backup()
        with pytest.raises(sidecar.errors.NothingToRestore):
            await session.restore()
        with pytest.raises(sidecar.errors.NothingToRestore):
            await session.verify()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "no databases given"),
        ({"databases": ["app.db"], "store": "ftp://host"}, "store: .*ftp://host.* is neither"),
        ({"databases": ["app.db"], "interval": "often"}, "interval: 'often'"),
        ({"databases": ["app.db"], "intervall": "5m"}, "intervall"),
    ],
)
async def test_settings_that_are_wrong_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(sidecar.errors.ConfigurationError, match=says):
        async with sidecar.open(**settings):
            pass


async def test_the_environments_settings_are_not_read(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_DATABASES", "another.db")
    monkeypatch.setenv("SIDECAR_INTERVALL", "a typo that the command line refuses")
    async with sidecar.open(sidecar.Settings(databases=(database,), store=f"file://{database.parent}/s")) as session:
        assert [each.path for each in session.databases] == [database]


def test_another_event_loop_than_asyncios_is_refused(database: Path) -> None:
    """As trio's would be: nothing of asyncio's runs there."""
    opening = sidecar.open(databases=[database]).__aenter__()
    with pytest.raises(sidecar.errors.ConfigurationError, match="needs a running asyncio event loop"):
        opening.__await__().__next__()


def test_the_import_alone_brings_nothing_else(tmp_path: Path) -> None:
    """The command line starts with it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=clean_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other() -> None:
    assert [name for name in sidecar.__all__ if getattr(sidecar, name) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sidecar.nothing


def test_the_process_stays_as_it_is(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal handlers, the collector, the allocator, the loop's executor, factory and policy, and structlog."""
    told: list[str] = []
    gc.unfreeze()  # what another test has frozen in this process would become less by itself
    monkeypatch.setattr(ctypes, "CDLL", lambda name: told.append(f"the C library {name} is asked for"))

    def seen() -> dict[str, object]:
        return {
            "signals": [signal.getsignal(number) for number in signal.valid_signals()],
            "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug(), len(gc.callbacks)),
            "policy": type(asyncio.get_event_loop_policy()),
            "structlog": structlog.is_configured(),
        }

    async def embedding() -> None:
        loop = asyncio.get_running_loop()
        before = (seen(), loop._default_executor, loop.get_task_factory(), loop.get_exception_handler())  # type: ignore[attr-defined]
        async with session_of(database) as session:
            await session.backup()
            await session.list()
            await session.verify(all=True)
            await session.status()
            await session.restore(force=True)
            within = (seen(), loop._default_executor, loop.get_task_factory(), loop.get_exception_handler())  # type: ignore[attr-defined]
        after = (seen(), loop._default_executor, loop.get_task_factory(), loop.get_exception_handler())  # type: ignore[attr-defined]
        assert before == within == after

    asyncio.run(embedding())
    assert told == []


def embedded(directory: Path, module: str) -> dict[str, Any]:
    """What a program saw that backs up with this module beside its own transaction of the standard library's."""
    script = str(Path(__file__).with_name("embedding.py"))
    environment = {**clean_environment(directory), "TMPDIR": str(directory)}
    done = subprocess.run(
        [sys.executable, script, str(directory), module], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_open_transaction_of_this_process_keeps_its_locks_and_its_changes(tmp_path: Path) -> None:
    """
    1. A transaction of the standard library's sqlite3 is open, in WAL mode. The session does all that it can.
    2. The kernel has the same locks as before, another process may not write, and the commit succeeds.
    3. The backup has the last committed state, and nothing of the open transaction.
    """
    seen = embedded(tmp_path, "sqlite3")
    assert len(seen["before"]) >= 2, "its lock on the database, and those of WAL mode on the index"
    assert seen["after"] == seen["before"]
    assert seen["another"] == "database is locked"
    assert (seen["copied"], seen["committed"], seen["checked"]) == (["committed"], ["committed", "open"], "ok")


def test_a_second_sqlite_library_in_this_process_would_drop_the_locks(tmp_path: Path) -> None:
    """Why a session does not choose its SQLite by itself, and that the test above can fail."""
    pytest.importorskip("pysqlite3")
    seen = embedded(tmp_path, "pysqlite3.dbapi2")
    assert len(seen["after"]) < len(seen["before"])


async def test_two_verifications_at_once_do_not_remove_each_others_scratch_files(database: Path) -> None:
    """As two `sidecar verify` on one machine: scratch files of the same name are of the same database."""
    write(database, *(f"INSERT INTO notes VALUES ('{number} {'x' * 900_000}')" for number in range(8)))
    async with session_of(database) as session:
        await session.backup()
        reports = await asyncio.gather(*(session.verify(all=bool(number % 2)) for number in range(6)))
        assert [report.good for report in reports] == [True] * 6
