"""A stream's only entry stays as long as an hourly restore point: days of a simulated history, with cuts and restarts."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.model import AtRestorePoint, Origin, Position, Timestamp
from sidecar.repository.format.index import position_metadata
from sidecar.repository.increments import Increments
from sidecar.repository.keys import StreamName, point_of
from tests.harness.streams import StreamMaker
from tests.unit.test_expiry import NAME, Pruning, Scene

pytestmark = pytest.mark.anyio


class Machine(Scene):
    """Publishes a segment and a restore point of it every quarter of an hour, until its stream is cut."""

    def __init__(self) -> None:
        super().__init__(Pruning())
        self.store.time = datetime(2026, 11, 1, 0, 2, tzinfo=UTC)
        self.names = 0
        self.begin(None)

    @property
    def here(self) -> Position:
        """Its place in the stream."""
        return Position(str(self.maker.name), self.maker.commits)

    def begin(self, after: Origin | None) -> None:
        """A new stream."""
        self.names += 1
        name = StreamName(Timestamp.of(self.store.time), self.names, "web")
        self.maker = StreamMaker(name, NAME, after)

    async def step(self) -> None:
        """A quarter of an hour."""
        self.store.time += timedelta(minutes=15)
        self.clock.advance(900.0)
        ms = int(self.store.time.timestamp() * 1000)
        made = self.maker.segment()
        self.store.add(made.key.rpartition("-")[0] + f"-{ms}.zst", made.data)
        text = f"{self.store.time:%dT%H:%M}"
        await self.named(text)

    async def named(self, at: str) -> str:
        """A restore point that names the place in the stream."""
        original, place = self.store.add, position_metadata(self.here)
        self.store.add = lambda key, data=b"x", metadata=None: original(key, data, {**(metadata or {}), **place})  # type: ignore[method-assign]
        try:
            return await self.publish(at)
        finally:
            self.store.add = original  # type: ignore[method-assign]

    async def unreachable(self) -> Sequence[str]:
        """The segments that nothing that is left leads to: neither a restore point nor, through one, another stream."""
        points = [point for info in self.store.objects.values() if (point := point_of(info.info))]
        named = [position for point in points if (position := await self.catalog.position(point))]
        streams = await Increments(self.store).streams(NAME)
        reached: dict[str, int] = {}
        for stream in streams:  # in order: one continues only what began before it
            entries = [each.commit for each in named if each.stream == stream.name]
            if isinstance(stream.after, Position) and reached.get(stream.after.stream, 1 << 60) <= stream.after.commit:
                entries.append(0)
            if entries:
                reached[stream.name] = min(entries)
        return [
            segment.key
            for stream in streams
            for segment in await Increments(self.store).segments(NAME, stream.name)
            if segment.last <= reached.get(stream.name, 1 << 60)
        ]


async def test_every_stream_of_four_days_can_be_entered() -> None:
    """Cut at any moment, and continued at others: only what came before the first restore point of a stream is lost."""
    machine, chance, lost, started = Machine(), random.Random(7), 0, 1
    for _ in range(4 * 96):
        await machine.step()
        match chance.randrange(9):
            case 0:  # a cut
                machine.begin(None)
                started += 1
            case 1:  # another machine takes over
                machine.restart()
                machine.begin(machine.here)
    lost = len(await machine.unreachable())
    assert started > 20
    assert lost <= started, "one segment for each start: that of its first restore point itself"
    tiers = machine.tiers()
    assert tiers.count("recent") < 3 * 96, "most of them have expired"


async def test_a_stream_that_continues_another_needs_no_entry() -> None:
    machine = Machine()
    await machine.step()
    machine.begin(machine.here)
    await machine.step()
    await machine.step()
    assert [each for each in machine.tiers() if each != "-"] == ["hourly", "recent"]


async def test_a_stream_after_a_restore_point_is_entered_through_the_first_that_names_it() -> None:
    """That restore point may be gone after two days, the stream is there for 35."""
    machine = Machine()
    machine.begin(AtRestorePoint("app.db/20261101T000000.000Z.sqlite3.zst"))
    for _ in range(3):
        await machine.step()
    assert [each for each in machine.tiers() if each != "-"] == ["hourly", "recent"]


async def test_what_another_run_left_untagged_is_asked_about() -> None:
    """It was killed before it tagged: what its restore points name is in their metadata."""
    machine = Machine()
    await machine.step()
    key = machine.here
    machine.store.marks.clear()
    machine.restart()
    await machine.step()
    await machine.step()
    assert key.commit == 1
    assert [each for each in machine.tiers() if each != "-"] == ["hourly", "recent"]
