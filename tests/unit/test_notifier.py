"""From `Status` to receivers: retried, bounded, never waited for, and flushed at the end; in virtual time."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.errors import FinalBackupFailed, LeaseLost, SidecarError, Undeliverable, Undelivered
from sidecar.model import Database
from sidecar.monitoring.notifier import ATTEMPTS, Notifier
from sidecar.monitoring.receiver import Receiver
from sidecar.policies import Growth
from sidecar.status.model import Status
from sidecar.status.problems import Kind
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


class Told:
    """A receiver that answers by a script, and accepts everything after its end. `None` hangs for ever."""

    name = "notify[1]"

    def __init__(self, *script: SidecarError | None) -> None:
        self.script = list(script)
        self.heard: list[str] = []
        self.calls = 0

    async def send(self, content: Mapping[str, object] | None) -> None:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        if self.script:
            failure = self.script.pop(0)
            if failure is None:
                await anyio.sleep_forever()
            else:
                raise failure
        self.heard.append(f"{content['kind']}: {content['message']}" if content else "beat")


AWAY = Undelivered("away")


def make_status(clock: FakeClock, *names: str) -> Status:
    databases = tuple(Database(name, Path("/data") / name) for name in names or ("app.db",))
    return Status(databases, "s3://bucket", "1", clock.now)


def make(
    *receivers: Receiver, heartbeat: Receiver | None = None, growth: Growth | None = None
) -> tuple[Status, Notifier]:
    clock = FakeClock()
    status = make_status(clock)
    return status, Notifier(status, clock, receivers, heartbeat=heartbeat, growth=growth, holder="m1")


async def test_beginning_and_end_of_a_failure_are_sent() -> None:
    told = Told()
    status, notifier = make(told)
    async with notifier.running():
        status.failed("app.db", "no store", "look")
        await anyio.wait_all_tasks_blocked()
        status.failed("app.db", "no store", "look")
        status.succeeded("app.db", "published")
        await anyio.wait_all_tasks_blocked()
    assert told.heard == ["failure: no store", "recovery: backups work again, after 0 minutes"]
    assert status.notifications == {"sent": 2, "dropped": 0}


class Paused(FakeClock):
    """Sleeps of more than a minute last until `wake`."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds > 60:
            await self.woken.wait()
        await super().sleep(seconds)

    async def wake(self) -> None:
        self.woken.set()
        self.woken = anyio.Event()
        await anyio.wait_all_tasks_blocked()


async def test_an_unreachable_receiver_is_tried_again_and_then_less_often() -> None:
    """For as long as it takes: an event that happens once is not reported again."""
    told, clock = Told(*[AWAY] * (ATTEMPTS + 3)), Paused()
    status = make_status(clock)
    async with Notifier(status, clock, [told]).running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
        for more in range(4):
            assert (told.calls, told.heard) == (ATTEMPTS + more, [])
            await clock.wake()
    assert told.heard == ["suspicion: one"]
    assert status.notifications == {"failed": ATTEMPTS + 3, "dropped": 0, "sent": 1}
    assert [each for each in clock.sleeps if each > 60] == [300, 600, 1200, 2400]


async def test_a_new_message_does_not_wait_for_an_undelivered_one_and_takes_it_along() -> None:
    told, clock = Told(*[AWAY] * ATTEMPTS), Paused()
    status = make_status(clock)
    async with Notifier(status, clock, [told]).running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
        assert told.heard == []
        status.suspected("app.db", "two", "")
        await anyio.wait_all_tasks_blocked()
        assert told.heard == ["suspicion: two", "suspicion: one"]


async def test_a_kept_message_is_tried_once_more_at_the_end_and_not_for_ever() -> None:
    told, clock = Told(*[AWAY] * 1000), Paused()
    status = make_status(clock)
    async with Notifier(status, clock, [told]).running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
    assert told.calls == ATTEMPTS + 1
    assert status.notifications["dropped"] == 1


async def test_a_receiver_that_comes_back_gets_the_message() -> None:
    told = Told(AWAY, AWAY)
    status, notifier = make(told)
    async with notifier.running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
    assert told.heard == ["suspicion: one"]


async def test_a_refusal_is_not_tried_again() -> None:
    told = Told(Undeliverable("gone"))
    status, notifier = make(told)
    async with notifier.running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
    assert (told.calls, status.notifications["dropped"]) == (1, 1)


async def test_a_receiver_that_hangs_delays_neither_the_others_nor_the_daemon() -> None:
    hanging, well = Told(None), Told()
    status, notifier = make(hanging, well)
    async with notifier.running():
        for number in range(1000):
            status.report("app.db", str(number), "", Kind.DAMAGED)  # returns, although nobody takes it
        await anyio.wait_all_tasks_blocked()
        assert len(well.heard) >= 10
        hanging.script.clear()
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        notifier._receivers.pop(0)  # its end is not awaited here


async def test_the_last_messages_are_sent_whatever_ended_the_daemon() -> None:
    """The final failure comes first, although the queue is full and the rate is used up."""
    told = Told()
    status, notifier = make(told)
    error = FinalBackupFailed("not published", "look")
    with pytest.raises(BaseExceptionGroup):
        async with notifier.running():
            for number in range(40):
                status.report("app.db", str(number), "", Kind.DAMAGED)
            notifier.report_end(error)
            raise error
    assert "failure: not published" in told.heard[:2]
    assert len(told.heard) == 41


async def test_the_same_end_is_sent_once() -> None:
    told = Told()
    status, notifier = make(told)
    async with notifier.running():
        lost = LeaseLost("taken over by m2")
        status.report("", lost.message, lost.hint, Kind.DIVERGENCE)
        notifier.report_end(ExceptionGroup("", [lost]))
    assert told.heard == ["divergence: taken over by m2"]


async def test_an_end_by_a_bug_is_sent() -> None:
    """Exit code 70 ends the app like any other."""
    told = Told()
    _, notifier = make(told)
    async with notifier.running():
        notifier.report_end(ExceptionGroup("", [KeyError("index")]))
    assert told.heard == ["failure: bug: KeyError('index')"]


async def test_the_last_messages_wait_for_the_one_being_sent_and_end_its_pause() -> None:
    """A message whose first attempt has just failed is tried once more, without waiting for its pause to end."""

    class Standing(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await anyio.sleep_forever()

    told, clock = Told(AWAY), Standing()
    status = make_status(clock)
    async with Notifier(status, clock, [told]).running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
        assert told.heard == []
    assert told.heard == ["suspicion: one"]


async def test_a_message_being_sent_at_the_end_is_waited_for() -> None:
    gate = anyio.Event()

    class Slow(Told):
        async def send(self, content: Mapping[str, object] | None) -> None:
            await gate.wait()
            await super().send(content)

    async def open_when_all_wait() -> None:
        await anyio.wait_all_tasks_blocked()
        gate.set()

    told = Slow()
    status, notifier = make(told)
    async with anyio.create_task_group() as group, notifier.running():
        status.suspected("app.db", "one", "")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(open_when_all_wait)
    assert told.heard == ["suspicion: one"]


@pytest.mark.parametrize("outcome", ["published", "unchanged"])
async def test_a_heartbeat_follows_each_check_that_found_everything_protected(outcome: str) -> None:
    """`unchanged` counts: everything was published before, and an app that is idle at night is no reason to alert."""
    beats = Told()
    status, notifier = make(heartbeat=beats)
    async with notifier.running():
        status.succeeded("app.db", outcome)
        await anyio.wait_all_tasks_blocked()
        assert beats.heard == ["beat"]
        status.failed("app.db", "no", "")
        status.published("app.db", "key", 1, 1, 0)
        await anyio.wait_all_tasks_blocked()
    assert beats.heard == ["beat"]


async def test_there_is_no_heartbeat_unless_every_database_is_protected() -> None:
    beats, clock = Told(), FakeClock()
    status = make_status(clock, "a.db", "b.db")
    async with Notifier(status, clock, [], heartbeat=beats).running():
        status.succeeded("a.db", "published")
        await anyio.wait_all_tasks_blocked()
        assert beats.heard == []
        status.succeeded("b.db", "published")
        await anyio.wait_all_tasks_blocked()
        assert beats.heard == ["beat"]
        status.failed("b.db", "no", "")
        status.succeeded("a.db", "published")
        await anyio.wait_all_tasks_blocked()
    assert beats.heard == ["beat"]


async def test_there_is_no_heartbeat_while_a_database_is_overdue() -> None:
    """Its cycles do not fail, because none is completed. The success of another database proves nothing about it."""
    beats, clock = Told(), FakeClock()
    status = make_status(clock, "a.db", "b.db")
    status.interval = timedelta(minutes=5)
    async with Notifier(status, clock, [], heartbeat=beats).running():
        for name in status.databases:
            status.succeeded(name, "published")
        await anyio.wait_all_tasks_blocked()
        assert beats.heard == ["beat"]
        status.databases["b.db"].unprotected_since = clock.now()
        for minutes, heard in ((15, 2), (1, 2), (0, 3)):
            clock.advance(60 * minutes)
            if not minutes:
                status.databases["b.db"].unprotected_since = None
            status.succeeded("a.db", "published")
            await anyio.wait_all_tasks_blocked()
            assert len(beats.heard) == heard


async def test_the_last_heartbeat_is_sent() -> None:
    """The final backup succeeds right before the end."""
    beats = Told()
    status, notifier = make(heartbeat=beats)
    async with notifier.running():
        status.succeeded("app.db", "published")
    assert beats.heard == ["beat"]


async def test_heartbeats_continue_after_one_that_was_not_delivered() -> None:
    beats = Told(AWAY)
    status, notifier = make(heartbeat=beats)
    async with notifier.running():
        for _ in range(2):
            status.succeeded("app.db", "published")
            await anyio.wait_all_tasks_blocked()
    assert (beats.heard, status.notifications["heartbeat_failed"]) == (["beat"], 1)


async def test_growth_is_a_problem_that_is_sent() -> None:
    told = Told()
    status, notifier = make(told, growth=Growth(factor=0.5))
    async with notifier.running():
        for size in (1 << 20, 1 << 20, 4 << 20, 4 << 20):
            status.published("app.db", "key", 1, 1, 0, size)
    assert told.heard == ["growth: the database has grown from 1.0 MiB to 4.0 MiB"]
    assert [each.kind for each in status.problems] == [Kind.GROWTH]


async def test_growth_is_measured_from_the_restored_database() -> None:
    told = Told()
    status, notifier = make(told, growth=Growth(limit=2 << 20))
    async with notifier.running():
        status.restored("app.db", "restored", 1.0, 3 << 20, "key")
        status.published("app.db", "key", 1, 1, 0, 4 << 20)
    assert told.heard == []


async def test_a_bug_in_a_receiver_ends_nothing_but_its_message() -> None:
    """The app runs in the same task group: an exception would end it without a final backup."""

    class Broken(Told):
        async def send(self, event: object) -> None:
            raise RuntimeError("a bug")

    clock = FakeClock()
    status = make_status(clock, "app.db")
    notifier = Notifier(status, clock, [Broken()], heartbeat=Broken())
    async with notifier.running():
        status.succeeded("app.db", "published")
        status.failed("app.db", "away", "wait")
        await anyio.sleep(0.05)
    assert status.notifications["failed"] == 1
    assert status.notifications["heartbeat_failed"] == 1
