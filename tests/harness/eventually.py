"""Bounded waiting, the only kind of waiting in the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(attempt: Callable[[], T | None], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `attempt` until its result is truthy, and return that; AssertionError after `timeout` seconds.

    The pauses grow from 20 to 100 ms: an attempt often costs the daemon, too, some milliseconds.
    """
    deadline, pause = time.monotonic() + timeout, 0.02
    while True:
        answer = attempt()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
        pause = min(0.1, pause * 1.2)
