"""Every signal has a place: it stops the run, is passed on, or is left alone for a reason that the documentation gives."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from sidecar.host.signals import LEFT_ALONE, PASSED_ON, STOPPING, format_signal, passed_on

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"


def test_every_signal_is_in_one_of_the_three_lists() -> None:
    """A signal in none would end sidecar by its default action, and leave the app behind."""
    assert Counter([*STOPPING, *PASSED_ON, *LEFT_ALONE]) == Counter(map(int, signal.valid_signals()))


def test_the_documentation_names_each() -> None:
    """All that stop and all that are left alone; of those that pass through, all but the real-time ones."""
    text = PAGE.read_text()
    shown = [*STOPPING, *LEFT_ALONE, *(number for number in PASSED_ON if number < signal.SIGRTMIN)]
    assert [format_signal(number) for number in shown if f"`{format_signal(number)}`" not in text] == []


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "SIGTERM"),
        (signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMAX, "SIGRTMAX"),
    ],
)
def test_names(number: int, name: str) -> None:
    """Real-time signals have no names of their own."""
    assert format_signal(number) == name


def test_signal_that_a_library_uses_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that Python did not install (None, says its documentation), as a preloaded profiler's, stays."""
    assert signal.SIGPROF in passed_on()
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGPROF else signal.SIG_DFL)
    assert set(PASSED_ON) - set(passed_on()) == {signal.SIGPROF}
