"""The lineage marker, `<db>.sidecar.json`: which restore point the local database descends from.

Written after a restore, before each publish (pending) and after it (last), so that a crash between a publish and the
marker is not taken for a conflict.
"""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import structlog

from sidecar.host.files import sync, temporary, write_new
from sidecar.host.mounts import mount_of
from sidecar.storage.base import FileBacked

log = structlog.get_logger()

PENDING_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Marker:
    """Keys of restore points in `store`; `inode` and `device` are those of the database file it speaks of.

    `by_hand` says that somebody chose this restore point, with `sidecar restore`. `identity`, `mount` and `filesystem` are those of a
    store that is a directory (`ports.FileBacked`): it may have moved, and another one may be in its place.
    """

    store: str
    last: str | None
    pending: tuple[str, ...] = ()
    root: str | None = None
    device: int = 0
    inode: int = 0
    by_hand: bool = False
    identity: str | None = None
    mount: str | None = None
    filesystem: str | None = None

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
    marker = Marker(**{**known, "pending": tuple(known["pending"])})
    texts = (marker.store, marker.last, marker.root, marker.identity, marker.mount, marker.filesystem, *marker.pending)
    if not all(text is None or isinstance(text, str) for text in texts):  # anybody may have written it
        raise TypeError("a field is of another type")
    return marker


class Lineage:
    """Reads and writes the marker of one database."""

    def __init__(self, database: Path, store: str, *, durable: bool, file_backed: FileBacked | None = None) -> None:
        self._database = database
        self._store = store
        self._durable = durable
        self._located = file_backed
        self.path = database.with_name(f"{database.name}.sidecar.json")

    def read(self) -> Marker | None:
        """The marker, or None when there is none that speaks of this very file and this store."""
        marker = self._of_this_file()
        return marker if marker and self._is_here(marker) else None

    def elsewhere(self) -> Marker | None:
        """The marker of this very file, when it speaks of another store: that is where the database comes from."""
        marker = self._of_this_file()
        return None if marker is None or self._is_here(marker) else marker

    def on_this_disk(self) -> Marker | None:
        """A marker for this store, whether its database is there, is another file by now, or is gone."""
        marker = self._parsed()
        return marker if marker and self._is_here(marker) else None

    def left_behind(self) -> Marker | None:
        """A marker for this store without its database, which was there once on this disk."""
        if self._inode(self._database) is not None:
            return None
        marker = self.on_this_disk()
        staged = self._inode(temporary(self._database))
        return (
            None if marker is None or marker.inode == staged else marker
        )  # staged: a boot was killed before its rename

    def refresh(self) -> None:
        """Write down where the store is now, unless that is known: a marker of an older version, or a store that has moved."""
        marker = self.read()
        if marker and marker != (fresh := self._here(marker)):
            self._write(fresh)

    def _is_here(self, marker: Marker) -> bool:
        """Whether it speaks of this store: by its URL, or of a directory that has moved by its name."""
        identity = self._located.identity if self._located else None
        return marker.store == self._store or (identity is not None and marker.identity == identity)

    def _here(self, marker: Marker) -> Marker:
        where = self._located
        if where is None:
            return replace(marker, store=self._store)
        mount = mount_of(where.directory)
        point, kind = mount or (None, None)
        return replace(marker, store=self._store, identity=where.identity, mount=point, filesystem=kind)

    def _of_this_file(self) -> Marker | None:
        # The inode alone: device numbers change when a volume is attached anew. A file that takes the place of a
        # removed one may get its inode; it is then published as the newest, and the older restore points stay.
        marker = self._parsed()
        return marker if marker and marker.inode == self._inode(self._database) else None

    def _parsed(self) -> Marker | None:
        try:
            return _parse(self.path.read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @staticmethod
    def _inode(path: Path) -> int | None:
        """None when there is no file, or one of zero bytes."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return status.st_ino if status.st_size else None

    def descends(self, key: str, root: str, file: Path | None = None, *, by_hand: bool = False) -> None:
        """The database has the content of this restore point, or descends from it.

        `file` is where the database lies before it is renamed to its place: its inode stays.
        """
        self._write(self._here(Marker(self._store, key, root=root, by_hand=by_hand)), file)

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
