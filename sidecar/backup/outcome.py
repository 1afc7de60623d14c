"""How a backup cycle ended, and how long it took."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """A stopwatch: the seconds since its creation."""

    clock: Callable[[], float]
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def elapsed(self) -> float:
        return self.clock() - self.started


@dataclass(slots=True)
class CycleOutcome:
    """How a cycle ended, and which check decided that."""

    name: str = "cancelled"
    reason: str = ""
