"""Ending what an app leaves behind: who may not be signalled, who ignores signals, and who never ends."""

import signal

import anyio
import pytest
from structlog.testing import capture_logs

from sidecar.host.descendants import KILL_SECONDS, LONGEST_PAUSE, POLL, Descendants, Process
from tests.fakes import FakeClock

SHELL = Process(7, 100, 1, "sh")


class Stubborn:
    """Implements `ProcessTable`: one process that never ends; it ignores some signals, and refuses all if told to."""

    def __init__(self, process: Process = SHELL, ignored: tuple[int, ...] = (), *, refuses: bool = False) -> None:
        self.process = process
        self.ignored = ignored
        self.refuses = refuses
        self.sent: list[int] = []
        self.looks = 0

    def descendants(self) -> list[Process]:
        """See `ProcessTable`."""
        self.looks += 1
        return [self.process]

    def is_childless(self) -> bool:
        """See `ProcessTable`."""
        return False

    def is_ignored(self, process: Process, number: int) -> bool:
        """See `ProcessTable`."""
        return number in self.ignored

    def send(self, process: Process, number: int) -> None:
        """See `ProcessTable`."""
        self.sent.append(number)
        if self.refuses:
            raise PermissionError


def end(table: Stubborn, number: int = signal.SIGTERM, *, hurried: bool = False) -> tuple[float, list[str]]:
    """What it took in seconds, and the events that were logged."""
    clock = FakeClock()
    with capture_logs() as logs:
        anyio.run(Descendants(table, clock).end, number, 2.0, lambda: hurried)
    return clock.monotonic(), [entry["event"] for entry in logs]


def test_process_that_never_ends_is_given_up_and_reported() -> None:
    """SIGTERM, SIGSTOP and SIGKILL once each; then the run goes on, says that a writer may be left, and lets it go on."""
    table = Stubborn()
    seconds, events = end(table)
    assert table.sent == [signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL, signal.SIGCONT]
    assert 2.0 + KILL_SECONDS <= seconds < 2.2 + KILL_SECONDS
    assert "cannot be ended" in events[-1]


def test_process_that_may_not_be_signalled_is_reported_once() -> None:
    """Three signals are refused (EPERM), one line says so, and nothing is raised."""
    table = Stubborn(refuses=True)
    _, events = end(table)
    assert len(table.sent) == 3
    assert sum("no permission to signal" in event for event in events) == 1


@pytest.mark.parametrize(
    ("number", "ignored", "sent"),
    [
        (signal.SIGINT, (signal.SIGINT, signal.SIGQUIT), signal.SIGTERM),
        (signal.SIGINT, (), signal.SIGINT),
        (signal.SIGRTMIN + 3, (), signal.SIGRTMIN + 3),
    ],
)
def test_stop_signal_is_sent_as_it_came_unless_it_is_ignored(number: int, ignored: tuple[int, ...], sent: int) -> None:
    """A shell starts its background jobs with SIGINT and SIGQUIT ignored: they would all wait for SIGKILL."""
    table = Stubborn(ignored=ignored)
    end(table, number)
    assert table.sent[0] == sent


def test_stopped_process_is_continued_to_act_on_the_signal() -> None:
    """Else it could only be killed."""
    table = Stubborn(Process(7, 100, 1, "sh", stopped=True))
    end(table)
    assert table.sent[:2] == [signal.SIGTERM, signal.SIGCONT]


def test_second_request_to_stop_ends_the_grace() -> None:
    """Nobody is asked any more."""
    table = Stubborn()
    seconds, _ = end(table, hurried=True)
    assert table.sent == [signal.SIGSTOP, signal.SIGKILL, signal.SIGCONT]
    assert seconds < KILL_SECONDS + 0.2


class Breeder:
    """Implements `ProcessTable`: a writer that may be signalled, unless it is killed, and somebody else's new process at each look."""

    def __init__(self, *, may_kill: bool) -> None:
        self.may_kill = may_kill
        self.writer: Process | None = SHELL
        self.sent: list[int] = []
        self.births = 100

    def descendants(self) -> list[Process]:
        """See `ProcessTable`."""
        self.births += 1
        strangers = Process(self.births, self.births, 1, "stranger")
        return [self.writer, strangers] if self.writer else [strangers]

    def is_childless(self) -> bool:
        """See `ProcessTable`."""
        return False

    def is_ignored(self, process: Process, number: int) -> bool:
        """See `ProcessTable`."""
        return False

    def send(self, process: Process, number: int) -> None:
        """See `ProcessTable`."""
        if process != SHELL or (number == signal.SIGKILL and not self.may_kill):
            raise PermissionError
        self.sent.append(number)
        if number == signal.SIGKILL:
            self.writer = None


@pytest.mark.parametrize("may_kill", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_nobody_stays_stopped_for_the_sake_of_processes_that_may_not_be_signalled(*, may_kill: bool, now: bool) -> None:
    """New ones that cannot be stopped do not put off the kill; who cannot be killed is continued."""
    table = Breeder(may_kill=may_kill)
    clock = FakeClock()
    descendants = Descendants(table, clock)
    if now:
        descendants.kill_now()
    else:
        anyio.run(descendants.end, signal.SIGTERM, 0.0, lambda: False)
        assert clock.monotonic() < KILL_SECONDS + 0.2
    last = signal.SIGKILL if may_kill else signal.SIGCONT
    assert [each for each in table.sent if not may_kill or each != signal.SIGCONT] == [signal.SIGSTOP, last]
    assert (table.writer is None) is may_kill


def test_looks_at_all_processes_become_rare_while_nobody_new_is_found() -> None:
    """Each reads all of /proc on the event loop: not twenty times a second during a grace of minutes."""
    table, clock = Stubborn(), FakeClock()
    anyio.run(Descendants(table, clock).end, signal.SIGTERM, 60.0, lambda: False)
    killing = KILL_SECONDS / POLL
    assert 100 < table.looks - killing < 60 / LONGEST_PAUSE + 20
