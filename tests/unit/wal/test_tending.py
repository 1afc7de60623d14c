"""When a log is copied, reset, emptied, or left."""

from dataclasses import replace

import pytest

from sidecar.database.wal import Limits
from sidecar.database.wal.tending import Situation, Step, Tending
from tests.unit.wal.logs import index

BUSY = Situation(index(10), 100.0, parked=False, alone_since=None, used=100.0)
LARGE = replace(index(20_000), page_size=4096)


def step(at: Situation) -> Step:
    return Tending(Limits()).next(at)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (BUSY, Step.NOTHING),
        (replace(BUSY, index=index(799)), Step.NOTHING),
        (replace(BUSY, index=index(800)), Step.MAKE_ROOM),
        (replace(BUSY, used=95.0), Step.MAKE_ROOM),
        (replace(BUSY, aside=True), Step.HOP),
        (replace(BUSY, index=index(10, done=10), aside=True), Step.HOP),
        (replace(BUSY, index=index(10, done=10)), Step.HOP),
        (replace(BUSY, index=index(10, done=10), parked=True), Step.NOTHING),
        (replace(BUSY, index=LARGE), Step.MAKE_ROOM),
        (replace(BUSY, unsummed=True), Step.NOTHING),
        (replace(BUSY, unsummed=True, used=95.0), Step.EMPTY),
        (replace(BUSY, alone_since=100.0), Step.EMPTY),
        (replace(BUSY, index=index(0), alone_since=99.0, parked=True), Step.NOTHING),
        (replace(BUSY, index=index(0), alone_since=98.0, parked=True), Step.LEAVE),
        (replace(BUSY, index=index(0), alone_since=98.0), Step.HOP),
    ],
)
def test_the_step_that_is_due(at: Situation, expected: Step) -> None:
    assert step(at) is expected


def steps(tending: Tending, at: Situation, *times: float) -> list[Step]:
    """The steps at these times, under load."""
    return [tending.next(replace(at, now=now, used=now)) for now in times]


SOFT = replace(BUSY, index=index(800))
ASIDE = replace(SOFT, aside=True)


def test_what_a_commit_has_beaten_is_tried_again_soon_and_then_seldom() -> None:
    tending = Tending(Limits(soft_tries=2))
    assert steps(tending, SOFT, 1.0, 1.01) == [Step.MAKE_ROOM, Step.NOTHING]
    assert steps(tending, ASIDE, 1.05, 1.1, 1.5) == [Step.MAKE_ROOM, Step.NOTHING, Step.NOTHING]
    assert steps(tending, ASIDE, 1.55) == [Step.MAKE_ROOM]
    assert steps(tending, BUSY, 1.6) == [Step.NOTHING], "it was reset"
    assert steps(tending, SOFT, 1.65, 1.7) == [Step.MAKE_ROOM, Step.MAKE_ROOM]


def test_standing_aside_has_an_end_and_then_rests() -> None:
    tending = Tending(Limits(soft_tries=0, soft_seconds=0.25, rest_seconds=0.75))
    now = 1.0
    for rest in (0.25, 0.5, 0.75, 0.75):
        assert steps(tending, SOFT, now) == [Step.MAKE_ROOM]
        assert steps(tending, ASIDE, now + 0.75, now + 1.0) == [Step.MAKE_ROOM, Step.HOP]
        now += 1.0 + rest
        if rest > 0.25:
            assert steps(tending, SOFT, now - 0.25) == [Step.BACKFILL]
    assert steps(tending, replace(BUSY, index=index(800, done=800), parked=True), now) == [Step.NOTHING]
    assert steps(tending, SOFT, 9.0) == [Step.MAKE_ROOM]
    assert steps(tending, ASIDE, 10.0) == [Step.HOP]
    assert steps(tending, SOFT, 10.25) == [Step.MAKE_ROOM], "the rest begins small again"


def test_nothing_is_forced_before_all_else_has_failed() -> None:
    tending, large = Tending(Limits(soft_tries=2)), replace(BUSY, index=LARGE)
    assert steps(tending, large, 20.0, 20.05) == [Step.MAKE_ROOM, Step.MAKE_ROOM]
    assert steps(tending, replace(large, aside=True), 20.1) == [Step.NOTHING]
    assert steps(tending, large, 20.15) == [Step.FORCE]


def test_steps_keep_their_distance() -> None:
    tending, large = Tending(Limits(soft_tries=0, aside_seconds=0.0)), replace(BUSY, index=LARGE)
    assert steps(tending, SOFT, 1.0, 1.4, 1.5) == [Step.MAKE_ROOM, Step.NOTHING, Step.MAKE_ROOM]
    assert steps(tending, large, 20.0, 20.1, 20.6) == [Step.FORCE, Step.MAKE_ROOM, Step.FORCE]
    tending.kept_out(20.6)
    assert steps(tending, large, 21.0, 30.5, 30.6) == [Step.MAKE_ROOM, Step.MAKE_ROOM, Step.FORCE]


def test_a_log_that_becomes_huge_is_reset_sooner() -> None:
    tending = Tending(Limits(soft_tries=0))
    huge = replace(BUSY, index=replace(LARGE, frame=5 * LARGE.frame))
    assert steps(tending, huge, 20.0) == [Step.FORCE]
    tending.kept_out(20.0)
    assert steps(tending, huge, 20.6, 20.9, 21.0) == [Step.MAKE_ROOM, Step.NOTHING, Step.FORCE]
