"""A few rounds of `make stress`. What it must catch is in `tests/integration/wal/test_interleaving.py`, with schedules that need no luck."""

from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.database import default_driver
from sidecar.database.wal import Capture
from tests.stress import replacing
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


@pytest.mark.anyio
@pytest.mark.parametrize("delay", [0, 0.01, 0.3])
async def test_a_file_that_is_copied_over_a_closed_database_is_what_the_app_finds(tmp_path: Path, delay: float) -> None:
    """At once, and later. The stream is cut, and the next one begins at what is there."""
    plan = replacing.draw(
        1, tmp_path, way="copied", delay=delay, before=50, parts=1, part=20, pause=0.06, after=1, closes=False, wait=0
    )
    capture = Capture(default_driver())
    async with capture.running():
        current = await replacing.Round(plan, tmp_path).run(capture)
    assert current.wrong == []
    assert current.cuts
