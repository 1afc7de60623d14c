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
        (replace(BUSY, index=index(500)), Step.BACKFILL),
        (replace(BUSY, used=95.0), Step.BACKFILL),
        (replace(BUSY, index=index(10, done=10)), Step.HOP),
        (replace(BUSY, index=index(10, done=10), parked=True), Step.NOTHING),
        (replace(BUSY, index=LARGE), Step.FORCE),
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


def test_steps_keep_their_distance() -> None:
    tending = Tending(Limits())
    soft, large = replace(BUSY, index=index(500)), replace(BUSY, index=LARGE)
    assert [tending.next(replace(soft, now=now, used=now)) for now in (1.0, 1.4, 1.5)] == [
        Step.BACKFILL,
        Step.NOTHING,
        Step.BACKFILL,
    ]
    forced = [tending.next(replace(large, now=now, used=now)) for now in (20.0, 20.1, 20.6)]
    assert forced == [Step.FORCE, Step.BACKFILL, Step.FORCE]
    tending.kept_out(20.6)
    forced = [tending.next(replace(large, now=now, used=now)) for now in (21.0, 30.5, 30.6)]
    assert forced == [Step.BACKFILL, Step.BACKFILL, Step.FORCE]


def test_a_log_that_becomes_huge_is_reset_sooner() -> None:
    tending = Tending(Limits())
    huge = replace(BUSY, index=replace(LARGE, frame=5 * LARGE.frame))
    assert tending.next(replace(huge, now=20.0, used=20.0)) is Step.FORCE
    tending.kept_out(20.0)
    forced = [tending.next(replace(huge, now=now, used=now)) for now in (20.6, 20.9, 21.0)]
    assert forced == [Step.BACKFILL, Step.NOTHING, Step.FORCE]
