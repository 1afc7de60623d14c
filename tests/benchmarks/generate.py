"""The databases that are measured, and the changes made to them: always the same for the same size.

One table, `rows (id, version, words, noise)`. Half of a row is text-like (words of the twelve commonest letters, which
zstd halves), half is random (which nothing compresses), 200 to 700 bytes each; a page of 4 KiB holds about four rows.
A change of 1 % is defined on the rows, by their ids; a changed row gets a new version and new random bytes of the same
length, in one transaction:

  key range  1 % of the ids, contiguous, in the middle
  append     1 % more rows at the end
  random     1 % of the ids, drawn from all over: at about a thousand rows per MiB, every MiB of the file changes
"""

import contextlib
import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.harness.writers import open_database

SHARE = 0.01
SHORTEST, LONGEST = 200, 700

_BATCH = 5000
_SAMPLED = 500
_INSERT = "INSERT INTO rows (version, words, noise) VALUES (0, ?, ?)"
_CHANGE = "UPDATE rows SET version = version + 1, noise = ? WHERE id = ?"


def generate(path: Path, size: int, seed: int = 0) -> None:
    """Make a database in WAL mode of at least `size` bytes, and hardly more."""
    source = random.Random(seed)
    text = _text(source)
    with contextlib.closing(open_database(path)) as connection:
        for pragma in ("page_size=4096", "journal_mode=off", "synchronous=off"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(
            "CREATE TABLE rows"
            " (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, words TEXT NOT NULL, noise BLOB NOT NULL)"
        )
        while (missing := size - _size(connection)) > 0:
            _insert(connection, source, text, max(1, min(_BATCH, missing // 1000)))
        connection.execute("PRAGMA journal_mode=wal")


def hold_open(path: Path) -> Any:
    """A connection such as the app has: it keeps the log, and leaves checkpoints to whom it concerns."""
    connection = open_database(path)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA synchronous=normal")
    _count(connection)  # from the first read on, the log is not deleted when others close the database
    return connection


def change_range(connection: Any, seed: int = 1) -> None:
    """Change 1 % of the rows, in one key range."""
    total = _count(connection)
    first, many = total // 2, max(1, int(total * SHARE))
    _change(connection, range(first, first + many), seed)


def append(connection: Any, seed: int = 2) -> None:
    """Add 1 % more rows at the end."""
    source = random.Random(seed)
    _insert(connection, source, _text(source), max(1, int(_count(connection) * SHARE)))


def change_random(connection: Any, seed: int = 3) -> None:
    """Change 1 % of the rows, all over."""
    total = _count(connection)
    chosen = random.Random(seed).sample(range(1, total + 1), max(1, int(total * SHARE)))
    _change(connection, sorted(chosen), seed)


def leave_alone(connection: Any) -> None:
    """Change nothing."""


def fingerprint(path: Path) -> str:
    """A digest of the number of rows, of all versions and of some hundred whole rows: is this what was written?"""
    digest = hashlib.sha256()
    with contextlib.closing(open_database(path)) as connection:
        count = _count(connection)
        digest.update(repr(connection.execute("SELECT sum(version) FROM rows").fetchone()).encode())
        for row in range(1, count + 1, max(1, count // _SAMPLED)):
            digest.update(repr(connection.execute("SELECT * FROM rows WHERE id = ?", (row,)).fetchone()).encode())
    return f"{count} rows {digest.hexdigest()[:16]}"


def _text(source: random.Random) -> str:
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(5000)]
    return " ".join(source.choices(words, k=400_000))


def _insert(connection: Any, source: random.Random, text: str, many: int) -> None:
    def row() -> tuple[str, bytes]:
        length, start = source.randint(SHORTEST, LONGEST), source.randrange(len(text) - LONGEST)
        return text[start : start + length], source.randbytes(length)

    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, (row() for _ in range(many)))
    connection.execute("COMMIT")


def _change(connection: Any, ids: Iterable[int], seed: int) -> None:
    source = random.Random(seed)
    connection.execute("BEGIN IMMEDIATE")
    for each in ids:
        length = connection.execute("SELECT length(noise) FROM rows WHERE id = ?", (each,)).fetchone()[0]
        connection.execute(_CHANGE, (source.randbytes(length), each))
    connection.execute("COMMIT")


def _count(connection: Any) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM rows").fetchone()[0])


def _size(connection: Any) -> int:
    pages, page_size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * page_size)
