"""An app that writes: it commits at a steady pace and keeps how long each commit took.

    python tests/benchmarks/writer.py DATABASE --seconds N --rate PER_SECOND --output FILE

A transaction inserts a row and changes one from anywhere. Measured from before BEGIN IMMEDIATE to after COMMIT, so
waiting for a lock counts. WAL with synchronous=normal, as an app on such machines should have it; checkpoints as SQLite
makes them. Behind schedule it does not catch up unless told to: one long commit is one sample. Needs nothing but the
interpreter.

A commit that is refused because the database is locked (with `--busy-timeout 0`, that is at once) counts as an error.
"""

import argparse
import contextlib
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:  # as the program does: two SQLite libraries must never open one file in one process
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

SCRIPT = Path(__file__).resolve()
CHECKPOINT_TIMEOUT = 5000  # milliseconds
LONGEST_DELAY = 0.1  # seconds that are caught up with


@dataclass(slots=True)
class Seen:
    """Seconds that each commit and each checkpoint took; commits and checkpoints that were refused."""

    commits: list[float] = field(default_factory=list)
    refused: int = 0
    checkpoints: list[float] = field(default_factory=list)
    busy: int = 0

    def as_dict(self) -> dict[str, object]:
        return {
            "commits": self.commits,
            "refused": self.refused,
            "checkpoints": self.checkpoints,
            "busy": self.busy,
        }


class Writer:
    """Commits on one connection. `hot`: how many rows, from the first, are ever changed; 0 is all."""

    def __init__(self, connection: Any, hot: int, acks: int | None) -> None:
        self._connection, self._acks = connection, acks
        self._source = random.Random(4)
        total = connection.execute("SELECT max(id) FROM rows").fetchone()[0]
        self._chosen = min(hot or total, total)
        self.seen = Seen()

    def commit(self) -> None:
        """One transaction."""
        noise, chosen = self._source.randbytes(450), self._source.randint(1, self._chosen)
        begun = time.perf_counter()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            row = self._connection.execute(
                "INSERT INTO rows (version, words, noise) VALUES (0, 'a commit', ?)", (noise,)
            )
            self._connection.execute("UPDATE rows SET version = version + 1 WHERE id = ?", (chosen,))
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            self.seen.refused += 1
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        else:
            self.seen.commits.append(time.perf_counter() - begun)
            if self._acks is not None:
                os.write(self._acks, b"%d %.6f\n" % (row.lastrowid, time.monotonic()))

    def checkpoint(self) -> None:
        """TRUNCATE, as patient as apps commonly are; then as it was."""
        (before,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT}")
        begun = time.perf_counter()
        self.seen.busy += self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        self.seen.checkpoints.append(time.perf_counter() - begun)
        self._connection.execute(f"PRAGMA busy_timeout={before}")


def write(writer: Writer, seconds: float, rate: float, every: float | None, *, catch_up: bool) -> None:
    """Commit until the time is over; a checkpoint follows a commit whenever `every` seconds have passed."""
    following = time.monotonic()
    ends = following + seconds
    checkpoint = following + every if every else ends
    while following < ends:
        writer.commit()
        if every and time.monotonic() >= checkpoint:
            writer.checkpoint()
            checkpoint = time.monotonic() + every
        following = max(following + 1 / rate, time.monotonic() - (LONGEST_DELAY if catch_up else 0.0))
        time.sleep(max(0.0, following - time.monotonic()))


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--synchronous", choices=("normal", "full"), default="normal")
    parser.add_argument("--catch-up", action="store_true", help="as many commits as the rate says, if it can be done")
    parser.add_argument("--busy-timeout", type=float, default=60.0, help="seconds (%(default)g)")
    parser.add_argument("--hot", type=int, default=0, help="change only the first so many rows")
    parser.add_argument("--checkpoint-every", type=float, help="seconds between TRUNCATE checkpoints (none)")
    parser.add_argument("--acks", type=Path, help="append the id of each new row, and when it was committed")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(
            contextlib.closing(sqlite3.connect(options.database, timeout=options.busy_timeout, isolation_level=None))
        )
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute(f"PRAGMA synchronous={options.synchronous}")
        acks = stack.enter_context(options.acks.open("ab", buffering=0)) if options.acks else None
        writer = Writer(connection, options.hot, acks.fileno() if acks else None)
        write(writer, options.seconds, options.rate, options.checkpoint_every, catch_up=options.catch_up)
        options.output.write_text(json.dumps(writer.seen.as_dict()))


if __name__ == "__main__":
    main()
