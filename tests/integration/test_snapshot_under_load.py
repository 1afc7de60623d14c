"""Snapshots of a database that other processes write to as fast as they can."""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import DatabaseBusy
from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.harness.writer_process import WriterProcess
from tests.harness.writers import check_ledger, fill, open_database

pytestmark = pytest.mark.anyio

MEGABYTES = 110
WRITERS = 3
SNAPSHOTS = 4
BOUND = 30.0

# Commits as fast as it can, and writes the longest commit in seconds to a file when it is told to stop.
TIMED_WRITER = """
import signal, sys, time
from contextlib import closing
from pathlib import Path
from tests.harness.writers import create_ledger, open_database, transfer
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
longest, number = 0.0, 0
with closing(open_database(Path(sys.argv[1]))) as connection:
    create_ledger(connection, 100)
    Path(sys.argv[2]).touch()
    while not stop:
        started = time.monotonic()
        number = transfer(connection, number % 100, 1)
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.001)
Path(sys.argv[2]).write_text(str(longest))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """For the writers."""
    return clean_environment(tmp_path, PYTHONPATH=ROOT)


async def snapshot_number(snapshotter: SqliteSnapshotter, path: Path) -> int:
    """Take a snapshot; the last number in it. AssertionError if it is no committed state."""
    async with snapshotter.snapshot(path) as snapshot:
        return await to_thread.run_sync(check_ledger, snapshot.path)


async def test_every_snapshot_is_a_committed_state_however_many_write(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    """It holds every commit acknowledged before it began, no half transaction, and ends in bounded time.

    An unpinned copy would begin anew with each foreign write, and never end.
    """
    path = tmp_path / "app.db"
    fill(path, MEGABYTES)
    snapshotter = SqliteSnapshotter(Staging())
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                WriterProcess(path, "--seed", str(seed), "--padding", "500", env=environment, directory=tmp_path)
            )
            for seed in range(WRITERS)
        ]
        for writer in writers:
            await to_thread.run_sync(writer.wait_acked, 1)
        for _ in range(SNAPSHOTS):
            acked = max(writer.acked() for writer in writers)
            started = time.monotonic()
            async with snapshotter.snapshot(path) as snapshot:
                seconds = time.monotonic() - started
                written = max(writer.acked() for writer in writers) - acked
                number = await to_thread.run_sync(check_ledger, snapshot.path)
            print(f"{snapshot.size >> 20} MiB in {seconds:.2f} s, {written} commits meanwhile")
            assert seconds < BOUND
            assert number >= acked
            assert written > 0, "the writers were blocked"
    assert check_ledger(path) >= number


async def test_writer_goes_on_while_a_snapshot_is_taken(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Prints its longest commit; what is certain is that it commits during the copy, and that the copy is good."""
    path, said = tmp_path / "app.db", tmp_path / "said"
    fill(path, 50)
    snapshotter = SqliteSnapshotter(Staging(tmp_path))
    child = Child([sys.executable, "-c", TIMED_WRITER, str(path), str(said)], environment)
    try:
        while not said.exists():
            assert child.running
            await anyio.sleep(0.02)
        for _ in range(3):
            await snapshot_number(snapshotter, path)
        child.popen.terminate()
        assert child.popen.wait(30) == 0
    finally:
        child.kill()
    print(f"longest commit: {float(said.read_text()) * 1000:.1f} ms")


@pytest.mark.parametrize("switch", [True, False])
async def test_busy_app_in_delete_mode_is_switched_or_copied(
    tmp_path: Path, environment: Mapping[str, str], *, switch: bool
) -> None:
    """Never damaged, never waiting for ever; a snapshot may be put off, but not each time."""
    path = tmp_path / "app.db"
    fill(path, 10, journal_mode="delete")
    snapshotter = SqliteSnapshotter(Staging(tmp_path), switch_to_wal=switch)
    taken = busy = 0
    with WriterProcess(path, "--journal-mode", "delete", env=environment, directory=tmp_path) as writer:
        await to_thread.run_sync(writer.wait_acked, 20)
        limit = time.monotonic() + 2 * BOUND
        while taken < 4 and time.monotonic() < limit:
            acked, started = writer.acked(), time.monotonic()
            try:
                number = await snapshot_number(snapshotter, path)
            except DatabaseBusy:
                busy += 1
                continue
            finally:
                assert time.monotonic() - started < BOUND
            taken += 1
            assert number >= acked
        await to_thread.run_sync(writer.wait_acked, writer.acked() + 20)
        assert writer.stop() == 0
    with closing(open_database(path)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    print(f"{taken} snapshots, {busy} put off; {mode}")
    assert taken == 4
    assert switch or mode == "delete"
    assert check_ledger(path) >= writer.acked()
