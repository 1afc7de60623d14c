"""Follows a live database in WAL mode from outside the app, and captures every commit."""

from sidecar.database.wal.backlog import Backlog, Batch, Captured, fold
from sidecar.database.wal.capture import Capture, Feed, FeedState, FeedStatus
from sidecar.database.wal.cuts import CutCause, NotStreamable, StreamCut
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.eligibility import require_streamable, unsuitable
from sidecar.database.wal.follower import Follower
from sidecar.database.wal.glance import Glance, glance
from sidecar.database.wal.header import WalIndex
from sidecar.database.wal.leftover import leaving_no_log
from sidecar.database.wal.limits import Limits
from sidecar.database.wal.reader import NotNow

__all__ = [
    "Backlog",
    "Batch",
    "Capture",
    "Captured",
    "CutCause",
    "Feed",
    "FeedState",
    "FeedStatus",
    "Follower",
    "Glance",
    "Limits",
    "NotNow",
    "NotStreamable",
    "Stamps",
    "StreamCut",
    "WalIndex",
    "fold",
    "glance",
    "leaving_no_log",
    "require_streamable",
    "unsuitable",
]
