"""A store that refuses segments, does not answer when a stream begins, and a bug: none of them costs more than the stream."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from sidecar.errors import AccessDenied, StoreUnavailable
from sidecar.model import Position
from sidecar.status.health import Level, _streaming
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming import Streaming

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Refusing(MemoryStore):
    """It takes no segment, and while `silent` it does not answer at all."""

    refuses = silent = False

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        if self.silent:
            raise StoreUnavailable("scripted: the store is down")
        if self.refuses and operation == "put" and key.startswith("stream/"):
            raise AccessDenied("scripted: s3:PutObject")
        return await super().request(operation, key, work)


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
