"""Cancelled at random instants: nothing crashes, nothing is left behind, nothing half done is taken for whole."""

import os
import random
import signal
import sys
from pathlib import Path

import anyio
import pytest

from sidecar.backup.history import Start
from sidecar.errors import SidecarError
from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.harness.seaweed import Seaweed
from tests.harness.writers import check_ledger, fill
from tests.integration.wiring import Machine, store_of, write

SNAPSHOTS = """
import random, sys
from pathlib import Path
import anyio
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
async def main():
    source, staged, cancelled = random.Random(3), Path(sys.argv[2]), 0
    snapshotter = SqliteSnapshotter(Staging(staged))
    for _ in range(50):
        with anyio.move_on_after(source.random() * 0.06) as scope:
            async with snapshotter.snapshot(Path(sys.argv[1])):
                await anyio.sleep(source.random() * 0.02)
        cancelled += scope.cancelled_caught
        assert not list(staged.iterdir()), "left in staging"
    async with snapshotter.snapshot(Path(sys.argv[1])) as snapshot:
        await SqliteIntegrity().check(snapshot.path, "full")
    assert cancelled > 10, cancelled
    print("survived")
anyio.run(main)
"""

QUERIES = """
import os, random, sys, threading, time
from pathlib import Path
import anyio
from sidecar.database import statistics
from sidecar.database.driver import default_driver
from sidecar.database.integrity import SqliteIntegrity
statistics.ROWS_COUNTED = 1 << 40  # rows are counted in a large database, too: that takes a while
PATH, KIND = Path(sys.argv[1]), sys.argv[2]
def throttled(sleep):
    sleep(0.005)
def stuck(sleep):
    sleep(60)
async def query():
    if KIND == "statistics":
        await statistics.contents_of(default_driver(), PATH)
    else:
        await SqliteIntegrity().check(PATH, "full", {"throttled": throttled, "stuck": stuck}.get(KIND))
def is_open():
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samefile(f"/proc/self/fd/{name}", PATH):
                return True
        except OSError:
            pass
    return False
async def main():
    source, cancelled, longest, whole = random.Random(6), 0, 0.0, 0.05
    threads = threading.active_count()
    if KIND != "stuck":
        await query()  # the first one imports
        started = time.monotonic()
        await query()
        whole = min(0.2, time.monotonic() - started)
    for _ in range(300):
        with anyio.move_on_after(source.random() * whole) as scope:
            await query()
        longest = max(longest, anyio.current_time() - scope.deadline)
        cancelled += scope.cancelled_caught
        assert not is_open(), "left open"
        if cancelled == 15:
            break
    assert cancelled == 15, cancelled
    assert longest < 2, f"it took {longest} s to end"
    with anyio.fail_after(1):  # aiosqlite's thread says that it has closed and then ends
        while threading.active_count() > threads:
            await anyio.sleep(0.01)
    if KIND != "stuck":
        await query()
    print("survived")
anyio.run(main)
"""

CYCLES = """
import random, sys, time
from pathlib import Path
import anyio
from sidecar.backup.history import Start
from tests.integration.wiring import Machine, store_of, write
async def main():
    source, path = random.Random(4), Path(sys.argv[1])
    async with store_of(sys.argv[2], sys.argv[3]) as store:
        machine = Machine(store, path, staging=path.parent)
        await machine.boot()
        machine.backup.cycle.start_from(Start(publish="test"))
        await machine.backup.cycle.run()
        write(path, 1)
        started, cancelled = time.monotonic(), 0
        await machine.backup.cycle.run()
        whole = time.monotonic() - started
        for _ in range(48):
            write(path, 1)
            with anyio.move_on_after(source.random() * 1.5 * whole) as scope:
                await machine.backup.cycle.run()
            cancelled += scope.cancelled_caught
        assert cancelled > 10, cancelled
        machine.backup.cycle.start_from(Start(publish="test"))
        await machine.backup.cycle.run()
        print("survived")
anyio.run(main)
"""


def survive(tmp_path: Path, script: str, *arguments: str, **variables: str) -> None:
    """Run a script to its end in a process of its own: a crash of the interpreter is a failure of the test."""
    said = tmp_path / "said"
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT, PYTHONFAULTHANDLER="1", **variables)
    with said.open("wb") as stream:
        child = Child([sys.executable, "-c", script, *arguments], environment, stdout=stream, stderr=stream)
    try:
        assert child.popen.wait(120) == 0, said.read_text()
    finally:
        child.kill()
    assert "survived" in said.read_text()


def test_snapshots_cancelled_at_random_instants_leave_nothing(tmp_path: Path) -> None:
    """aiosqlite's own backup ends the interpreter here."""
    staged = tmp_path / "staged"
    staged.mkdir()
    fill(tmp_path / "app.db", 40)
    write(tmp_path / "app.db", 10)
    survive(tmp_path, SNAPSHOTS, str(tmp_path / "app.db"), str(staged))
    assert list(staged.iterdir()) == []
    assert check_ledger(tmp_path / "app.db") == 10


@pytest.mark.parametrize("kind", ["integrity", "throttled", "stuck", "statistics"])
def test_queries_cancelled_at_random_instants_leave_no_thread_and_no_open_file(tmp_path: Path, kind: str) -> None:
    """In the middle of an integrity check, of one that gives way to the app, and of counting rows: each ends at once."""
    fill(tmp_path / "app.db", 40, journal_mode="delete")
    survive(tmp_path, QUERIES, str(tmp_path / "app.db"), kind)
    assert {found.name for found in tmp_path.glob("app.db*")} == {"app.db"}


@pytest.mark.anyio
async def test_cycles_cancelled_at_random_instants_leave_only_good_restore_points(
    tmp_path: Path, seaweed: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No upload stays open, no staged file is left, and every restore point that came to be is whole.

    Takes longer than ten seconds: fifty cycles of a database of 16 MiB, and a download of each restore point.
    """
    path = tmp_path / "app.db"
    fill(path, 16)
    write(path, 10)
    await anyio.to_thread.run_sync(
        lambda: survive(tmp_path, CYCLES, str(path), bucket, seaweed.endpoint, **seaweed.environment())
    )
    assert seaweed.s3.open_uploads(bucket) == []
    assert not list(tmp_path.glob("*.snapshot*"))
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    async with store_of(bucket, seaweed.endpoint) as store:
        machine = Machine(store, tmp_path / "scratch.db")
        points = await machine.points()
        for number, point in enumerate(points):
            restored = await machine.reader.download(point, tmp_path / f"{number}.db")
            assert restored.contents.size == point.size
            assert 10 <= check_ledger(tmp_path / f"{number}.db") <= 60
            (tmp_path / f"{number}.db").unlink()
    print(f"{len(points)} restore points")
    assert len(points) > 2


@pytest.mark.anyio
async def test_store_that_is_cut_off_and_back_loses_nothing(
    tmp_path: Path, seaweed: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed in the middle of publishes: what was confirmed stays, what failed is published later."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "app.db"
    fill(path, 16)
    async with store_of(bucket, seaweed.endpoint) as store:
        machine = Machine(store, path, staging=tmp_path)
        machine.retrying._policy = type(machine.retrying._policy)(0.2, 0.05)
        write(path, 10)
        await machine.backup.cycle.run()
        confirmed = (await machine.newest()).key
        async with anyio.create_task_group() as group:
            write(path, 10)
            group.start_soon(seaweed_dies, seaweed, random.Random(5).random() * 0.1)
            with pytest.raises(SidecarError):
                while True:
                    machine.backup.cycle.start_from(Start(publish="test"))
                    await machine.backup.cycle.run()
        await anyio.to_thread.run_sync(seaweed.restart)
        machine.backup.cycle.start_from(Start(publish="test"))
        assert await machine.backup.cycle.run() == "published"
        points = await machine.points()
        assert confirmed in {point.key for point in points}
        await machine.reader.download(points[-1], tmp_path / "restored.db")
    assert check_ledger(tmp_path / "restored.db") == 20


async def seaweed_dies(seaweed: Seaweed, after: float) -> None:
    """SIGKILL in a while."""
    await anyio.sleep(after)
    assert seaweed._child is not None
    os.kill(seaweed._child.pid, signal.SIGKILL)
