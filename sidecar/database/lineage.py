"""The lineage marker, `<db>.sidecar.json`: names the restore point that the local database descends from.

It is written after a restore, before each publish (pending) and after it (last), so that a crash between a publish and
the marker is not taken for a conflict.

One file, so that all that writes a marker is beside what reads it: a field that one of them forgets is lost.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from sidecar.host import canonical, failed, is_failure, kernel_boot, sync, temporary, write_new
from sidecar.log import log
from sidecar.model import Position, WalBy

PENDING_KEPT = 1000
STREAMS_KEPT = 100
_LARGEST_MARKER = 16 << 20


@dataclass(frozen=True, slots=True)
class Marker:
    """Keys of restore points in `store`; `inode` and `device` identify the database file that the marker is about.

    `by_hand` means that somebody chose this restore point with `sidecar restore`. `identity`, `mount` and `filesystem`
    locate a store that is a directory (`StorePlace`): it may have moved, and another one may be in its place. `endpoint`
    is the server's: two servers may have a bucket of the same name. An older version did not write it: None is unknown.
    `posix_locks`: a program was seen to lock this database as SQLite does by default.
    `restored_to` is the place in a stream to which the file was restored, if that is not the restore point itself. Its commits
    went to `streams` since then, the last of which began in this boot of the kernel. `wal_by` says who chose WAL mode.
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
    endpoint: str | None = None
    posix_locks: bool = False
    streams: tuple[str, ...] = ()
    kernel: str | None = None
    restored_to: Position | None = None
    wal_by: str | None = None

    @property
    def place(self) -> str:
        """The store as it may be shown, with its endpoint where that is known."""
        return f"{self.store} at {self.endpoint}" if self.endpoint else self.store

    def names(self, key: str) -> bool:
        """Whether the database descends from this restore point."""
        return key == self.last or key in self.pending


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store that is a directory is now: its own name, its mount point, and the type of the file system there.

    The name is None until the store was first asked for anything; the others where the system does not tell.
    """

    identity: str | None
    mount: str | None = None
    filesystem: str | None = None


def _nowhere() -> None:
    """The place of a store that is not a directory."""


def _bounded(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The first and the last keys of a long outage: those whose replies were lost when it began and when it ended."""
    return keys if len(keys) <= PENDING_KEPT else (*keys[: PENDING_KEPT // 2], *keys[-PENDING_KEPT // 2 :])


def _parse(text: str) -> Marker:
    """A marker without the fields that only newer versions know. Raises what JSON of any other shape leads to."""
    values = json.loads(text)
    known = {each.name: values[each.name] for each in fields(Marker) if each.name in values}
    place = known.get("restored_to")
    known["restored_to"] = Position(str(place["stream"]), int(place["commit"])) if place else None
    marker = Marker(**{**known, "pending": tuple(known["pending"]), "streams": tuple(known.get("streams", ()))})
    texts = (
        marker.store,
        marker.last,
        marker.root,
        marker.identity,
        marker.mount,
        marker.filesystem,
        marker.endpoint,
        marker.kernel,
        marker.wal_by,
        *marker.streams,
        *marker.pending,
    )
    if not all(text is None or isinstance(text, str) for text in texts):
        raise TypeError("a field has another type")
    return marker


def _path_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.sidecar.json")


def posix_locks_seen(database: Path) -> bool:
    """Whether a sidecar on this disk has seen a program lock this database as SQLite does by default."""
    marker = _read(_path_of(database))
    return marker is not None and marker.posix_locks is True and _inode(database) in {marker.inode, None}


def wal_by_recorded(database: Path) -> WalBy | None:
    """Who chose WAL mode, by the marker beside this path, whatever store it names; None where there is no marker.

    Where the marker does not say, an older version may have switched the database. A file that the app has put in the place
    of another may be a copy of it, so the inode does not matter.
    """
    marker = _read(_path_of(database))
    if marker is None:
        return None
    return WalBy.APP if marker.wal_by == WalBy.APP else WalBy.SIDECAR


def _read(path: Path) -> Marker | None:
    try:
        return _parse(_content(path))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):  # anyone may have written it
        return None


def _content(path: Path) -> str:
    """The text of a marker. A named pipe in its place is empty: a start must not wait for somebody to write to it."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        return (file.read(_LARGEST_MARKER) or b"").decode()


def _inode(path: Path) -> int | None:
    """None when there is no file, or one of zero bytes."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino if status.st_size else None


class Lineage:
    """Reads and writes the marker of one database."""

    def __init__(
        self,
        database: Path,
        store: str,
        *,
        durable: bool,
        place: Callable[[], StorePlace | None] = _nowhere,
        endpoint: str = "",
    ) -> None:
        """`store` is its URL, and `endpoint` its server's, if it has one; `place` looks where it is now, if it is a directory."""
        self._database = database
        self._store = store
        self._durable = durable
        self._place = place
        self._endpoint = endpoint or None
        self._former: str | None = None
        self.path = _path_of(database)

    def read(self) -> Marker | None:
        """The marker, or None unless it is about this very file and this store."""
        marker = self._of_this_file()
        return marker if marker and self._is_here(marker) else None

    def require_readable(self) -> None:
        """Raise `LocalFailure` when the disk does not give the marker: taken for missing, it would make a conflict."""
        try:
            _content(self.path)
        except OSError as error:
            if is_failure(error):
                raise failed(self.path, error.strerror) from error

    def elsewhere(self) -> Marker | None:
        """The marker of this very file if it names another store, which is where the database comes from."""
        marker = self._of_this_file()
        return None if marker is None or self._is_here(marker) else marker

    def on_this_disk(self) -> Marker | None:
        """The marker for this store, whether its database is there, was replaced by another file, or is gone."""
        marker = self._parsed()
        return marker if marker and self._is_here(marker) else None

    def left_behind(self) -> Marker | None:
        """The marker for this store if its database, which was once on this disk, is missing."""
        if _inode(self._database) is not None:
            return None
        marker = self.on_this_disk()
        staged = _inode(temporary(self._database))
        # The same inode as the staged file: a boot was killed between writing the marker and renaming the file.
        return None if marker is None or marker.inode == staged else marker

    def left(self) -> Marker | None:
        """The marker of a database that had restore points, in whatever store, if the database itself is missing."""
        marker = self._parsed()
        gone = _inode(self._database) is None
        return marker if gone and marker and (marker.last or marker.pending) else None

    def refresh(self) -> None:
        """Record where the store is now if the marker does not: it is of an older version, or the store has moved."""
        marker = self.read()
        if marker and marker != (fresh := self._here(marker)):
            self._write(fresh)

    def follow(self, newest: str) -> Marker | None:
        """The marker of this very file if it names the newest restore point, but under another endpoint.

        The same key at another address is the same store, or a copy of it: its server has got another name. The marker
        is about this store from now on, and the next write says so.
        """
        marker = self.elsewhere()
        if marker is None or marker.store != self._store or not marker.names(newest):
            return None
        self._former = marker.endpoint
        return marker

    def _is_here(self, marker: Marker) -> bool:
        """Whether the marker is about this store: by its URL and server, or by the name of a directory that has moved."""
        if marker.store == self._store and (
            not marker.endpoint
            or not self._endpoint
            or marker.endpoint == self._former
            or canonical(marker.endpoint) == canonical(self._endpoint)
        ):
            return True
        place = self._place()
        return place is not None and place.identity is not None and marker.identity == place.identity

    def _here(self, marker: Marker) -> Marker:
        place = self._place()
        if place is None:
            return replace(marker, store=self._store, endpoint=self._endpoint)
        return replace(marker, store=self._store, **asdict(place))

    def _of_this_file(self) -> Marker | None:
        # The inode alone: device numbers change when a volume is attached anew. A file that takes the place of a
        # removed one may get its inode; it is then published as the newest, and the older restore points stay.
        marker = self._parsed()
        return marker if marker and marker.inode == _inode(self._database) else None

    def _parsed(self) -> Marker | None:
        return _read(self.path)

    def descends(
        self,
        key: str,
        root: str,
        file: Path | None = None,
        *,
        by_hand: bool = False,
        restored_to: Position | None = None,
        wal_by: WalBy | None = None,
    ) -> None:
        """Record that the database has the content of this restore point, or descends from it.

        `file` is the path of the database before it is renamed into place, which keeps its inode; with it, `restored_to` is
        the place in a stream that the file was brought to, and `wal_by` what the restore point says of it.
        """
        locks = self._locks()
        marker = Marker(self._store, key, root=root, by_hand=by_hand, posix_locks=locks, restored_to=restored_to)
        if file is None and (before := self.read()):  # the same file goes on, and so does its stream
            marker = replace(marker, streams=before.streams, kernel=before.kernel, restored_to=before.restored_to)
        marker = replace(marker, wal_by=(wal_by or WalBy.SIDECAR) if file else None)
        self._write(self._here(marker), file)

    def stream(self, name: str) -> None:
        """Record the stream that the commits of the database go to from now on."""
        marker = self.read() or Marker(self._store, None, endpoint=self._endpoint)
        streams = (*marker.streams, name)[-STREAMS_KEPT:]
        self._write(replace(marker, streams=streams, kernel=kernel_boot()))

    def chose_wal(self, who: WalBy) -> None:
        """Record who chose WAL mode."""
        marker = self._of_this_file() or Marker(self._store, None, endpoint=self._endpoint)
        if marker.wal_by != who:
            self._write(replace(marker, wal_by=who))

    def pending(self, key: str, *, posix_locks: bool = False) -> None:
        """Record that a publish under this key begins. Earlier keys stay: their publish may have succeeded with its reply lost.

        `posix_locks`: a program was seen to use them on the database. That stays.
        """
        marker = self.read() or Marker(self._store, None, endpoint=self._endpoint)
        pending = _bounded((*marker.pending, key))
        self._write(replace(marker, pending=pending, posix_locks=posix_locks or self._locks()))

    def _locks(self) -> bool:
        marker = self._parsed()
        return marker is not None and marker.posix_locks is True

    def _write(self, marker: Marker, file: Path | None = None) -> None:
        """Write the marker, or log that it failed: that may cost a conflict at the next boot, but never a backup."""
        try:
            if marker.wal_by is None and (before := self._parsed()):
                marker = replace(marker, wal_by=before.wal_by)
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
            log.warning("lineage marker not written", path=str(self.path), error=error.strerror)
