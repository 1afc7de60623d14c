"""The plan of a round, drawn from a seed: the same seed gives the same schedule, but not the same instants."""

import random
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.harness.sql_process import NEW, OLD

WRITERS = 3
ACCOUNTS = 50
BALANCE = 1000
TOTAL = ACCOUNTS * BALANCE
LIBRARIES = {"old": (OLD,), "new": (NEW,), "mixed": (OLD, NEW)}

_TUNINGS: tuple[dict[str, Any], ...] = (
    {},
    {"soft_frames": 20, "soft_seconds": 0.05, "idle_seconds": 0.2, "forced_bytes": 300_000, "forced_seconds": 0.3},
    {"soft_frames": 100, "idle_seconds": 0.5, "forced_bytes": 1_000_000, "forced_seconds": 1.0, "lone_seconds": 0.3},
    {"soft_frames": 5, "soft_seconds": 0.01, "idle_seconds": 0.1, "fold_bytes": 300_000, "lone_seconds": 0.05},
    {"soft_frames": 3, "soft_tries": 1, "idle_seconds": 0.2, "aside_seconds": 0.3},
    {"soft_frames": 1_000_000, "idle_seconds": 1000.0, "fold_bytes": 50_000},
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A round. Times are in seconds; `reopen`, `fold` and `sample` are probabilities for each publish.

    `reopen`: the follower forgets what it has not published, closes everything and resumes. `loses_locks`: the
    follower's places among the readers of the log are given up. `calm`: no process is killed. `busy`: writers
    make only small commits, with checkpoints at this probability and pauses of up to this many seconds.
    """

    seed: int
    seconds: float
    page_size: int
    auto_vacuum: int
    libraries: tuple[str, ...]
    look_every: float
    publish_every: float
    reopen: float
    fold: float
    sample: float
    calm: bool
    kill_all: float
    limits: dict[str, Any] = field(default_factory=dict)
    busy: tuple[float, float] | None = None
    loses_locks: bool = False
    mutant: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(seed: int, seconds: float, writers: str) -> Plan:
    """Draw the plan of a round."""
    rng = random.Random(f"plan {seed}")
    return Plan(
        seed=seed,
        seconds=seconds,
        page_size=rng.choice([512, 1024, 2048, 4096, 4096, 8192, 65536]),
        auto_vacuum=rng.choice([0, 0, 1, 2]),
        libraries=LIBRARIES[writers],
        look_every=rng.choice([0.005, 0.05, 0.05, 0.2]),
        publish_every=rng.choice([0.02, 0.1, 0.3]),
        reopen=rng.choice([0, 0, 0, 0.05, 0.3]),
        fold=rng.choice([0, 0, 0.2]),
        sample=rng.choice([0.1, 0.5]),
        calm=rng.random() < 0.3,
        kill_all=rng.choice([0.05, 0.05, 0.4]),
        limits=rng.choice(_TUNINGS),
    )
