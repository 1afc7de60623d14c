"""The states that `sidecar diff` compares: every instant of a stream is exactly what was committed then."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from anyio import to_thread

from sidecar.api import open_session
from sidecar.bootstrap import Services, open_services
from sidecar.compare.cache import chunk_cache
from sidecar.compare.comparison import Source
from sidecar.compare.options import Options
from sidecar.errors import DamagedRestorePoint, NothingToRestore, UsageError
from sidecar.model import AtRestorePoint, Position
from sidecar.progress import no_progress
from sidecar.settings.given import configure
from sidecar.states import Place, States, difference
from sidecar.storage.file.store import FileStore
from tests.harness.environment import ROOT, clean_environment
from tests.harness.recorded import Recorder, recorded
from tests.harness.sql_process import SqlProcess
from tests.harness.writer_process import WriterProcess
from tests.harness.writers import check_ledger
from tests.integration.streamed import Streamed, comparable, instant

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Twelve commits of every kind."""
    with recorded(tmp_path / "live.db") as recorder:
        recorder.wander(random.Random(15), 12)
        yield recorder


@pytest.fixture
def scene(recorder: Recorder, tmp_path: Path) -> Streamed:
    return Streamed(FileStore(tmp_path / "store"), recorder, tmp_path / "machine")


@pytest.fixture
async def services(scene: Streamed, tmp_path: Path) -> AsyncIterator[Services]:
    settings = {"databases": [scene.machine.database.path], "store": f"file://{tmp_path}/store"}
    async with open_services(configure(settings)) as services:
        yield services


async def bytes_of(services: Services, directory: Path, name: str) -> bytes:
    """The whole state that a person names."""
    with chunk_cache(directory) as cache:
        states = States(services, services.databases[0], Place(directory, cache, services.driver, no_progress))
        async with states.opened(name, in_place=True) as source:
            return await to_thread.run_sync(_whole, source)


def _whole(source: Source) -> bytes:
    with source as found:
        state = found.state
        return b"".join(state.read(at << 20, 1 << 20) for at in range(state.chunks))


async def test_every_instant_is_what_was_committed_then(scene: Streamed, services: Services, tmp_path: Path) -> None:
    """One restore point in the middle of a stream; times before and after it, and the newest state."""
    states = scene.recorder.states
    point = await scene.point(0, 0.1)
    stream, _ = await scene.stream(1, 12, AtRestorePoint(point.key))
    await scene.point(4, 6.7, Position(stream, 4))
    for commit in (1, 3, 5, 8, 12):
        found = await bytes_of(services, tmp_path, instant(commit + 0.5).isoformat())
        assert comparable(found) == comparable(states[commit]), commit
    assert comparable(await bytes_of(services, tmp_path, "newest")) == comparable(states[12])
    assert comparable(await bytes_of(services, tmp_path, "newest~0")) == comparable(states[4])
    assert comparable(await bytes_of(services, tmp_path, "~1")) == comparable(states[0])
    with pytest.raises(NothingToRestore, match="has 2 restore points, so there is no newest~2"):
        await bytes_of(services, tmp_path, "newest~2")
    with pytest.raises(UsageError, match=r"'yesterday' is neither a state of app\.db nor a file"):
        await bytes_of(services, tmp_path, "yesterday")


async def test_a_time_whose_commits_are_lost_has_no_state(scene: Streamed, services: Services, tmp_path: Path) -> None:
    """A segment is gone: what was written after it is not known, and never left out silently."""
    point = await scene.point(0, 0.1)
    await scene.stream(1, 12, AtRestorePoint(point.key))
    next((tmp_path / "store").rglob("0000000000000006-*.zst")).unlink()
    assert comparable(await bytes_of(services, tmp_path, instant(4.5).isoformat())) == comparable(
        scene.recorder.states[4]
    )
    with pytest.raises(NothingToRestore, match="is lost"):
        await bytes_of(services, tmp_path, instant(9.5).isoformat())


async def test_a_restore_point_is_compared_with_a_later_instant(
    scene: Streamed, services: Services, tmp_path: Path
) -> None:
    point = await scene.point(0, 0.1)
    await scene.stream(1, 12, AtRestorePoint(point.key))
    found = difference(services, services.databases[0], ("newest~0", "newest"), Options(), no_progress)
    async with found as result:
        (notes,) = [each for each in await result.tables() if each.name == "notes"]
        assert notes.differs
    assert list((tmp_path / "t").iterdir()) == []


async def test_the_live_database_is_a_committed_state_while_an_app_writes(
    scene: Streamed, services: Services, tmp_path: Path
) -> None:
    """What is compared holds every commit from before, and no half one; what differs later is what the app did since."""
    path, copy = scene.machine.database.path, tmp_path / "copy.db"
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    with WriterProcess(path, "--rate", "200", env=environment, directory=tmp_path) as writer:
        acked = await to_thread.run_sync(writer.wait_acked, 5)
        copy.write_bytes(await bytes_of(services, tmp_path, "live"))
        last = check_ledger(copy)
        assert last >= acked
        more = await to_thread.run_sync(writer.wait_acked, last + 20)
        found = difference(services, services.databases[0], (str(copy), "live"), Options(), no_progress)
        async with found as result:
            tables = {each.name: each for each in await result.tables()}
        assert tables["sequence"].added >= more - last
        assert (tables["sequence"].removed, tables["sequence"].changed) == (0, 0)
        assert (tables["checking"].added, tables["checking"].removed) == (0, 0)
        assert writer.child.running
    assert list((tmp_path / "t").iterdir()) == []


async def test_a_damaged_chunk_is_named_and_the_other_tables_are_compared_if_asked(tmp_path: Path) -> None:
    """Two tables of some chunks each; in the store, a byte of the second one is wrong."""
    path, directory = tmp_path / "two.db", tmp_path / "two"
    with SqlProcess(path) as app:
        for table in ("a", "b"):
            app.run(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, x)")
            for _ in range(8):
                app.run(f"INSERT INTO {table}(x) VALUES (randomblob(250000))")
        async with open_session(databases=[path], store=f"file://{directory}", lease="off") as session:
            await session.backup()
            (damaged,) = directory.rglob("*.sqlite3.zst")
            with damaged.open("r+b") as file:
                file.seek(damaged.stat().st_size * 7 // 10)
                file.write(b"damage")
            app.script("UPDATE a SET x = 1 WHERE id = 3", "UPDATE b SET x = 1")
            with pytest.raises(DamagedRestorePoint, match=r"is damaged: chunk 2 of 4: .*") as raised:
                async with session.diff("newest", "live"):
                    pass
            assert raised.value.hint == "`sidecar diff --skip-damaged` compares the tables that can be read"
            async with session.diff("newest", "live", skip_damaged=True) as found:
                (compared,) = await found.tables()
                assert (compared.name, compared.added, compared.removed, compared.changed) == ("a", 0, 0, 1)
                ((name, reason),) = await found.not_compared()
                assert (name, "chunk 2 of 4" in reason) == ("b", True)
