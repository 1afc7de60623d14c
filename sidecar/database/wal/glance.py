"""Inspects a database from outside: its journal mode and whether it is in use, without SQLite and without taking locks."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sidecar.database.wal.descriptors import Stamps, borrowed, is_exclusive, is_used_by_others

_MAGIC = b"SQLite format 3\0"
_VERSIONS = slice(
    18, 20
)  # to write and to read, both 2 in WAL mode: https://sqlite.org/fileformat2.html#file_format_version_numbers


@dataclass(frozen=True, slots=True)
class Glance:
    """What was seen. `used`: another process has it open; `exclusive`: it has locked it exclusively. `stamps` change with every write."""

    is_wal: bool
    used: bool
    exclusive: bool
    stamps: Stamps


def glance(path: Path) -> Glance | None:
    """Inspect a database once; None if it is missing or empty. Raises OSError if it cannot be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None
        stamps = Stamps.of(path)
        with borrowed(path) as file:
            header = os.pread(file, 20, 0)
            is_wal = header.startswith(_MAGIC) and header[_VERSIONS] == b"\2\2"
            return Glance(is_wal, is_used_by_others(file), is_exclusive(file), stamps)
    except FileNotFoundError:
        return None
