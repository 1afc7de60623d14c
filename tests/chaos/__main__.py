"""`python -m tests.chaos --rounds 200 [--seed N]`: kill it again and again; 1 when anything was lost."""

import argparse
import random
import tempfile
from pathlib import Path

from tests.chaos.rounds import Chaos, Violation
from tests.harness.seaweed import Seaweed

BUCKET = "chaos"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory, Seaweed(Path(directory, "seaweed")) as seaweed:
        seaweed.s3.make_bucket(BUCKET)
        chaos = Chaos(Path(directory), seaweed, BUCKET, options.seed)
        try:
            for number in range(1, options.rounds + 1):
                chaos.round()
                if number % 10 == 0:
                    print(chaos.tally, flush=True)
        except (Violation, AssertionError) as violation:
            print(f"VIOLATION in round {number} of seed {options.seed}: {violation}")
            return 1
        finally:
            chaos.sweep()
    print(f"no violation: {chaos.tally}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
