"""A real database, recorded commit by commit: what a stream contains, and the bytes of the file after each commit."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sidecar.model import Commit
from tests.harness.writers import open_database

START = 1_795_000_000_000_000  # microseconds
STEP = 100_000


class Recorder:
    """Writes transactions and records the pages that each one changed. `states[n]` is the file after n commits."""

    def __init__(self, connection: Any, path: Path, page_size: int) -> None:
        self.connection = connection
        self.path = path
        self.page_size = page_size
        self.commits: list[Commit] = []
        self.states: list[bytes] = [self._bytes()]

    def record(self) -> None:
        """Record what was committed since the last call as the next commit."""
        before, after = self.states[-1], self._bytes()
        size, number = self.page_size, len(self.states)
        images = {
            page + 1: after[page * size : (page + 1) * size]
            for page in range(len(after) // size)
            if after[page * size : (page + 1) * size] != before[page * size : (page + 1) * size]
        }
        self.commits.append(Commit(number, START + number * STEP, len(after) // size, images))
        self.states.append(after)

    def run(self, *statements: str) -> None:
        """Run these statements as one transaction; VACUUM must be alone."""
        if statements != ("VACUUM",):
            statements = ("BEGIN", *statements, "COMMIT")
        for statement in statements:
            self.connection.execute(statement)
        self.record()

    def wander(self, chance: random.Random, number: int) -> None:
        """Run transactions of every kind: rows, large values, deletions, schema changes, growth and shrinking."""
        for _ in range(number):
            self.run(*self._anything(chance))

    def _anything(self, chance: random.Random) -> tuple[str, ...]:
        some = f"INSERT INTO notes (content) VALUES (randomblob({chance.randrange(20, 9000)}))"
        name = f"t{chance.randrange(10**9)}"
        return chance.choice(
            [
                (some,),
                (some,) * 5,
                ("UPDATE notes SET content = randomblob(300) WHERE id % 3 = 1",),
                (f"DELETE FROM notes WHERE id % {chance.randrange(2, 6)} = 1",),
                ("DELETE FROM notes WHERE id % 2 = 0", "PRAGMA incremental_vacuum"),
                ("VACUUM",),
                (f"CREATE TABLE {name} (x)", f"INSERT INTO {name} SELECT content FROM notes LIMIT 3"),
            ]
        )

    def _bytes(self) -> bytes:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return self.path.read_bytes()


@contextmanager
def recorded(path: Path, page_size: int = 4096, auto_vacuum: int = 0) -> Iterator[Recorder]:
    """A new database with one table in WAL mode."""
    with closing(open_database(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA synchronous=off")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content BLOB)")
        yield Recorder(connection, path, page_size)
