"""A few rounds of `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.rounds import Chaos
from tests.harness.seaweed import Seaweed


@pytest.mark.s3
def test_nothing_published_is_lost_whoever_is_killed_when(tmp_path: Path, seaweed: Seaweed, bucket: str) -> None:
    """Always the same rounds; `make chaos` has others every time.

    Takes longer than ten seconds: six lives of a machine, each killed while its app writes.
    """
    chaos = Chaos(tmp_path, seaweed, bucket, seed=4)
    try:
        while chaos.tally.rounds < 6:
            chaos.round()
    finally:
        chaos.sweep()
    assert chaos.tally.looked
