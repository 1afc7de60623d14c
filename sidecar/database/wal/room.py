"""Makes room in a log: all of it is copied into the database, so that the next commit starts at its beginning again.

A commit resets the log if at that moment all of it is in the database, and nobody reads from it. Between a copy of ours,
with its two syncs of the disk, and our next snapshot there is nearly always a commit under load. But SQLite lets the app's
own commits copy the log, from 1000 frames on: then nothing is committed meanwhile, as long as the app has one writer. So
we stand aside until one of them has done it, and are there as readers of the database alone before the next one.
"""

import os
import time
from collections.abc import Callable

from sidecar.database.wal.absence import refresh
from sidecar.database.wal.forcing import force
from sidecar.database.wal.hold import Hold
from sidecar.database.wal.limits import Limits
from sidecar.database.wal.tending import Step

_AWAITED = 0.05  # seconds that a checkpoint of the app's is waited for, while other databases wait for their looks
_LINGER = 0.001  # after one: a busy app begins the next one at once

_WRITING = frozenset({Step.BACKFILL, Step.MAKE_ROOM, Step.FORCE})  # with connections, while others have some


def tend(hold: Hold, step: Step, limits: Limits, is_alone: Callable[[], bool]) -> None:
    """Do what is due to the log."""
    _take(hold, step, limits)
    if step in _WRITING and is_alone():  # whoever closed it meanwhile was not the last one
        empty(hold)
    if hold.hands.connections.are_open and is_alone():
        refresh(hold)


def _take(hold: Hold, step: Step, limits: Limits) -> None:
    if step is Step.HOP:
        hold.hop()
    elif step is Step.BACKFILL:
        backfill(hold, limits)
        if hold.aside:
            hold.hop()
    elif step is Step.MAKE_ROOM:
        backfill(hold, limits)
    elif step is Step.EMPTY:
        empty(hold)
    elif step is Step.FORCE:
        force_reset(hold, limits)


def backfill(hold: Hold, limits: Limits) -> None:
    """Copy the log into the database. For a long log, make several attempts to find a moment without a commit.

    Afterwards we stand aside, unless the log may be reset already, or somebody is in the way.
    """
    hands = hold.hands
    long = hands.index().size >= limits.long_bytes
    until = time.monotonic() + (limits.long_seconds if long else 0.0)
    while True:
        if hold.aside:
            hold.hop()  # with a snapshot, a copy is bounded, and takes less time with connections
        before, mark = hands.index(), hold.mark.index.frame
        copied = hands.backfill() and hands.index().backfilled != before.backfilled
        if copied and hands.index().backfilled < mark:  # a reader of the app's has an older snapshot
            hold.hop()
            return
        if hold.step_aside():
            if await_room(hold):
                return
        else:
            hold.hop()
        if hold.parked or not copied or time.monotonic() >= until:
            return


def await_room(hold: Hold) -> bool:
    """Standing aside, capture what is committed, and park as soon as all of it is in the database; whether that is so.

    Where a checkpoint is under way, its end is waited for.
    """
    files, now = hold.hands.files, time.monotonic()
    until, lately = now + _AWAITED, now - _LINGER
    while True:
        hold.catch_up()
        if hold.park():
            return True
        now = time.monotonic()
        if files.checkpointing():
            lately = now
        if now >= min(until, lately + _LINGER):
            return False
        os.sched_yield()


def force_reset(hold: Hold, limits: Limits) -> None:
    """Make the next commit reset the log, if that can be done quickly."""
    with hold.hands.connected():
        kept_out = force(hold.hands, hold.hop, limits)
    if kept_out is not None:
        hold.counters.forced += 1
        hold.counters.longest_hold = max(hold.counters.longest_hold, kept_out)


def empty(hold: Hold) -> None:
    """Copy the log into the database and truncate it, if nobody is in the way."""
    hold.hop()
    if hold.hands.index().behind:
        hold.hands.backfill()
        hold.hop()
    if hold.parked and hold.hands.truncate():
        hold.counters.emptied += 1
        hold.hop()
