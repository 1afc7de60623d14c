"""The position of a local database among the restore points in the store."""

from dataclasses import dataclass

from sidecar.database import Marker
from sidecar.model import Origin, RestorePoint, Timestamp
from sidecar.repository import Parent, Restored


@dataclass(frozen=True, slots=True)
class Start:
    """The starting point of a database's backups, as found by a boot or a command.

    `newest` is the newest restore point in the store, `marker` the local database's lineage marker; `restored` is the
    restore point that the database was just restored from. `publish` is the reason to publish in any case, or empty.
    `end` is where the history ended that the database continues, as far as the streams in the store were read.
    """

    newest: RestorePoint | None = None
    marker: Marker | None = None
    restored: Restored | None = None
    publish: str = ""
    end: Origin | None = None


@dataclass(slots=True)
class History:
    """The position of one database in its own history.

    `parent` is the key of the restore point that the database descends from, `root` its root digest if known. `newest` is
    the latest timestamp that was used: that of the next restore point must be later. `base` is the restore point that the
    next one may copy from; as long as it is a `RestorePoint`, its index has not been read.
    """

    database: str
    parent: str | None = None
    root: str | None = None
    newest: Timestamp | None = None
    base: Parent | RestorePoint | None = None

    def descend_from(self, point: RestorePoint, root: str | None) -> None:
        """Record that the local database descends from this restore point."""
        self.parent, self.newest, self.root = point.key, point.timestamp, root

    def follow(self, newest: RestorePoint, marker: Marker | None) -> bool:
        """Continue after the newest restore point in the store. True if the marker says that the database descends from it."""
        descends = marker is not None and marker.names(newest.key)
        if marker and descends:
            self.descend_from(newest, marker.root if marker.last == newest.key else None)
        self.newest = max(newest.timestamp, self.newest or newest.timestamp)
        self.base = self.base or newest
        return descends

    def stamp(self, timestamp: Timestamp | None) -> None:
        """Record that a timestamp was used. The next one is later even if the outcome of this publish stays unknown.

        With None, the next publish asks the store which restore points exist.
        """
        self.newest = timestamp

    def advance(self, key: str, timestamp: Timestamp, root: str) -> None:
        """Record that a restore point of the local database was published."""
        self.parent, self.newest, self.root = key, timestamp, root
