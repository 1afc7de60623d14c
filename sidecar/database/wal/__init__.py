"""Follows a live database in WAL mode from outside the app, and captures every commit."""

from sidecar.database.wal.backlog import Backlog, Batch, Captured, fold
from sidecar.database.wal.cuts import CutCause, NotStreamable, StreamCut
from sidecar.database.wal.follower import Follower
from sidecar.database.wal.hands import NotNow
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.limits import Limits

__all__ = [
    "Backlog",
    "Batch",
    "Captured",
    "CutCause",
    "Follower",
    "Limits",
    "NotNow",
    "NotStreamable",
    "StreamCut",
    "WalIndex",
    "fold",
]
