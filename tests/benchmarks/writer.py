"""An app that writes: it commits at a steady pace and keeps how long each commit took.

    python tests/benchmarks/writer.py DATABASE --seconds N --rate PER_SECOND --output FILE

A transaction inserts a row and changes one from anywhere. Measured from before BEGIN IMMEDIATE to after COMMIT, so
waiting for a lock counts. WAL with synchronous=normal, as an app on such machines should have it; checkpoints as SQLite
makes them. Behind schedule it does not catch up: one long commit is one sample. Needs nothing but the interpreter.
"""

import argparse
import contextlib
import json
import random
import time
from pathlib import Path
from typing import Any

try:  # as the program does: two SQLite libraries must never open one file in one process
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

SCRIPT = Path(__file__).resolve()


def write(connection: Any, seconds: float, rate: float) -> list[float]:
    """The duration of each commit, in seconds."""
    source = random.Random(4)
    total = connection.execute("SELECT max(id) FROM rows").fetchone()[0]
    durations = []
    following = time.monotonic()
    ends = following + seconds
    while following < ends:
        noise, chosen = source.randbytes(450), source.randint(1, total)
        begun = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows (version, words, noise) VALUES (0, 'a commit', ?)", (noise,))
        connection.execute("UPDATE rows SET version = version + 1 WHERE id = ?", (chosen,))
        connection.execute("COMMIT")
        durations.append(time.perf_counter() - begun)
        following = max(following + 1 / rate, time.monotonic())
        time.sleep(max(0.0, following - time.monotonic()))
    return durations


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with contextlib.closing(sqlite3.connect(options.database, timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA synchronous=normal")
        options.output.write_text(json.dumps(write(connection, options.seconds, options.rate)))


if __name__ == "__main__":
    main()
