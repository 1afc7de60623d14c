"""`python -m tests.soak [ROUNDS [FIRST]]`: random databases, compared and patched. Prints each mismatch with its number."""

import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.soak.rounds import plan, run

rounds, first = (
    (int(each) for each in (*sys.argv[1:], "5000", "0")[:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 0)
)
counted: Counter[str] = Counter()
with tempfile.TemporaryDirectory() as directory:
    for number in range(first, first + rounds):
        counted["rounds"] += 1
        chosen = plan(number)
        try:
            outcome = run(chosen, Path(directory))
        except Exception as error:  # noqa: BLE001 - every kind of failure is a mismatch
            counted["mismatches"] += 1
            print(f"round {number}: {type(error).__name__}: {error}; steps {', '.join(chosen.later)}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc(limit=-4)
            continue
        counted["rows"] += sum(each.added + each.removed + each.changed for each in outcome.tables.values())
        counted["schema changes"] += len(outcome.schema)
print(
    ", ".join(f"{count} {what}" for what, count in counted.items()), "0 mismatches" if not counted["mismatches"] else ""
)
sys.exit(bool(counted["mismatches"]))
