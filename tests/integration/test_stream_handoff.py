"""The end of a stream: the lease is not released while a segment may still appear in the store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from sidecar.backup import FinalBackup
from sidecar.backup.loop import Backup
from sidecar.model import Bytes, Condition, ObjectInfo, Position
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming import Streaming

pytestmark = pytest.mark.anyio


class Slow(MemoryStore):
    """A store that takes segments and does not answer before `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = anyio.Event()
        self.asked = anyio.Event()

    async def put(self, key: str, data: Bytes, *, condition: Condition = None, **others: Any) -> ObjectInfo:
        """See `base.ObjectStore`."""
        try:
            return await super().put(key, data, condition=condition, **others)
        finally:
            self.asked.set()
            await self.answers.wait()


@asynccontextmanager
async def ended(store: Slow, path: Path) -> AsyncIterator[Streaming]:
    """A stream with a commit that the app has made, and a last segment that was given up before the store answered."""
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, path)
        async with streaming.capture.running():
            await streaming.stream.begin(Position("before", 1), None, None)
            app.run("INSERT INTO t VALUES (1)")
            async with anyio.create_task_group() as group:
                group.start_soon(streaming.stream.finish)
                with anyio.fail_after(20):
                    await store.asked.wait()
                group.cancel_scope.cancel()
            yield streaming


def final(streaming: Streaming) -> FinalBackup:
    """The final backup of a machine whose last restore point is published."""

    async def published() -> bool:
        return True

    async def unchanged() -> bool:
        return False

    source = SimpleNamespace(stream=streaming.stream)
    cycle = SimpleNamespace(source=source, is_gone=lambda: False, database=streaming.database)
    backup = SimpleNamespace(cycle=cycle, final=published, has_more=unchanged, database=streaming.database)
    return FinalBackup([cast("Backup", backup)], cast("Any", None), streaming.fence, streaming.report)


async def test_the_outcome_of_the_last_segment_is_learnt_before_the_lease_is_released(tmp_path: Path) -> None:
    store = Slow()
    async with ended(store, tmp_path / "app.db") as streaming:
        assert streaming.stream.unsettled
        store.answers.set()
        ending = final(streaming)
        assert await ending.run(10.0)
        assert (ending.unsettled, ending.disk_has_more) == (False, False)
        (stream,) = await streaming.published()
        assert [each.last for each in stream.segments] == [1]
        assert streaming.status.confirmed == 1


async def test_a_lease_is_left_to_its_ttl_while_that_is_unknown(tmp_path: Path) -> None:
    """What the app wrote is protected all the same: the exit status is good."""
    async with ended(Slow(), tmp_path / "app.db") as streaming:
        ending = final(streaming)
        assert await ending.run(0.3)
        assert ending.unsettled
