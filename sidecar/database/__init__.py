"""One SQLite database on this disk: snapshots, checks, changes, lineage."""

from sidecar.database.base import Feed, IntegrityCheck, Snapshotter, YieldToApp
from sidecar.database.changes import ChangeTracker
from sidecar.database.driver import Driver, default_driver, standard_driver
from sidecar.database.findings import CheckReport
from sidecar.database.in_place import Choice, Choose, LiveParts, NotInPlace
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.lineage import Lineage, Marker, StorePlace
from sidecar.database.live import live_now
from sidecar.database.locking import require_posix_locks
from sidecar.database.naming import describe_links, require_own_name
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.wal_origin import WalOrigins

__all__ = [
    "ChangeTracker",
    "CheckReport",
    "Choice",
    "Choose",
    "Driver",
    "Feed",
    "IntegrityCheck",
    "Lineage",
    "LiveParts",
    "Marker",
    "NotInPlace",
    "Snapshotter",
    "SqliteIntegrity",
    "SqliteSnapshotter",
    "StorePlace",
    "WalOrigins",
    "YieldToApp",
    "default_driver",
    "describe_links",
    "live_now",
    "require_own_name",
    "require_posix_locks",
    "standard_driver",
]
