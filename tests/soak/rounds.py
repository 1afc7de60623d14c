"""One round: two states of a random database; the difference as SQL makes the later one of the earlier one, exactly."""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.compare.export import sql
from sidecar.compare.files import opened_file
from sidecar.compare.opening import Named, Opened
from sidecar.compare.options import Options
from sidecar.database import default_driver
from tests.harness.comparing import Outcome, compare_files
from tests.harness.database_states import BOXES, STEPS, TABLES, WORDS, Shape, apply, dump, write_states


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round does."""

    shape: Shape
    kinds: Sequence[str]
    earlier: Sequence[str]
    later: Sequence[str]
    seed: int


def plan(seed: int) -> Plan:
    """The round with this number."""
    r = random.Random(seed)
    shape = Shape(
        r.choice([512, 512, 1024, 1024, 4096, 8192, 65536]),
        r.choice(["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]),
        r.choice([0, 0, 0, 1, 2]),
        r.random() < 0.5,
        tuple(each for each in (WORDS, BOXES) if r.random() < 0.3),
        r.choice([30, 200, 600]),
    )
    kinds = r.choices(list(TABLES), k=r.randrange(1, 6))
    earlier, later = r.choices(STEPS, k=r.randrange(0, 6)), r.choices(STEPS, k=r.randrange(0, 9))
    return Plan(shape, kinds, earlier, later, seed)


def run(round_: Plan, directory: Path) -> Outcome:
    """Raises AssertionError if anything differs from what it should be."""
    before, after, patched = (directory / f"{each}.db" for each in ("before", "after", "patched"))
    for path in (before, after, patched):
        path.unlink(missing_ok=True)
    write_states(before, after, round_.shape, round_.kinds, round_.earlier, round_.later, round_.seed)
    outcome = compare_files(before, after)
    whole, merged = (compare_files(before, after, Options(pages=False, merged=size)) for size in (1 << 60, 0))
    assert outcome.counts() == whole.counts(), "pages and whole tables disagree"
    assert outcome.counts() == merged.counts(), "pages and SQL disagree"
    (rows_before, _), (rows_after, schema_after) = dump(before), dump(after)
    require_counts(outcome, rows_before, rows_after)
    shutil.copy(before, patched)
    apply((merged if round_.seed % 2 else outcome).patch, patched)
    rows, schema = dump(patched)
    assert schema == schema_after
    for table in rows.keys() | rows_after.keys():
        assert rows.get(table) == rows_after.get(table), f"{table} differs after the patch"
    require_export(after, directory / "exported.db")
    return outcome


def require_export(path: Path, target: Path) -> None:
    """The SQL of a state, run in an empty database, makes that state."""
    target.unlink(missing_ok=True)
    with opened_file(path) as state:
        apply(list(sql(Opened.of(default_driver(), Named(str(path), state)), ())), target)
    assert dump(target) == dump(path)


def require_counts(
    outcome: Outcome, before: dict[str, Counter[tuple[object, ...]]], after: dict[str, Counter[tuple[object, ...]]]
) -> None:
    """Where the columns are the same, the counts are those of the rows that SQLite shows."""
    counts = outcome.counts()
    for name, table in outcome.tables.items():
        same = table.before and table.after and table.before.names == table.after.names
        if not same or name.startswith("sqlite_"):
            continue
        one, other = before.get(table.former or name, Counter()), after.get(name, Counter())
        expected = sum((other - one).values()), sum((one - other).values())
        assert counts.get(name, (0, 0)) == expected, name
