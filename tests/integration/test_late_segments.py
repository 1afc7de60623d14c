"""Segments that a fenced machine had on the way while another one booted: they are reported, once, and never merged."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.errors import AccessDenied
from sidecar.lease.record import KEY, Record
from sidecar.model import Position
from sidecar.repository.increments import Increments
from sidecar.status.problems import Kind
from tests.fakes import MemoryStore, Stored
from tests.harness.recorded import Recorder, recorded
from tests.harness.writers import open_database
from tests.integration.streamed import Streamed, moment
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Eight commits."""
    with recorded(tmp_path / "live.db") as recorder:
        for number in range(8):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 900}))")
        yield recorder


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def scene(store: MemoryStore, recorder: Recorder, tmp_path: Path) -> Streamed:
    return Streamed(store, recorder, tmp_path / "before")


@pytest.fixture
async def machine(store: MemoryStore, tmp_path: Path) -> AsyncIterator[StreamingMachine]:
    """The successor, on a disk of its own."""
    async with streaming(store, tmp_path / "new" / NAME, "web 2") as machine:
        yield machine


async def predecessor(scene: Streamed, store: MemoryStore, sent: int) -> tuple[str, dict[str, Stored]]:
    """A machine that streamed six commits, and has `sent` more on the way, which are returned with its stream's name."""
    first, made = await scene.stream(1, 6 + sent, None)
    late = {each.key: store.objects.pop(each.key) for each in made[6:]}
    newest = await scene.point(4, 4.5, Position(first, 4))
    record = Record(1, "web 1", "boot", 60.0, released=True, latest={NAME: newest.key})
    await store.put(KEY, record.to_bytes(), metadata=record.to_metadata())
    store.time = moment(60).instant
    return first, late


def told(machine: StreamingMachine) -> list[str]:
    return [each.message for each in machine.status.problems if each.kind is Kind.DIVERGENCE]


async def publish(machine: StreamingMachine) -> None:
    connection = open_database(machine.database.path)
    connection.execute("INSERT INTO notes (content) VALUES (randomblob(10))")
    connection.close()
    assert await machine.backup.cycle.run() == "published"


def looks(store: MemoryStore) -> int:
    """How many LISTs over all streams there were since this was last asked."""
    count = store.requests.count(("list", f"stream/{NAME}/"))
    store.requests.clear()
    return count


async def test_commits_that_arrive_after_a_boot_are_reported_with_the_first_restore_point(
    scene: Streamed, store: MemoryStore, machine: StreamingMachine
) -> None:
    """Nobody else would see them: later boots begin at newer restore points."""
    first, late = await predecessor(scene, store, 2)
    await machine.start()
    assert scene.holds(machine.database.path, 6)
    assert told(machine) == []
    store.objects |= late
    await publish(machine)
    (message,) = told(machine)
    assert f"stream {first} of web 1 has commits that are not in this database" in message
    assert "commit 6" in message
    assert f"--stream {first}" in machine.status.problems[-1].hint
    looks(store)
    await publish(machine)
    assert (len(told(machine)), looks(store)) == (1, 0)


async def test_a_stream_that_a_fenced_machine_had_just_begun_is_reported(
    scene: Streamed, store: MemoryStore, machine: StreamingMachine
) -> None:
    first, _ = await predecessor(scene, store, 0)
    await machine.start()
    second, _ = await scene.stream(7, 7, Position(first, 5), began=59.0)
    await publish(machine)
    (message,) = told(machine)
    assert second in message


async def test_without_late_segments_nothing_is_reported_and_the_own_streams_are_not(
    scene: Streamed, store: MemoryStore, machine: StreamingMachine
) -> None:
    """Neither the one that continues the predecessor's, nor one that followed a cut."""
    await predecessor(scene, store, 0)
    await machine.start()
    connection = open_database(machine.database.path)
    connection.execute("DELETE FROM notes WHERE id = 1")
    await machine.publish_segments()
    await machine.cut()
    connection.execute("DELETE FROM notes WHERE id = 2")
    await machine.publish_segments()
    connection.execute("DELETE FROM notes WHERE id = 3")
    await machine.publish_segments()
    connection.close()
    assert len(await Increments(store).names(NAME)) == 3
    looks(store)
    await publish(machine)
    assert (told(machine), looks(store)) == ([], 1)


async def test_what_the_boot_has_reported_is_not_reported_again(
    scene: Streamed, store: MemoryStore, machine: StreamingMachine
) -> None:
    first, _ = await predecessor(scene, store, 0)
    side, _ = await scene.stream(6, 6, Position(first, 5), began=22.0)
    await scene.stream(7, 8, Position(first, 6), began=21.0, epoch=2)
    await machine.start()
    (message,) = told(machine)
    assert side in message
    await publish(machine)
    assert told(machine) == [message]


async def test_a_look_that_fails_delays_no_restore_point_and_is_made_with_the_next_one(
    scene: Streamed, store: MemoryStore, machine: StreamingMachine
) -> None:
    _, late = await predecessor(scene, store, 1)
    await machine.start()
    store.objects |= late

    def refuse(operation: str, key: str) -> None:
        if operation == "list" and key.startswith("stream/"):
            raise AccessDenied("scripted: no right to list")

    store.hook = refuse
    await publish(machine)
    assert told(machine) == []
    store.hook = None
    await publish(machine)
    assert len(told(machine)) == 1
