"""A database in which nothing happens, seen by as few instructions as possible: there may be a hundred in a daemon.

What is seen here is never a proof. It only tells whether there is anything that a look must see.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar.database.wal.descriptors import Descriptors, is_wanted
from sidecar.database.wal.header import SIZE


class Calm(Protocol):
    """What was seen when nothing was left to do."""

    def is_over(self) -> bool:
        """Whether something has happened since, or anything cannot be seen. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An open database all of whose log is in its file, by its descriptors and the header of the wal-index. Two system calls."""

    shm: int
    database: int
    header: bytes

    @classmethod
    def of(cls, files: Descriptors, header: bytes) -> "Parked":
        """For as long as these files are open."""
        return cls(files.shm, files.database, header)

    def is_over(self) -> bool:
        """Whether somebody has committed, or has locked the database exclusively, or waits to do so."""
        return os.pread(self.shm, SIZE, 0) != self.header or is_wanted(self.database)


@dataclass(frozen=True, slots=True)
class Closed:
    """A database that nobody has open, by the name of its log. One system call."""

    log: str

    @classmethod
    def of(cls, path: Path) -> "Closed":
        """For as long as we have it closed."""
        return cls(f"{path}-wal")

    def is_over(self) -> bool:
        """Whether there is a log, which SQLite makes before anything else when it opens a database in WAL mode."""
        return os.access(self.log, os.F_OK)
