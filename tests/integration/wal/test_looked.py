"""When the log was last looked at: whatever was committed before that is captured, which is what `unprotected_seconds` rests on."""

import time
from pathlib import Path

import anyio
import pytest

from sidecar.database.wal import Capture, CutCause, Limits, NotNow
from sidecar.database.wal.hands import Hands
from tests.harness.sql_process import SqlProcess
from tests.integration.wal.replica import DRIVER

pytestmark = pytest.mark.anyio


async def test_a_look_that_cut_the_stream_has_not_seen_what_it_was_cut_at(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    capture = Capture(DRIVER, Limits(fold_bytes=50_000, cut_bytes=100_000))
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        async with capture.running():
            feed = capture.feed(path)
            await feed.begin()
            app.run("INSERT INTO t VALUES (1)")
            await feed.flush()
            before = time.monotonic()
            app.run("INSERT INTO t VALUES (randomblob(300000))")
            with anyio.fail_after(20):
                while feed.status.cut is None:
                    await anyio.sleep(0.01)
            assert feed.status.cut.cause is CutCause.BACKLOG
            assert len((await feed.take(0)).commits) == 1, "what came before it can still be taken"
            assert feed.looked <= before + 0.05


async def test_a_look_at_which_the_database_was_locked_has_seen_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_self: Hands) -> None:
        raise NotNow

    path = tmp_path / "app.db"
    capture = Capture(DRIVER)
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        async with capture.running():
            feed = capture.feed(path)
            await feed.begin()
            monkeypatch.setattr(Hands, "begin", locked)
            before = time.monotonic()
            app.run("INSERT INTO t VALUES (1)")
            await anyio.sleep(0.3)
            assert feed.looked <= before + 0.05
            monkeypatch.undo()
            assert len((await feed.take(5)).commits) == 1
            assert feed.looked > before
