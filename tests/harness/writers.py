"""A real application on SQLite: it transfers money as fast as it can, and acknowledges each commit.

    python tests/harness/writers.py DATABASE [--accounts N] [--rate PER_SECOND] [--acks FILE] …

Every transfer takes from an account in `checking` and gives to the same account in `savings`, and enters the next
number into `sequence`, in one transaction. So in every committed state, and in no torn one: all balances sum to zero,
each balance is the sum of its account's transfers, and the numbers have no gap. `check_ledger` checks it.

It needs only the interpreter, so that it can run by path in any environment.
"""

import argparse
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:  # as the program does: two SQLite libraries must never open one file in one process
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

SCRIPT = Path(__file__).resolve()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checking (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS savings (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sequence (
    number INTEGER PRIMARY KEY, account INTEGER NOT NULL, amount INTEGER NOT NULL, padding BLOB
);
"""

# One row for each account whose balances do not match its transfers.
_WRONG = """
SELECT account, checking.balance, savings.balance, coalesce(moved.amount, 0)
FROM checking FULL JOIN savings USING (account)
FULL JOIN (SELECT account, sum(amount) AS amount FROM sequence GROUP BY account) AS moved USING (account)
WHERE checking.balance IS NOT -coalesce(moved.amount, 0) OR savings.balance IS NOT coalesce(moved.amount, 0)
"""


def create_ledger(connection: Any, accounts: int, journal_mode: str = "wal") -> None:
    """Create the tables and accounts that do not exist yet; several writers may do so at once."""
    connection.execute(f"PRAGMA journal_mode={journal_mode}")
    with _transaction(connection):
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        for table in ("checking", "savings"):
            rows = [(account,) for account in range(accounts)]
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, 0)", rows)


def transfer(connection: Any, account: int, amount: int, padding: bytes = b"") -> int:
    """Commit one transfer and return its number."""
    with _transaction(connection):
        connection.execute("UPDATE checking SET balance = balance - ? WHERE account = ?", (amount, account))
        connection.execute("UPDATE savings SET balance = balance + ? WHERE account = ?", (amount, account))
        number: int = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM sequence").fetchone()[0]
        connection.execute("INSERT INTO sequence VALUES (?, ?, ?, ?)", (number, account, amount, padding))
    return number


def open_database(path: Path) -> Any:
    """A connection without implicit transactions that waits for locks."""
    return sqlite3.connect(path, timeout=30, isolation_level=None)


def check_ledger(path: Path) -> int:
    """The last number in the ledger at `path`; AssertionError if it is damaged, torn, or has a gap."""
    assert path.exists(), f"{path} does not exist"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", timeout=30, uri=True)) as connection:
            connection.execute("BEGIN")
            return _check(connection)
    except sqlite3.DatabaseError as error:
        raise AssertionError(f"{path}: {error}") from error


def fill(path: Path, megabytes: float, seed: int = 0, page_size: int = 4096, journal_mode: str = "wal") -> None:
    """Grow the table `filler` until the database has this many MiB: half text, half random bytes, always the same ones."""
    source = random.Random(seed)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(5000)]
    text = " ".join(source.choices(words, k=600_000))
    with contextlib.closing(open_database(path)) as connection:
        for pragma in (f"page_size={page_size}", "journal_mode=delete", "synchronous=off"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE IF NOT EXISTS filler (id INTEGER PRIMARY KEY, words TEXT, noise BLOB)")
        while _size(connection) < megabytes * 2**20:
            missing = megabytes * 2**20 - _size(connection)
            _add_rows(connection, source, text, max(1, min(1000, int(missing / 6000))))
        connection.execute(f"PRAGMA journal_mode={journal_mode}")


def _add_rows(connection: Any, source: random.Random, text: str, count: int) -> None:
    rows = []
    for _ in range(count):
        start, length = source.randrange(len(text) - 5000), source.randrange(500, 5000)
        rows.append((text[start : start + length], source.randbytes(length)))
    with _transaction(connection):
        connection.executemany("INSERT INTO filler (words, noise) VALUES (?, ?)", rows)


def _size(connection: Any) -> int:
    pages, page_size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * page_size)


def _check(connection: Any) -> int:
    damage = connection.execute("PRAGMA integrity_check").fetchall()
    assert damage == [("ok",)], f"damaged: {damage}"
    total = connection.execute("SELECT sum(balance) FROM (SELECT * FROM checking UNION ALL SELECT * FROM savings)")
    assert total.fetchone()[0] in (0, None), "balances do not sum to zero"
    wrong = connection.execute(_WRONG).fetchall()
    assert not wrong, f"balances that do not match their transfers (account, checking, savings, moved): {wrong}"
    first, last, count = connection.execute("SELECT min(number), max(number), count(*) FROM sequence").fetchone()
    assert count == 0 or (first, last) == (1, count), f"numbers {first} to {last}, but {count} of them"
    return int(last or 0)


@contextlib.contextmanager
def _transaction(connection: Any) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class _Stop:
    """True once SIGTERM or SIGINT was received; the current transaction is finished first."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True


def copy(database: Path, target: Path) -> None:
    """Copy the database that the app found; the copy is complete or does not exist."""
    temporary = target.with_name(f"{target.name}.incomplete")
    with contextlib.closing(open_database(database)) as found, contextlib.closing(open_database(temporary)) as kept:
        found.backup(kept)
    temporary.rename(target)


def run(options: argparse.Namespace, acks: int) -> None:
    """Transfer until a signal; each number is written to the descriptor `acks` after its commit."""
    stop, source = _Stop(), random.Random(options.seed)
    with contextlib.closing(open_database(options.database)) as connection:
        create_ledger(connection, options.accounts, options.journal_mode)
        done, started = 0, time.monotonic()
        while not stop.requested and done != options.transfers:
            padding = source.randbytes(options.padding)
            number = transfer(connection, source.randrange(options.accounts), source.randint(1, 1000), padding)
            os.write(acks, b"%d\n" % number)
            done += 1
            if options.rate:
                time.sleep(max(0.0, started + done / options.rate - time.monotonic()))
            elif done % 8 == 0:
                time.sleep(0.001)  # SQLite's lock is not fair: without a pause, other writers would starve


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.0, help="transfers per second; 0 means as fast as possible")
    parser.add_argument("--transfers", type=int, default=-1, help="end after this many; -1 means never")
    parser.add_argument("--padding", type=int, default=0, help="random bytes added by each transfer")
    parser.add_argument("--acks", type=Path, help="append committed numbers to this file instead of stdout")
    parser.add_argument("--copy", type=Path, help="copy the database there before the first transfer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal-mode", default="wal")
    parser.add_argument("--exit-status", type=int, default=0, help="exit status when told to stop")
    return parser.parse_args()


def main() -> int:
    """Run the script."""
    options = _parse()
    if options.copy:
        copy(options.database, options.copy)
    if options.acks is None:
        run(options, acks=1)
    else:
        with options.acks.open("ab", buffering=0) as acks:
            run(options, acks.fileno())
    status: int = options.exit_status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
