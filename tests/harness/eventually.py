"""Bounded waiting, the only kind of waiting in the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(attempt: Callable[[], T | None], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `attempt` every 20 ms and return its first truthy result; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = attempt()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)
