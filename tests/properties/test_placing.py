"""The invariant of placing (see `places`), whatever happens in whichever order: kills, faults, takeovers, long sleeps.

It is looked at before every request. A machine whose term is over publishes once more: it was paused after it had asked its
lease, and asks again before the next one.
"""

from contextlib import suppress
from datetime import timedelta

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import SidecarError
from tests.harness.placing import BIG, NAME, SMALL, Killed, Scene, due, require_kept, require_readable

STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from([BIG, BIG, SMALL])),
    st.tuples(st.just("pass"), st.sampled_from([5, 70, 600, 1500, 14 * 1440])),  # minutes
    st.tuples(st.just("kill"), st.integers(0, 40)),
    st.tuples(st.just("lose"), st.sampled_from(["put", "copy"])),
    st.tuples(st.just("fail"), st.sampled_from(["put", "copy", "head", "list"])),
    st.tuples(st.just("take over"), st.just(0)),
    st.tuples(st.just("fenced"), st.just(0)),
)


class World:
    """The machine whose term it is, the one before it, and what was protected so far, on the main line."""

    def __init__(self) -> None:
        self.scene = Scene(epoch=1)
        self.store = self.scene.store
        self.fenced = self.scene
        self.line: list[str] = []
        self.protected = ""  # the newest one that counts as protected
        self.held: set[str] = set()
        self.left = -1  # requests until a kill

    def look(self, _operation: str, _key: str) -> None:
        """Before each request."""
        if self.protected:
            require_kept(self.store.objects, self.protected, self.held, self.scene.epoch)
        self.left -= 1
        if self.left == 0:
            raise Killed

    async def publish(self, size: int = BIG) -> None:
        """A cycle; what it published may be there although it failed, and then nobody was told that it is protected."""
        try:
            await self.scene.publish(size=size)
        except Killed:
            self.scene.restart()
        except SidecarError:
            pass
        self.left = -1
        self.protected = (self.scene.published or [self.protected])[-1]
        self.store.time += timedelta(seconds=1)

    async def settle(self) -> None:
        """A cycle without changes, and without faults."""
        await self.scene.expiry.tag_and_prune()
        await self.note()
        self.protected = self.line[-1]

    async def note(self) -> None:
        """Note what is on the main line."""
        newest = await self.scene.catalog.newest(NAME)
        assert newest
        if newest.key not in self.line:
            self.line.append(newest.key)

    async def do(self, step: str, value: object) -> None:
        """One step of a history."""
        match step:
            case "publish":
                await self.publish(int(str(value)))
            case "pass":
                # A machine that falls asleep before it has made up for what failed may lose copies of hours and days.
                await self.settle()
                self.scene.pass_time(timedelta(minutes=int(str(value))))
                await self.require_on_time()
            case "kill":
                self.left = int(str(value)) + 1
                await self.publish()
            case "lose":
                self.store.lose_reply(str(value))
                await self.publish()
            case "fail":
                self.store.fail(str(value))
                await self.publish()
            case "take over":
                self.fenced, self.scene = self.scene, await self.scene.take_over()
                await self.settle()
            case "fenced" if self.fenced is not self.scene:
                with suppress(SidecarError):
                    await self.fenced.publish()
                self.fenced = self.scene
                self.store.time += timedelta(seconds=1)
                await self.settle()

    async def require_on_time(self) -> None:
        """What the policy keeps is there, and can be read by a new process."""
        for key in {*due(self.line, self.store.time), *self.held}:
            await require_readable(self.scene.placed, key)


async def _live(steps: list[tuple[str, object]]) -> None:
    world = World()
    world.store.hook = world.look
    await world.publish()
    for step, value in steps:
        await world.do(step, value)
        await world.note()
        world.held = {key.removeprefix("held/") for key in world.store.objects if key.startswith("held/")}
    await world.publish()
    await world.settle()
    await world.require_on_time()
    world.scene.pass_time(timedelta(days=400))
    assert world.scene.at("expiring/") == [], "the store would grow for ever"
    assert len(world.scene.at("app.db/")) <= 2
    newest = await world.scene.catalog.newest(NAME)
    assert newest
    assert newest.key == world.line[-1]


@settings(max_examples=15)
@given(steps=st.lists(STEPS, max_size=8))
def test_the_invariant_of_placing(steps: list[tuple[str, object]]) -> None:
    anyio.run(_live, steps)
