"""The lineage marker, `<db>.sidecar.json`: which restore point the local database descends from.

Written after a restore, before each publish (pending) and after it (last), so that a crash between a publish and the
marker is not taken for a conflict.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from sidecar.files import sync

log = structlog.get_logger()

PENDING_KEPT = 100


@dataclass(frozen=True, slots=True)
class Marker:
    """Keys of restore points in `store`; `inode` and `device` are those of the database file it speaks of."""

    store: str
    last: str | None
    pending: tuple[str, ...] = ()
    root: str | None = None
    device: int = 0
    inode: int = 0

    def names(self, key: str) -> bool:
        """Whether the database descends from this restore point."""
        return key == self.last or key in self.pending


def _with_tuple(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "pending": tuple(values["pending"])}


class Lineage:
    """Reads and writes the marker of one database."""

    def __init__(self, database: Path, store: str, *, durable: bool) -> None:
        self._database = database
        self._store = store
        self._durable = durable
        self.path = database.with_name(f"{database.name}.sidecar.json")

    def read(self) -> Marker | None:
        """The marker, or None when there is none that speaks of this very file and this store."""
        try:
            marker = Marker(**json.loads(self.path.read_text(), object_hook=_with_tuple))
            inode = os.stat(self._database).st_ino
        except (OSError, ValueError, TypeError, KeyError):
            return None
        # The inode alone: device numbers change when a volume is attached anew, a replaced file's inode always does.
        return marker if (marker.store, marker.inode) == (self._store, inode) else None

    def descends(self, key: str, root: str) -> None:
        """The database has the content of this restore point, or descends from it."""
        self._write(Marker(self._store, key, root=root))

    def pending(self, key: str) -> None:
        """A publish under this key begins. Earlier ones that failed may have succeeded without our being told."""
        marker = self.read() or Marker(self._store, None)
        self._write(replace(marker, pending=(*marker.pending, key)[-PENDING_KEPT:]))

    def _write(self, marker: Marker) -> None:
        """A marker that cannot be written costs a conflict at the next boot, never a backup: say so and go on."""
        try:
            status = os.stat(self._database)
            temporary = self.path.with_name(f".{self.path.name}.new")
            temporary.write_text(json.dumps(asdict(replace(marker, device=status.st_dev, inode=status.st_ino))))
            if self._durable:
                sync(temporary)
            os.replace(temporary, self.path)
        except OSError as error:
            log.warning("the lineage marker cannot be written", path=str(self.path), error=error.strerror)
