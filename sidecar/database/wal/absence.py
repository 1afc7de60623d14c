"""Closes a database that no other process has open, and proves afterwards that nothing was missed.

An app that closes its database may replace the file and open it again. With our connections open SQLite would not have
deleted the log, and would read the old one over the new file.
"""

import os
import time
from pathlib import Path

from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.hold import Hold
from sidecar.database.wal.rest import is_same

_RACY = 1.0  # seconds: a later write within the same tick of the file system's clock would leave the same stamps


def leave(hold: Hold) -> Stamps | None:
    """Close everything that is open, and return the database's stamps; None if somebody came at this moment.

    From then on a commit can only be in the first generation of the log, or have changed the database's file: a log is reset
    only after all of it was copied there.
    """
    hands = hold.hands
    hold.hop()
    stamps, index = Stamps.of(hands.path), hands.index()
    racy = time.time() - max(stamps.written, stamps.changed) / 1e9 < _RACY
    if racy or index.frame or index != hold.mark.index or not hold.parked or hands.files.others():
        return None
    hands.close(tidy=True)
    return stamps


def is_back(path: Path, left: Stamps) -> bool:
    """Whether somebody has opened the database since. Raises `StreamCut` if they have closed it already."""
    if any(os.path.lexists(f"{path}{suffix}") for suffix in ("-wal", "-shm")):
        return True
    if is_same(path, left):
        return False
    raise StreamCut(CutCause.REPLACED, f"{path} was changed, and closed or replaced, before it could be followed again")
