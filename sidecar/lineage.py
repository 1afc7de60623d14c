"""The lineage marker, `<db>.sidecar.json`: which restore point the local database descends from.

Written after a restore, before each publish (pending) and after it (last), so that a crash between a publish and the
marker is not taken for a conflict.
"""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import structlog

from sidecar.files import sync, write_new

log = structlog.get_logger()

PENDING_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Marker:
    """Keys of restore points in `store`; `inode` and `device` are those of the database file it speaks of.

    `by_hand` says that somebody chose this restore point, with `sidecar restore`.
    """

    store: str
    last: str | None
    pending: tuple[str, ...] = ()
    root: str | None = None
    device: int = 0
    inode: int = 0
    by_hand: bool = False

    def names(self, key: str) -> bool:
        """Whether the database descends from this restore point."""
        return key == self.last or key in self.pending


def _bounded(keys: tuple[str, ...]) -> tuple[str, ...]:
    """After a long outage the first ones and the last: those whose replies were lost when it began, and when it ends."""
    return keys if len(keys) <= PENDING_KEPT else (*keys[: PENDING_KEPT // 2], *keys[-PENDING_KEPT // 2 :])


def _parse(text: str) -> Marker:
    """A marker, whatever other fields a newer version wrote into it. Raises ValueError, TypeError or KeyError."""
    values = json.loads(text)
    known = {each.name: values[each.name] for each in fields(Marker) if each.name in values}
    return Marker(**{**known, "pending": tuple(known["pending"])})


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
            marker = _parse(self.path.read_text())
            inode = os.stat(self._database).st_ino
        except (OSError, ValueError, TypeError, KeyError):
            return None
        # The inode alone: device numbers change when a volume is attached anew. A file that takes the place of a
        # removed one may get its inode; it is then published as the newest, and the older restore points stay.
        return marker if (marker.store, marker.inode) == (self._store, inode) else None

    def descends(self, key: str, root: str, file: Path | None = None, *, by_hand: bool = False) -> None:
        """The database has the content of this restore point, or descends from it.

        `file` is where the database lies before it is renamed to its place: its inode stays.
        """
        self._write(Marker(self._store, key, root=root, by_hand=by_hand), file)

    def pending(self, key: str) -> None:
        """A publish under this key begins. Earlier ones that failed may have succeeded without our being told."""
        marker = self.read() or Marker(self._store, None)
        self._write(replace(marker, pending=_bounded((*marker.pending, key))))

    def _write(self, marker: Marker, file: Path | None = None) -> None:
        """A marker that cannot be written costs a conflict at the next boot, never a backup: say so and go on."""
        try:
            status = os.stat(file or self._database)
            temporary = self.path.with_name(f".{self.path.name}.new")
            text = json.dumps(asdict(replace(marker, device=status.st_dev, inode=status.st_ino)))
            write_new(temporary, text.encode())
            if self._durable:
                sync(temporary)
            os.replace(temporary, self.path)
            if self._durable:
                sync(self.path.parent)
        except OSError as error:
            log.warning("the lineage marker cannot be written", path=str(self.path), error=error.strerror)
