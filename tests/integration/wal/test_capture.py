"""Feeds: commits reach the event loop, and what ends a stream does after them."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from sidecar.database import standard_driver
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.wal import (
    Capture,
    Captured,
    CutCause,
    Feed,
    FeedState,
    Limits,
    NotStreamable,
    StreamCut,
    follower,
    worker,
)
from sidecar.database.wal.wakeups import Wakeups
from tests.harness.sql_process import NEW, SqlProcess
from tests.integration.wal.replica import DRIVER

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO t VALUES (randomblob(3000))"
CREATE = "CREATE TABLE IF NOT EXISTS t(a)"


@asynccontextmanager
async def feeding(path: Path, limits: Limits | None = None) -> AsyncIterator[Feed]:
    capture = Capture(DRIVER, limits)
    async with capture.running():
        feed = capture.feed(path)
        assert feed.status.state is FeedState.OFF
        await feed.begin()
        yield feed


async def taken(feed: Feed, count: int) -> list[Captured]:
    commits: list[Captured] = []
    with anyio.fail_after(20):
        while len(commits) < count:
            commits += (await feed.take(5)).commits
    return commits


async def test_commits_are_taken_as_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path) as feed:
            assert not (await feed.take(0.01)).commits
            app.script(INSERT, INSERT)
            commits = await taken(feed, 2)
            assert [each.number for each in commits] == [1, 2]
            app.run(INSERT)
            await feed.flush()
            batch = await feed.take(0)
            assert [each.number for each in batch.commits] == [3]
            assert batch.end.frame == feed.index().frame
            assert feed.status.commits == 3


async def test_a_bug_in_the_thread_cuts_the_streams_and_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around it are the app, the backups, and the final backup."""

    def broken(_self: Wakeups, _seconds: float) -> set[Path]:
        raise OSError(errno.EIO, "no more")

    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path) as feed:
            app.run(INSERT)
            await feed.flush()
            monkeypatch.setattr(Wakeups, "wait", broken)
            with anyio.fail_after(20), pytest.raises(StreamCut, match="not followed any more"):
                while True:
                    await feed.take(5)
            for ask in (feed.flush, feed.present().__aenter__, feed.begin):
                with pytest.raises(StreamCut):
                    await ask()
            await feed.stop()


async def test_a_snapshot_finds_its_commit(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path) as feed:
            app.script(INSERT, INSERT)
            async with feed.present():
                index = feed.index()
                app.run(INSERT)
                assert await feed.locate(index) == 2
                assert await feed.locate(feed.index()) == 3


async def test_a_database_that_nobody_has_open_is_opened_for_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script(CREATE, INSERT)
    async with feeding(path, Limits(lone_seconds=0.0)) as feed:
        with anyio.fail_after(20):
            while path.with_name("app.db-shm").exists():
                await anyio.sleep(0.01)
        with pytest.raises(StreamCut):
            feed.index()
        async with feed.present():
            assert await feed.locate(feed.index()) == 0
        with SqlProcess(path) as app:
            app.run(INSERT)
            assert len(await taken(feed, 1)) == 1


async def test_tables_are_read_with_the_follower_knowing_of_that(tmp_path: Path) -> None:
    """Else it would take our own connection for one of the app's, or not see it at all."""
    path, staying = tmp_path / "app.db", set[int]()
    with SqlProcess(path) as app:
        app.run(CREATE)
        app.run(
            "WITH RECURSIVE n(a) AS (VALUES (1) UNION ALL SELECT a + 1 FROM n LIMIT 5000) INSERT INTO t SELECT a FROM n"
        )
        async with feeding(path) as feed:
            track = feed._track
            assert track

            def note(_sleep: Callable[[float], bool]) -> None:
                staying.add(track.follower.staying)

            assert not await SqliteIntegrity(DRIVER, {path: feed}).unreadable_live(path, note)
            assert (staying, track.follower.staying) == ({1}, 0)


async def test_a_cut_comes_after_what_was_captured_before(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path) as feed:
            app.run(INSERT)
            await feed.flush()
            path.rename(tmp_path / "elsewhere.db")
            with anyio.fail_after(20):
                while feed.status.state is not FeedState.CUT:
                    await anyio.sleep(0.01)
            assert len((await feed.take(5)).commits) == 1
            for attempt in (feed.take(5), feed.flush(), feed.locate(Captured)):  # type: ignore[arg-type]
                with pytest.raises(StreamCut) as cut:
                    await attempt
                assert cut.value.cause is CutCause.REPLACED
            (tmp_path / "elsewhere.db").rename(path)
            await feed.begin()
            app.run(INSERT)
            assert [each.number for each in await taken(feed, 1)] == [1]


async def test_what_is_ordered_before_a_cut_does_not_hide_its_cause(tmp_path: Path) -> None:
    """A restore point that is due looks at the log when the thread has just ended the stream, and told nobody yet."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path) as feed:
            track = feed._require_track()
            app.run("PRAGMA journal_mode=DELETE")

            def look_and_hop(_worker: worker.Worker) -> None:
                while track.cut is None:
                    track.look(0.0, thorough=True)
                feed._hop(track, lambda _follower: None)

            with pytest.raises(StreamCut) as cut:
                await feed._capture.call(look_and_hop)
            with pytest.raises(StreamCut) as again:
                await feed.take(5)
            assert cut.value.cause is again.value.cause
            assert cut.value.cause is CutCause.MODE


async def test_an_app_that_closes_wakes_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has committed is captured at once, not at the next look."""
    for name in ("EVERY", "EVERY_PARKED"):
        monkeypatch.setattr(worker, name, 1e9)
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script(CREATE, INSERT)
        async with feeding(path) as feed:
            app.run(INSERT)
            app.close()
            assert len(await taken(feed, 1)) == 1
            with anyio.fail_after(20):
                while feed.status.wal_frames:
                    await anyio.sleep(0.001)


async def test_a_log_that_an_app_left_during_a_copy_is_emptied_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not at the next look at who has the database open, which never comes here."""
    for module in (follower, worker):
        monkeypatch.setattr(module, "BETWEEN_STATS", 3600.0)
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run(CREATE)
        async with feeding(path, Limits(idle_seconds=0.05)) as feed:
            async with feed.present():
                with closing(DRIVER.connect(path, "ro")) as copying:
                    copying.execute("SELECT * FROM t").fetchall()
                    app.run(INSERT)
                    await taken(feed, 1)
                    app.close()
                    with anyio.fail_after(20):
                        while feed.status.state is not FeedState.PARKED:
                            await anyio.sleep(0.01)
                assert Path(f"{path}-wal").stat().st_size
            with anyio.fail_after(20):
                while Path(f"{path}-wal").stat().st_size:
                    await anyio.sleep(0.01)


async def test_a_stream_is_resumed_by_its_place_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script(CREATE, INSERT)
        async with feeding(path) as feed:
            app.run(INSERT)
            await feed.flush()
            end = (await feed.take(0)).end
            await feed.stop()
            with pytest.raises(StreamCut) as cut:
                await feed.take(0)
            assert cut.value.cause is CutCause.STOPPED
            assert feed.status.state is FeedState.OFF
            app.script(INSERT, INSERT)
            await feed.resume(end, 1)
            assert [each.number for each in await taken(feed, 2)] == [2, 3]


async def test_several_databases_are_followed_by_one_thread(tmp_path: Path) -> None:
    apps = [SqlProcess(tmp_path / f"{number}.db", NEW) for number in range(3)]
    capture = Capture(DRIVER)
    async with capture.running():
        for number, app in enumerate(apps):
            app.run(CREATE)
            await capture.feed(tmp_path / f"{number}.db").begin()
        for app in apps:
            app.run(INSERT)
        for number in range(3):
            assert len(await taken(capture.feed(tmp_path / f"{number}.db"), 1)) == 1
    for app in apps:
        app.kill()


async def test_why_a_database_is_not_followed_is_said_in_a_sentence(tmp_path: Path) -> None:
    missing, empty, rollback, wal = (tmp_path / f"{name}.db" for name in ("missing", "empty", "rollback", "wal"))
    empty.touch()
    with SqlProcess(rollback, rollback=True) as app, SqlProcess(wal) as other:
        app.run(CREATE)
        other.run(CREATE)
        capture, old = Capture(DRIVER), Capture(standard_driver())
        async with capture.running(), old.running():
            for path, words in ((missing, "no database at"), (empty, "is empty"), (rollback, "journal mode delete")):
                with pytest.raises(NotStreamable, match=words) as why:
                    await capture.feed(path).begin()
                assert str(path) in why.value.reason
            if old.driver.version_info < (3, 51, 3):
                with pytest.raises(NotStreamable, match=r"needs 3\.51\.3 or newer"):
                    await old.feed(wal).begin()


async def test_an_app_that_locks_the_database_exclusively_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script("PRAGMA locking_mode=EXCLUSIVE", CREATE, INSERT)
        capture = Capture(DRIVER)
        async with capture.running():
            with pytest.raises(NotStreamable, match="locked"):
                await capture.feed(path).begin()
        app.run(INSERT)


async def test_who_is_cancelled_on_the_way_in_does_not_keep_the_database_open(tmp_path: Path) -> None:
    """A cycle is, by the end of the daemon; a log that is never left would meet a file that is put in its place."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.script(CREATE, INSERT)
    async with feeding(path, Limits(lone_seconds=0.0)) as feed:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with feed.present():
                pytest.fail("it was cancelled before")
        await feed.flush()
        with anyio.fail_after(20):
            while path.with_name("app.db-shm").exists():
                await anyio.sleep(0.01)
