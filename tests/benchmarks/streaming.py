"""Streaming, measured: what each scenario is, is said in losses.py, loads.py, segments.py and quiet.py; what it must hold, in bounds.py."""

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import loads, losses, quiet, segments
from tests.benchmarks.bounds import SIZE
from tests.benchmarks.publishing import Bench, make_base
from tests.benchmarks.results import MIB
from tests.benchmarks.streamers import make_streamed

SCENARIOS = ("loss", "tail", "commits", "load", "segments", "truncate", "quiet", "parked")

_SHARE = 1 / 3  # of `seconds`, for what is repeated in turns


@dataclass(frozen=True, slots=True)
class Extent:
    """How often machines are killed, how often the rest is repeated, and how long one measurement lasts."""

    rounds: int
    runs: int
    seconds: float


def measure(bench: Bench, extent: Extent) -> None:
    """All scenarios that are wanted, the tools taking turns."""
    if not bench.wants(*SCENARIOS):
        return
    bench.say("streaming:")
    base = make_streamed(bench.directory / "streamed.db", SIZE)
    for turn in range(extent.rounds if bench.wants("loss") else 0):
        losses.loss(bench, base, SIZE, turn)
    if bench.wants("tail"):
        losses.tail(bench, base, SIZE, extent.runs)
    for turn in range(extent.runs):
        _of_the_app(bench, base, turn, extent.seconds * _SHARE)
    if bench.wants("load"):
        loads.load(bench, base, SIZE, 0, extent.seconds)
    if bench.wants("segments"):
        segments.segments(bench, SIZE, extent.seconds)
    if bench.wants("quiet"):
        quiet.quiet(bench, base, SIZE, extent.seconds)
    base.unlink()
    if bench.wants("parked"):
        _parked(bench, extent)


def _of_the_app(bench: Bench, base: Path, turn: int, seconds: float) -> None:
    if bench.wants("commits"):
        loads.commits(bench, base, SIZE, turn, seconds)
    if bench.wants("truncate"):
        loads.truncate(bench, base, SIZE, turn, seconds)


def _parked(bench: Bench, extent: Extent) -> None:
    small = make_base(bench.directory / "parked.db", MIB)
    for turn in range(extent.runs):
        quiet.parked(bench, small, turn, extent.seconds * _SHARE)
    small.unlink()
