"""Whether a log that nobody follows still has a frame: then the database has everything up to it."""

import os
import struct
from pathlib import Path

from sidecar.database.wal.frames import checksum_of, header_of
from sidecar.model import LogPosition

_PAGE_SIZE_AT, _SALTS_AT, _HEADER = 8, 16, 32  # https://sqlite.org/fileformat2.html#walformat


def log_has(database: Path, position: LogPosition) -> bool:
    """Whether the WAL of a database has the last frame of this position. The WAL has no locks, so it may be opened."""
    try:
        file = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        header = os.pread(file, _HEADER, 0)
        if len(header) < _HEADER or header[_SALTS_AT : _SALTS_AT + 8] != position.salts:
            return False
        if not position.frame:
            return True
        (page_size,) = struct.unpack_from(">I", header, _PAGE_SIZE_AT)
        frame = header_of(file, position.frame, page_size)
        return len(frame) == 24 and frame[8:16] == position.salts and checksum_of(frame) == position.checksum
    except OSError:
        return False
    finally:
        os.close(file)
