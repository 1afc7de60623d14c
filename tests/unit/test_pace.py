"""How often streams write: one segment in an interval for all databases, and a pause after cuts."""

import anyio
import pytest

from sidecar.backup.pace import BETWEEN_STREAMS, CUTS, CUTS_WITHIN, Cuts, Pace, until_next_look
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


async def test_all_databases_share_one_segment_in_an_interval_and_take_turns() -> None:
    clock = FakeClock()
    pace = Pace(1.0, clock)
    turns: list[tuple[str, float]] = []
    started = clock.monotonic()

    async def database(name: str) -> None:
        for _ in range(3):
            await pace.turn()
            turns.append((name, clock.monotonic() - started))

    async with anyio.create_task_group() as group:
        group.start_soon(database, "a")
        group.start_soon(database, "b")
    assert [at for _, at in turns] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [name for name, _ in turns[:4]] == ["a", "b", "a", "b"]


async def test_who_was_idle_does_not_wait() -> None:
    clock = FakeClock()
    pace = Pace(1.0, clock)
    await pace.turn()
    clock.advance(10.0)
    before = clock.monotonic()
    await pace.turn()
    assert clock.monotonic() == before


async def test_a_late_turn_does_not_delay_the_next_one() -> None:
    """Else a commit just after it would wait for the delay and a whole interval."""
    clock = FakeClock()
    pace = Pace(1.0, clock)
    await pace.turn()
    clock.advance(1.3)
    await pace.turn()
    assert clock.monotonic() == 1.3
    await pace.turn()
    assert clock.monotonic() == 2.0
    clock.advance(2.9)  # two turns were missed, and are not made up for
    turns = []
    for _ in range(3):
        await pace.turn()
        turns.append(round(clock.monotonic(), 6))
    assert turns == [4.9, 5.9, 6.9]


def test_new_streams_begin_at_most_once_a_minute() -> None:
    cuts = Cuts(300.0)
    cuts.began(0.0)
    assert cuts.pause(10.0) == (BETWEEN_STREAMS - 10.0, 0.0)
    cuts.began(60.0)
    assert cuts.pause(500.0) == (0.0, 0.0)


def test_streaming_rests_after_repeated_cuts() -> None:
    cuts = Cuts(300.0)
    pauses = []
    for number in range(CUTS):
        cuts.began(number * 60.0)
        pauses.append(cuts.pause(number * 60.0 + 60.0))
    assert pauses[:-1] == [(0.0, 0.0)] * (CUTS - 1)
    assert pauses[-1] == (0.0, 300.0)
    seldom = Cuts(300.0)
    for number in range(3 * CUTS):
        seldom.began(number * CUTS_WITHIN)
        assert seldom.pause(number * CUTS_WITHIN + 60.0) == (0.0, 0.0)


def test_the_restore_point_before_a_rest_comes_no_sooner_than_others() -> None:
    """A minute after the last stream began with one, and only then the rest."""
    cuts = Cuts(300.0)
    for number in range(CUTS):
        cuts.began(number * 60.0)
        last = cuts.pause(number * 60.0 + 10.0)
    assert last == (BETWEEN_STREAMS - 10.0, 300.0)


def test_databases_look_at_the_same_instants_and_seldom_while_nothing_is_committed() -> None:
    assert until_next_look(100.25, used=100.0) == 0.75
    assert until_next_look(100.0, used=100.0) == 1.0
    assert until_next_look(122.0, used=100.0) == 3.0
    assert until_next_look(123.5, used=122.0) == 0.5
