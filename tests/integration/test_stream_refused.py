"""A store that refuses segments or their listing, a refused lease, a store that does not answer when a stream begins, and a bug: none of them costs more than the stream."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from structlog.testing import capture_logs

from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import AccessDenied, StoreUnavailable
from sidecar.lease.disabled import NoLease
from sidecar.model import Position
from sidecar.status.health import Level, _streaming
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming import Streaming

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Refusing(MemoryStore):
    """It takes no segment, or does not list them; and while `silent` it does not answer at all."""

    refuses = hides = silent = False

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        if self.silent:
            raise StoreUnavailable("scripted: the store is down")
        if self.refuses and operation == "put" and key.startswith("stream/"):
            raise AccessDenied("scripted: s3:PutObject")
        if self.hides and operation == "list" and key.startswith("stream/"):
            raise AccessDenied("scripted: s3:ListBucket")
        return await super().request(operation, key, work)


class RefusedLease(NoLease):
    """With `refuses`, its object cannot be written."""

    refuses = False

    async def ensure_held(self) -> datetime:
        if self.refuses:
            raise AccessDenied("scripted: lease.json")
        return await super().ensure_held()


async def until(reached: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not reached():
            await anyio.sleep(0.01)


@pytest.fixture
def store() -> Refusing:
    return Refusing()


async def test_a_refused_segment_ends_the_stream_and_nothing_is_unknown(store: Refusing, tmp_path: Path) -> None:
    """Nothing waits for ever, the lease can be released, and it needs attention until the store takes a segment."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        stream, status, demands = streaming.stream, streaming.status, list[str]()
        streaming.report.interval = timedelta(minutes=5)
        async with streaming.capture.running(), anyio.create_task_group() as group:
            await stream.begin(Position("before", 1), None, None)
            store.refuses = True
            group.start_soon(stream.run, demands.append, lambda _at: None)
            app.run("INSERT INTO t VALUES (1)")
            await until(lambda: status.resting_until is not None)
            assert dict(status.cuts) == {"refused": 1}
            assert (status.active, stream.unsettled) == (False, False)
            assert demands, "a restore point protects what the stream does not"
            (found,) = _streaming(streaming.report, streaming.report.databases["app.db"])
            assert (found.level, "s3:PutObject" in found.reason) == (Level.ATTENTION, True)
            assert any("s3:PutObject" in each.message for each in streaming.report.problems)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["listing", "lease"])
async def test_a_stream_that_the_store_does_not_let_begin_is_told(store: Refusing, tmp_path: Path, what: str) -> None:
    """Once, however often it is tried; and restore points are published as without a stream."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        fence = RefusedLease(store)
        streaming = Streaming(store, tmp_path / "app.db", fence=fence, rest=timedelta(seconds=0.01))
        stream, status, demands = streaming.stream, streaming.status, list[str]()
        store.hides, fence.refuses = what == "listing", what == "lease"
        copies = SqliteSnapshotter(Staging(tmp_path), feeds={streaming.database.path: streaming.feed})
        with capture_logs() as logs:
            async with streaming.capture.running(), anyio.create_task_group() as group:
                await stream.begin(None, None, None)
                app.run("INSERT INTO t VALUES (1)")
                async with copies.snapshot(streaming.database.path) as copy:
                    assert copy.followed
                    assert await stream.locate(copy) is None
                group.start_soon(stream.run, demands.append, lambda _at: None)
                await until(lambda: status.cuts["refused"] > 1)
                assert "scripted" in status.refused
                assert not stream.unsettled
                assert demands, "a restore point protects what the stream does not"
                with anyio.fail_after(20):
                    await stream.finish()
                group.cancel_scope.cancel()
        assert [each["log_level"] for each in logs if each["event"] == "stream cut"][:2] == ["warning", "debug"]


async def test_a_lease_that_is_refused_at_the_end_does_not_keep_the_final_backup(
    store: Refusing, tmp_path: Path
) -> None:
    """A segment whose outcome is unknown stays so: the lease is left to its ttl."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        fence = RefusedLease(store)
        streaming = Streaming(store, tmp_path / "app.db", fence=fence)
        async with streaming.capture.running():
            await streaming.stream.begin(Position("before", 1), None, None)
            app.run("INSERT INTO t VALUES (1)")
            store.lose_reply("put")

            def then_refused(operation: str, _key: str) -> None:
                fence.refuses = fence.refuses or operation == "put"

            store.hook = then_refused
            with anyio.fail_after(20):
                await streaming.stream.finish()
                await streaming.stream.settle()
            assert streaming.stream.unsettled


async def test_a_segment_that_is_refused_at_the_end_leaves_nothing_unknown(store: Refusing, tmp_path: Path) -> None:
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        async with streaming.capture.running():
            await streaming.stream.begin(Position("before", 1), None, None)
            app.run("INSERT INTO t VALUES (1)")
            store.refuses = True
            with anyio.fail_after(20):
                await streaming.stream.finish()
            assert not streaming.stream.unsettled


async def test_a_refusal_after_an_attempt_without_an_answer_leaves_that_unknown(
    store: Refusing, tmp_path: Path
) -> None:
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        async with streaming.capture.running():
            await streaming.stream.begin(Position("before", 1), None, None)
            app.run("INSERT INTO t VALUES (1)")
            store.lose_reply("put")
            put = store.put

            async def then_refused(*arguments: Any, **named: Any) -> Any:
                try:
                    return await put(*arguments, **named)
                finally:
                    store.refuses = True

            store.put = then_refused  # type: ignore[method-assign]
            with anyio.fail_after(20):
                await streaming.stream.finish()
            assert streaming.stream.unsettled


async def test_a_bug_leaves_no_stream_that_seems_to_be_active(store: Refusing, tmp_path: Path) -> None:
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        stream, demands = streaming.stream, list[str]()

        def broken(_looked: float) -> None:
            raise ZeroDivisionError

        async with streaming.capture.running():
            await stream.begin(Position("before", 1), None, None)
            app.run("INSERT INTO t VALUES (1)")
            with anyio.fail_after(20), pytest.raises(ZeroDivisionError):
                await stream.run(demands.append, broken)
            status = streaming.status
            assert (status.active, status.protects, status.pending_since) == (False, False, None)
            assert "bug" in status.reason
            assert demands
            await stream.finish()
            assert not stream.unsettled


async def test_a_store_that_does_not_answer_when_a_stream_begins_does_not_end_the_boot(
    store: Refusing, tmp_path: Path
) -> None:
    """What the app commits meanwhile is captured, and continues what the boot restored."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        async with streaming.capture.running(), anyio.create_task_group() as group:
            store.silent = True
            record = await streaming.stream.begin(Position("before", 1), Position("before", 1), None)
            assert (record.stream, record.after) == (None, Position("before", 1))
            app.run("INSERT INTO t VALUES (1)")
            store.silent = False
            group.start_soon(streaming.stream.run, lambda _reason: None, lambda _at: None)
            await until(lambda: streaming.status.confirmed == 1)
            (found,) = await streaming.published()
            assert found.after == Position("before", 1)
            group.cancel_scope.cancel()


async def test_a_stream_that_meets_what_a_newer_version_wrote_is_cut_and_nothing_else(
    store: Refusing, tmp_path: Path
) -> None:
    """It may come at any time with `lease=off`; restore points are still published, and the daemon goes on."""
    with SqlProcess(tmp_path / "app.db") as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, tmp_path / "app.db")
        stream, status, demands = streaming.stream, streaming.status, list[str]()
        store.hides = True
        async with streaming.capture.running(), anyio.create_task_group() as group:
            await stream.begin(None, None, None)
            app.run("INSERT INTO t VALUES (1)")
            store.hides = False
            of_a_newer_version = "29991231T235959.000Z-0000000001-web/0000000000000001-0000000000000001-1.zst2"
            await store.put(f"stream/app.db/{of_a_newer_version}", b"")
            group.start_soon(stream.run, demands.append, lambda _at: None)
            await until(lambda: status.cuts["error"] > 0 and not status.active)
            assert "newer version" in str(status.last_cut)
            assert status.reason.startswith("cut: ")
            group.cancel_scope.cancel()
