"""Whether the log of a database that nobody has followed still has a frame, so that the database has everything up to it.

SQLite itself says how far the log can be read: its recovery ends at the first frame that is missing or damaged, and what
follows is lost, even if the last frame is there.
"""

import os
import struct
from contextlib import closing
from pathlib import Path

from sidecar.database.driver import Driver, touch
from sidecar.database.wal.frames import checksum_of, header_of
from sidecar.model import LogPosition

# https://sqlite.org/fileformat2.html#walformat
_ASKS = (3, 51)  # the first SQLite that tells the length of a log without a checkpoint
_PAGE_SIZE_AT, _SALTS_AT, _HEADER = 8, 16, 32


def log_has(database: Path, position: LogPosition, driver: Driver) -> bool:
    """Whether SQLite reads the WAL of a database up to the last frame of this position. It is opened, and not changed."""
    if driver.version_info < _ASKS or not _has_frame(database, position):
        return False
    try:
        # The one that reads is closed last: a connection that may write would copy the log into the database then.
        with closing(driver.connect(database, "ro")) as reading, closing(driver.connect(database, "rw")) as asking:
            touch(reading)
            _, frames, _ = asking.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
    except driver.error:
        return False
    return int(frames) >= position.frame and _has_frame(database, position)


def _has_frame(database: Path, position: LogPosition) -> bool:
    """Whether the last frame of a position is in its place, whatever is before it."""
    try:  # the WAL has no locks that closing a descriptor of it could drop
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
