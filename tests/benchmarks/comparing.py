"""What differs between two restore points in the store, after each of some changes.

sidecar fetches what it needs of them. sqldiff and SQL (attached.py) need both databases as files first: what it takes to
restore them is told beside their time, and is what they `received`. `compared` is the time that `sidecar diff` tells: all
but the start of the program.

Not the number of rows that sqldiff and SQL find is compared: sqldiff takes 1 for 1.0, and shows an added column as a change
of every row.
"""

import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import attached, generate
from tests.benchmarks.measure import Values, run
from tests.benchmarks.publishing import Bench, metered
from tests.benchmarks.results import Results, Sample
from tests.benchmarks.targets import OFFICIAL, Target
from tests.benchmarks.tools import Command, Sidecar, Subject
from tests.harness.environment import ROOT
from tests.harness.sidecar_process import SIDECAR

SCENARIOS = ("diff",)
_TOLD = re.compile(r"compared ([0-9,]+) of [0-9,]+ chunks in ([0-9.]+) s")
_US, _SQLDIFF, _SQL = "sidecar", "sqldiff", "ATTACH + EXCEPT"


def anywhere(count: int) -> Callable[[Any], None]:
    """Change so many rows, drawn from all over."""

    def change(connection: Any) -> None:
        (total,) = connection.execute("SELECT max(id) FROM rows").fetchone()
        chosen = random.Random(count).sample(range(1, total + 1), count)
        places = ", ".join(map(str, chosen))
        connection.execute(f"UPDATE rows SET version = version + 1 WHERE id IN ({places})")

    return change


def add_column(connection: Any) -> None:
    """Add one with a default."""
    connection.execute("ALTER TABLE rows ADD COLUMN note TEXT DEFAULT 'none'")


def vacuum(connection: Any) -> None:
    """Change 200 rows, and move all."""
    connection.execute("DELETE FROM rows WHERE id = 1")
    anywhere(199)(connection)
    connection.execute("VACUUM")


CHANGES: dict[str, Callable[[Any], None]] = {
    "10 rows": anywhere(10),
    "100 rows": anywhere(100),
    "range": generate.change_range,
    "column": add_column,
    "vacuum": vacuum,
}


def diff(bench: Bench, base: Path, size: int, turn: int) -> None:
    """All changes, each on a database and a bucket of its own."""
    for number, (change, apply) in enumerate(CHANGES.items()):
        label = f"diff-{number}-{size >> 20}-{turn}"
        with Subject(bench.server, bench.directory / label, label) as subject:
            subject.place(base)
            run(Sidecar().publish(subject), subject.env, subject.log)
            apply(subject.app)
            run(Sidecar().publish(subject), subject.env, subject.log)
            bench.record(Sample(size, f"diff, {change}", _US, turn, _ours(subject)))
            if bench.peers:
                if not shutil.which("sqldiff"):
                    bench.say("  sqldiff is not there (Debian: sqlite3-tools), and left out")
                for tool, values in _theirs(subject):
                    bench.record(Sample(size, f"diff, {change}", tool, turn, values))


def _ours(subject: Subject) -> Values:
    shown, seen = subject.directory / "shown.txt", Values()
    command = (*SIDECAR, "diff", "newest~1", "newest", "--summary")
    with subject.server.metered(subject.bucket, seen):
        cost = run(command, subject.env, subject.log, stdout=shown, expected=1)
    told = _TOLD.search(shown.read_text())
    assert told, shown.read_text()
    return cost | seen | {"compared": float(told[2]), "chunks": float(told[1].replace(",", ""))}


def _theirs(subject: Subject) -> Iterator[tuple[str, Values]]:
    files = [subject.directory / f"{name}.db" for name in ("before", "after")]
    everything = subject.keys()
    keys = sorted(key for key in everything if key.endswith(".sqlite3.zst"))
    commands: list[Command] = [
        (*SIDECAR, "restore", "--key", key.removeprefix("store/"), "--output", str(file))
        for key, file in zip(keys[-2:], files, strict=True)
    ]
    restored = metered(subject, commands)
    before = {"restored": restored["wall"], "received": restored["received"], "requests": restored["requests"]}
    names = [str(file) for file in files]
    tools = {_SQL: [sys.executable, str(Path(attached.__file__)), *names]}
    if sqldiff := shutil.which("sqldiff"):
        tools[_SQLDIFF] = [sqldiff, *names]
    for tool, command in tools.items():
        yield (
            tool,
            run(command, subject.env | {"PYTHONPATH": str(ROOT)}, subject.log, stdout=Path("/dev/null")) | before,
        )


def bounds(results: Results) -> Iterator[Target]:
    """What comparing promises, at 1 GiB: seconds, and parts of what both restore points have in the store."""
    for change, what, seconds, share in (
        ("10 rows", "10 rows anywhere", 0.3, 0.021),
        ("100 rows", "100 rows anywhere", 1.5, 0.138),
        ("range", "1 % of the rows in one range", 1.5, 0.021),
        ("column", "a column added", 0.3, 0.021),
    ):
        took, received, memory = (
            results.median(OFFICIAL, f"diff, {change}", _US, each) for each in ("compared", "received", "memory")
        )
        whole = results.median(OFFICIAL, f"diff, {change}", _SQL, "received")
        if took is None or received is None or memory is None:
            continue
        yield Target(f"difference, {what}: after start-up", f"<= {seconds} s", seconds, took, f"{took:.2f} s")
        if whole:
            part = f"{received / whole:.1%} of {whole / 1e6:.0f} MB"
            yield Target(f"difference, {what}: received", f"<= {share:.1%}", share, received / whole, part)
        yield Target(f"difference, {what}: memory", "<= 150 MB", 150e6, memory, f"{memory / 1e6:.0f} MB")
