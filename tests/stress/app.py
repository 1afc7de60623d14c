"""A writer in its own process that does whatever an app may do to the database.

    python tests/stress/app.py LIBRARY DATABASE WRITER FIRST SECONDS SEED ACKNOWLEDGED [CHECKPOINTS PAUSE]

It preserves the sum of balances, and gives each of its transactions a number in the ledger, from FIRST on. Once a commit
has returned, its number is appended to the file ACKNOWLEDGED.
"""

import os
import random
import sys
import time
from importlib import import_module
from typing import Any

ACCOUNTS = 50


class Writer:
    """A writer. With `busy` = (share, seconds) it makes only small commits, runs a checkpoint before that share of them, and
    pauses for up to so many seconds after each: the log is reset again and again.
    """

    def __init__(self, library: str, path: str, number: int, seed: str, busy: tuple[float, float] | None) -> None:
        self.sqlite: Any = import_module(library)
        self._path, self._number, self._busy = path, number, busy
        self._rng = random.Random(seed)
        self._pace = busy[1] if busy else self._rng.choice([0, 0, 0.001, 0.01, 0.05])
        self.connection = self._connect()

    def step(self, number: int) -> bool:
        """Do one thing. Returns whether it was transaction `number`, and committed. Raises SQLite's errors."""
        chance = self._rng.random()
        if self._busy:
            if chance < self._busy[0]:
                self._checkpoint()
            return self._transaction(number)
        for below, act in (
            (0.02, self._reopen),
            (0.05, self._checkpoint),
            (0.055, self._vacuum),
            (0.06, self._switch_auto_vacuum),
            (0.07, self._vacuum_some),
            (0.073, self._definitions),
            (0.078, self._read_for_long),
        ):
            if chance < below:
                act()
                return False
        return self._transaction(number, chance)

    def recover(self) -> None:
        """Continue after an error."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _connect(self) -> Any:
        rng = self._rng
        wait = 5 if self._busy else rng.choice([0.05, 2, 5])
        # Without "powersafe overwrite" SQLite repeats a commit's last frame until a sector of the disk is full.
        name = f"file:{self._path}?psow={int(rng.random() < 0.9)}"
        connection = self.sqlite.connect(name, isolation_level=None, timeout=wait, uri=True)
        autocheckpoint = (
            rng.choice([1, 20] if self._pace == 0 else [100, 300]) if self._busy else rng.choice([0, 1, 20, 1000, 1000])
        )
        connection.execute(f"PRAGMA synchronous={rng.choice(['OFF', 'NORMAL', 'FULL', 'FULL'])}")
        connection.execute(f"PRAGMA cache_size={rng.choice([5, 10, -2000])}")
        connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
        if rng.random() < 0.2:
            connection.execute(f"PRAGMA journal_size_limit={rng.choice([0, 100_000])}")
        return connection

    def _reopen(self) -> None:
        self.connection.close()
        time.sleep(self._rng.choice([0, 0, 0.1]))
        self.connection = self._connect()

    def _checkpoint(self) -> None:
        mode = self._rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    def _vacuum(self) -> None:
        self.connection.execute("VACUUM")

    def _switch_auto_vacuum(self) -> None:
        self.connection.execute(f"PRAGMA auto_vacuum={self._rng.choice([0, 1, 2])}")
        if self._rng.random() < 0.3:
            self.connection.execute("VACUUM")

    def _vacuum_some(self) -> None:
        self.connection.execute("PRAGMA incremental_vacuum(20)").fetchall()

    def _definitions(self) -> None:
        number = self._rng.randrange(4)
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS t{number}(a, b)")
        self.connection.execute(f"CREATE INDEX IF NOT EXISTS i{number} ON t{number}(a)")
        self.connection.execute(f"DROP TABLE IF EXISTS t{(number + 1) % 4}")

    def _read_for_long(self) -> None:
        """A reader that pins the log."""
        self.connection.execute("BEGIN")
        self.connection.execute("SELECT sum(balance) FROM account").fetchone()
        time.sleep(self._rng.choice([0.05, 0.3, 1]))
        self.connection.execute("COMMIT")

    def _transaction(self, number: int, chance: float = 1.0) -> bool:
        rng, run = self._rng, self.connection.execute
        run("BEGIN IMMEDIATE")
        if chance < 0.12:
            self._spill()
        elif chance < 0.2:
            some = rng.choice([5, 100, 5000])
            run("DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY random() LIMIT ?)", (some,))
        for _ in range(rng.randrange(1, 4)):
            self._transfer(rollback=rng.random() < (0 if self._busy else 0.2))
        if rng.random() < (0 if self._busy else 0.08):
            run("ROLLBACK")
            return False
        run("INSERT INTO ledger VALUES (?, ?)", (self._number, number))
        run("COMMIT")
        return True

    def rest(self) -> None:
        """Pause between two commits."""
        time.sleep(self._pace * self._rng.random())

    def _spill(self) -> None:
        """Change more pages than fit into a small cache, so that they are written to the log before the commit."""
        for _ in range(self._rng.randrange(20, 400)):
            self.connection.execute("INSERT INTO big(b) VALUES (randomblob(?))", (self._rng.randrange(10, 3000),))
            if self._rng.random() < 0.3:
                account = (self._rng.randrange(ACCOUNTS),)
                self.connection.execute("UPDATE account SET pad=randomblob(40) WHERE id=?", account)

    def _transfer(self, *, rollback: bool) -> None:
        rng, run = self._rng, self.connection.execute
        giver, taker, amount = rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS), rng.randrange(100)
        run("UPDATE account SET balance=balance-? WHERE id=?", (amount, giver))
        if rollback:
            run("SAVEPOINT s")
            run("UPDATE account SET balance=balance+1000000, pad=randomblob(3000)")
            run("INSERT INTO big(b) SELECT randomblob(2000) FROM account")
            run("ROLLBACK TO s")
            run("RELEASE s")
        run("UPDATE account SET balance=balance+? WHERE id=?", (amount, taker))


def main(
    library: str, path: str, number: str, first: str, seconds: str, seed: str, acknowledged: str, *busy: str
) -> None:
    """Write until the time is up, but one commit at least."""
    writer = Writer(library, path, int(number), seed, (float(busy[0]), float(busy[1])) if busy else None)
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    until, own, committed = time.monotonic() + float(seconds), int(first), False
    while time.monotonic() < until or not committed:
        own += 1
        try:
            if writer.step(own):
                os.write(file, f"{number} {own}\n".encode())
                committed = True
                writer.rest()
        except writer.sqlite.OperationalError:
            writer.recover()
    writer.connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
