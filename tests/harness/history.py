"""An application that signs its writes, so that a test can tell afterwards which machine's history a database has.

    python tests/harness/history.py DATABASE --name MACHINE --acks FILE [--rate PER_SECOND]

Each transaction appends the next number and a row like `MACHINE.PID.SEQUENCE`, which no other process writes, and
the row is appended to the file of acknowledgements after its commit. One database descends from another exactly
if the other's rows are a prefix of its own.

It needs only the interpreter, so that it can run by path in any environment.
"""

import argparse
import contextlib
import os
import select
import signal
from pathlib import Path

try:  # as the program does: two SQLite libraries must never open one file in one process
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

SCRIPT = Path(__file__).resolve()

_SCHEMA = "CREATE TABLE IF NOT EXISTS history (number INTEGER PRIMARY KEY, row TEXT NOT NULL UNIQUE)"
_APPEND = "INSERT INTO history SELECT coalesce(max(number), 0) + 1, ? FROM history"


def history(path: Path) -> list[str]:
    """Every row, oldest first; AssertionError if the database is damaged or has a gap."""
    assert path.exists(), f"{path} does not exist"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        damage = connection.execute("PRAGMA integrity_check").fetchall()
        assert damage == [("ok",)], f"{path} is damaged: {damage}"
        made = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'history'").fetchone()
        rows = connection.execute("SELECT number, row FROM history ORDER BY number").fetchall() if made else []
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1)), f"{path} has a gap"
    return [row for _, row in rows]


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--acks", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=50.0)
    options = parser.parse_args()
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: stopping.append(number))
    acks = os.open(options.acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    connection = sqlite3.connect(options.database, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute(_SCHEMA)
    sequence = 0
    while not stopping:
        sequence += 1
        row = f"{options.name}.{os.getpid()}.{sequence}"
        connection.execute(_APPEND, (row,))
        os.write(acks, row.encode() + b"\n")
        select.select([], [], [], 1 / options.rate)  # time.sleep fails under libfaketime
    connection.close()


if __name__ == "__main__":
    main()
