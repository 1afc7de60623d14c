"""Ending a tree of processes that react, fork and start each other again while they are looked at."""

import signal
from dataclasses import dataclass, field
from itertools import count

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.host.descendants import HEAD_START, KILL_SECONDS, Descendants, Process, below
from tests.fakes import FakeClock

ME = 1
GRACE = 4.0
HABITS = ("ends", "ignores", "forks when asked", "breeds", "supervises")


@dataclass
class Somebody:
    """A process of the fake machine: what it does, and what has happened to it. `reaction` is in seconds."""

    process: Process
    habit: str
    reaction: float
    breeds: int
    stopped: bool = False
    asked_at: float | None = None
    signals: list[int] = field(default_factory=list)


class FakeTable:
    """Implements `ProcessTable` with processes that act at every look. Ids are given to others as soon as they are free.

    It holds the plan to its promises: whoever breaks one fails the test at once.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.living: dict[int, Somebody] = {}
        self.grace = GRACE
        self.restarted = 0
        self._births = count(1)
        self._missed: set[Process] = set()

    def born(self, parent: int, habit: str, reaction: float = 0.0, breeds: int = 2) -> int:
        """A new process; returns its id."""
        pid = next(number for number in count(2) if number not in self.living)
        started = next(self._births)
        self.living[pid] = Somebody(Process(pid, started, parent, habit), habit, reaction, breeds)
        return pid

    def descendants(self) -> list[Process]:
        """See `ProcessTable`."""
        self._missed.clear()
        self._act()
        return below(ME, [each.process for each in self.living.values() if each.process not in self._missed])

    def is_childless(self) -> bool:
        """See `ProcessTable`."""
        return not self.living

    def is_ignored(self, process: Process, number: int) -> bool:
        """See `ProcessTable`."""
        return False

    def send(self, process: Process, number: int) -> None:
        """See `ProcessTable`."""
        found = self.living.get(process.pid)
        if found is None or found.process != process:
            return
        assert number not in found.signals, f"{process} gets {number} twice"
        found.signals.append(number)
        if number == signal.SIGTERM:
            self._require_parent_was_asked(found)
            found.asked_at = self.clock.monotonic()
        elif number == signal.SIGSTOP:
            assert self.clock.monotonic() >= self.grace, f"{process} is stopped while it has time left"
            found.stopped = True
        elif number == signal.SIGKILL:
            assert found.stopped, f"{process} is killed while it could still react"
            self._end(found, by_us=True)

    def _require_parent_was_asked(self, child: Somebody) -> None:
        parent = self.living.get(child.process.parent)
        assert parent is None or signal.SIGTERM in parent.signals, f"{child.process} is asked before its parent"

    def _act(self) -> None:
        for somebody in list(self.living.values()):
            if somebody.process.pid in self.living and not somebody.stopped:
                self._act_of(somebody)

    def _act_of(self, somebody: Somebody) -> None:
        pid, asked = somebody.process.pid, somebody.asked_at
        if somebody.habit == "breeds" and somebody.breeds:
            self.born(pid, "breeds", breeds=somebody.breeds - 1)
            somebody.breeds -= 1
        if asked is None or self.clock.monotonic() < asked + somebody.reaction:
            return
        if somebody.habit == "forks when asked":
            somebody.asked_at = None
            self.born(pid, "forks when asked")
        elif somebody.habit in ("ends", "supervises"):
            self._end(somebody, by_us=False)

    def _end(self, somebody: Somebody, *, by_us: bool) -> None:
        """Its children are ours from now on; a supervisor that does not know that it stops starts another one."""
        pid = somebody.process.pid
        del self.living[pid]
        for each in self.living.values():
            if each.process.parent == pid:
                known = each.process
                self._missed.add(known)  # its parent was read too late, and is not in the table
                each.process = Process(known.pid, known.started, ME, known.name)
        parent = self.living.get(somebody.process.parent)
        if parent and parent.habit == "supervises" and not parent.stopped and not by_us:
            told = parent.asked_at is not None and self.clock.monotonic() >= parent.asked_at + parent.reaction
            if not told:
                self.restarted += 1
                self.born(parent.process.pid, somebody.habit)


@st.composite
def forests(draw: st.DrawFn) -> list[tuple[int, str, float]]:
    """Processes: the position of the parent (-1: ours), habit, and reaction time (below the head start)."""
    size = draw(st.integers(1, 8))
    return [
        (
            draw(st.integers(-1, position - 1)),
            draw(st.sampled_from(HABITS)),
            draw(st.floats(0, HEAD_START - 0.1, allow_nan=False)),
        )
        for position in range(size)
    ]


def planted(forest: list[tuple[int, str, float]], clock: FakeClock) -> FakeTable:
    """The table with this forest."""
    table, pids = FakeTable(clock), list[int]()
    for parent, habit, reaction in forest:
        pids.append(table.born(ME if parent < 0 else pids[parent], habit, reaction))
    return table


@given(forests(), st.booleans())
def test_nobody_is_left_nobody_is_signalled_twice_and_parents_come_first(
    forest: list[tuple[int, str, float]], hurried: bool
) -> None:
    """All processes end, in bounded time, whatever they do meanwhile, and no supervisor restarts one that we ended."""
    clock = FakeClock()
    table = planted(forest, clock)
    table.grace = 0.0 if hurried else GRACE
    anyio.run(Descendants(table, clock).end, signal.SIGTERM, GRACE, lambda: hurried)
    assert table.living == {}
    assert table.restarted == 0
    assert clock.monotonic() < GRACE + KILL_SECONDS


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_descendants_are_found_once_whatever_the_links_are(links: list[tuple[int, int]]) -> None:
    """Parents come first even if links are inconsistent or circular, because a table is read one process at a time."""
    processes = [Process(pid, 0, parent) for pid, parent in dict(links).items()]
    found = [process.pid for process in below(ME, processes)]
    assert len(found) == len(set(found))
    known = {ME}
    for pid in found:
        assert dict(links)[pid] in known
        known.add(pid)


@pytest.mark.parametrize("reaction", [HEAD_START / 2, HEAD_START * 2])
def test_supervisor_has_the_head_start_to_learn_that_it_stops(reaction: float) -> None:
    """A supervisor that reacts within the head start restarts nothing. A slower one does, and still everything ends."""
    clock = FakeClock()
    table = planted([(-1, "supervises", reaction), (0, "ends", 0.0)], clock)
    anyio.run(Descendants(table, clock).end, signal.SIGTERM, GRACE, lambda: False)
    assert (table.restarted > 0) is (reaction > HEAD_START)
    assert table.living == {}
