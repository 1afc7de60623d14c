"""A few rounds of `make stress`. What it must catch is in `tests/integration/wal/test_interleaving.py`, with schedules that need no luck."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.stress.plan import draw
from tests.stress.rounds import Round


@pytest.mark.parametrize(("seed", "writers", "calm"), [(1, "mixed", False), (3, "new", True)])
def test_what_is_captured_is_what_sqlite_has(tmp_path: Path, seed: int, writers: str, calm: bool) -> None:
    """Most of the time, over ten seconds on a busy machine, is the start of a dozen processes."""
    plan = replace(draw(seed, 1.0, writers), calm=calm, sample=0.5)
    verdict = Round(tmp_path, plan).run()
    assert (verdict.wrong, verdict.strange) == ([], [])
    assert verdict.acknowledged
    assert verdict.checked
