"""The end of a stream: what was captured is published before the final backup, and never at its cost."""

from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from sidecar.database.wal import CutCause, StreamCut
from sidecar.lease.record import KEY
from sidecar.model import IfMatch
from tests.fakes import MemoryStore
from tests.harness.writers import open_database
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class StallingStore(MemoryStore):
    """Segments are stored, and the reply never comes while `stalled`."""

    stalled = False

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        result = await super().request(operation, key, work)
        if self.stalled and operation == "put" and key.startswith("stream/"):
            await anyio.sleep_forever()
        return result


@pytest.fixture
def store() -> StallingStore:
    return StallingStore()


@pytest.fixture
async def machine(store: StallingStore, tmp_path: Path) -> AsyncIterator[StreamingMachine]:
    """It streams, and has a restore point."""
    async with streaming(store, tmp_path / NAME, "a") as machine:
        with closing(open_database(tmp_path / NAME)) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE notes (text TEXT)")
        await machine.start()
        await machine.backup.cycle.run()
        yield machine


@pytest.fixture
def app(machine: StreamingMachine) -> Any:
    with closing(open_database(machine.database.path)) as connection:
        yield connection


def write(app: Any, text: str) -> None:
    app.execute("INSERT INTO notes VALUES (?)", (text,))


async def take_lease(store: StallingStore) -> None:
    """Another machine takes over."""
    lease = store.objects[KEY]
    other = lease.data.replace(b'"holder": "a"', b'"holder": "b"').replace(b'"epoch": 1', b'"epoch": 2')
    assert other != lease.data
    await store.put(KEY, other, condition=IfMatch(lease.info.etag))
    store.time += timedelta(minutes=2)


async def commits(machine: StreamingMachine) -> list[int]:
    """The commits of the current stream that are in the store, by their numbers."""
    name = machine.streams.name
    assert name
    found = await machine.forward()._increments.segments(NAME, name)
    return [number for each in found for number in range(each.first, each.last + 1)]


async def test_what_was_captured_when_the_stream_is_stopped_is_not_lost(machine: StreamingMachine, app: Any) -> None:
    """The app's last commits come at the instant at which it ends, and all that streams is cancelled."""
    write(app, "one")
    await machine.stream._feed.flush()
    writer = machine.stream._writer
    assert writer
    with anyio.CancelScope() as scope:
        scope.cancel()
        await machine.stream._collect(writer, 0.0)
        await anyio.lowlevel.checkpoint()
    write(app, "two")
    await machine.stream.finish()
    assert await commits(machine) == [1, 2]


async def test_what_was_taken_before_a_cut_is_published_at_the_end(machine: StreamingMachine, app: Any) -> None:
    """The app has written, its file was replaced, and it ended, all within a second."""
    write(app, "one")
    await machine.stream._feed.flush()
    writer = machine.stream._writer
    assert writer
    await machine.stream._collect(writer, 0.0)
    await machine.stream._feed.stop()
    await machine.stream.finish()
    assert await commits(machine) == [1]


async def test_a_segment_under_way_is_published_again_with_the_same_bytes(
    machine: StreamingMachine, store: StallingStore, app: Any
) -> None:
    write(app, "one")
    store.stalled = True
    with anyio.move_on_after(0.3):
        await machine.publish_segments()
    store.stalled = False
    write(app, "two")
    await machine.stream.finish()
    assert await commits(machine) == [1, 2]
    puts = [key for operation, key in store.requests if operation == "put" and key.startswith("stream/")]
    assert (len(puts), len(set(puts))) == (3, 2)
    assert machine.streams.confirmed == 2


async def test_a_store_that_takes_no_segment_does_not_cost_the_final_backup(
    machine: StreamingMachine, store: StallingStore, app: Any
) -> None:
    write(app, "one")
    store.stalled = True
    machine.status.final_backup_timeout = timedelta(seconds=4)
    assert await machine.final.run(4.0)
    assert len(await machine.points()) == 2


async def test_a_bug_in_the_stream_does_not_cost_the_final_backup(
    machine: StreamingMachine, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(machine.stream, "finish", broken)
    write(app, "one")
    assert await machine.final.run(30.0)
    assert len(await machine.points()) == 2


async def test_a_lease_that_was_lost_is_noticed_by_the_last_segment(
    machine: StreamingMachine, store: StallingStore, app: Any
) -> None:
    """The final backup goes to `diverged/`, and nothing to the main line."""
    write(app, "one")
    before = set(store.objects)
    await take_lease(store)
    assert not await machine.final.run(30.0)
    assert {key.partition("/")[0] for key in set(store.objects) - before} == {"diverged"}


async def test_a_lease_that_was_lost_is_noticed_after_a_cut(
    machine: StreamingMachine, store: StallingStore, app: Any
) -> None:
    """What came before the cut cannot be published any more: the stream ends, and is no bug."""
    write(app, "one")
    await machine.stream._feed.flush()
    machine.stream.distrust("by the test")
    await take_lease(store)
    with anyio.fail_after(30):
        await machine.backup.stream()
    assert machine.streams.reason == "another machine has taken over"


async def test_what_came_before_a_cut_is_published_at_the_end(machine: StreamingMachine, app: Any) -> None:
    write(app, "one")
    await machine.stream._feed.flush()
    feed: Any = machine.stream._feed
    feed._track.cut = StreamCut(CutCause.REPLACED, "by the test")
    await machine.stream.finish()
    assert await commits(machine) == [1]


async def test_a_demand_during_a_cycle_is_met_by_the_next_one(machine: StreamingMachine, app: Any) -> None:
    """A stream that begins while a restore point is on its way is not in it: it is entered through another one."""
    write(app, "one")
    index = machine.backup.cycle._main_line.index

    async def demanded(snapshot: Any, plan: Any = None) -> Any:
        machine.backup.demand("a stream has begun")
        return await index(snapshot, plan)

    machine.backup.cycle._main_line.index = demanded  # type: ignore[method-assign]
    assert await machine.backup.cycle.run() == "published"
    machine.backup.cycle._main_line.index = index  # type: ignore[method-assign]
    assert await machine.backup.cycle.run() == "published"
    assert await machine.backup.cycle.run() == "unchanged"


async def test_a_restore_point_that_was_under_way_does_not_renew_the_trust_in_a_stream(
    machine: StreamingMachine, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill has found the stream damaged meanwhile: until it is cut, nobody is told that a commit is stored."""
    line = machine.backup.cycle._main_line
    publish = line.publish

    async def doubted(*some: Any) -> Any:
        published = await publish(*some)
        machine.stream.distrust("by the test")
        return published

    monkeypatch.setattr(line, "publish", doubted)
    write(app, "one")
    await machine.publish_segments()
    assert await machine.backup.cycle.run() == "published"
    assert not machine.streams.protects
