"""`python -m tests.stress [--rounds N] [--seconds S] [--seed N] [--writers mixed|old|new] [--mutant NAME]`.

Writers do whatever an app may do to a database, all processes are killed at random, and what the follower captured is
compared byte by byte with SQLite's own copies. Exits with 1 and keeps the round's folder if anything was missed or wrong;
with `--mutant`, if the broken protocol was not caught.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tests.stress import waiting
from tests.stress.judge import Verdict
from tests.stress.mutants import MUTANTS, SETTINGS, SURVIVORS
from tests.stress.plan import LIBRARIES, Plan, draw
from tests.stress.rounds import Round

Outcome = tuple[Plan, Path, Verdict | None, Counter[str]]


def plans(options: argparse.Namespace) -> Iterator[Plan]:
    """The plans of the rounds, one after the other."""
    for seed in range(options.seed, options.seed + options.rounds):
        plan = draw(seed, options.seconds, options.writers)
        if like := options.mutant or options.like:
            fast: dict[str, Any] = {"busy": (0.3, 0.0), "calm": True, "limits": {}, "reopen": 0.0, "fold": 0.0}
            plan = replace(plan, mutant=options.mutant or "", **(fast | SETTINGS[like]))
        yield plan


def play(plan: Plan, folder: Path) -> Outcome:
    """Run one round."""
    own = folder / f"round-{plan.seed}"
    own.mkdir(parents=True)
    current = Round(own, plan)
    verdict = current.run()
    counts = Counter(
        kills=current.kills,
        follower_kills=current.follower_kills,
        rounds=1,
        acknowledged=verdict.acknowledged,
        commits=verdict.commits,
        streams=verdict.streams,
        resumed=verdict.resumed,
        compared=verdict.compared,
        checked=verdict.checked,
        missed=verdict.missed,
        lost_by_sqlite=verdict.lost_by_sqlite,
        damaged_by_sqlite=verdict.damaged_by_sqlite,
        wrong=len(verdict.wrong),
    )
    return plan, own, verdict, counts + verdict.counters


def report(total: Counter[str], cuts: Counter[str]) -> None:
    """Print the results of all rounds."""
    total.setdefault("missed", 0)
    total.setdefault("wrong", 0)
    print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(total.items())), flush=True)
    print("cuts: " + (", ".join(f"{cause} {count}" for cause, count in sorted(cuts.items())) or "none"), flush=True)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--within", type=float, default=float("inf"), help="start new rounds for this many seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--writers", choices=LIBRARIES, default="mixed")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--mutant", choices=[*MUTANTS, *SURVIVORS])
    parser.add_argument("--like", choices=SETTINGS, help="run this mutant's rounds with the unbroken protocol")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all rounds")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sidecar-stress-"))
    total, cuts, bad = Counter[str](), Counter[str](), 0
    until = time.monotonic() + options.within
    rounds = plans(options)
    with ThreadPoolExecutor(options.parallel) as pool:
        while time.monotonic() < until and (some := list(islice(rounds, options.parallel))):
            for plan, own, verdict, counts in pool.map(lambda each: play(each, folder), some):
                assert verdict
                total.update(counts)
                cuts.update(verdict.cuts)
                bad += bool(verdict.wrong)
                for sentence in [*verdict.strange, *verdict.wrong[:5]]:
                    print(f"round {plan.seed}: {sentence}", flush=True)
                if not (options.keep or ((verdict.wrong or verdict.strange) and not options.mutant)):
                    shutil.rmtree(own)
            if total["rounds"] % 10 == 0:
                report(total, cuts)
            if options.mutant in MUTANTS and bad:
                break
    report(total, cuts)
    if not any(folder.iterdir()):
        folder.rmdir()
    else:
        print(f"kept: {folder}")
    if options.mutant in MUTANTS:
        print(f"mutant {options.mutant} was {'caught' if bad else 'NOT caught'}")
        return not bad
    # The damage done to a survivor is a reason for cuts.
    return bool(bad or (cuts["without a reason"] and not options.mutant))


if __name__ == "__main__":
    raise SystemExit(waiting.main(sys.argv[2:]) if sys.argv[1:2] == ["wait"] else main())
