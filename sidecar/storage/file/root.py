"""The directory of a `file://` store: its identity, and the private files beside the objects.

If a file system is not mounted, its directory is empty or missing. So the store has a random name in `.sidecar/id`, and a
process that has seen that name neither uses nor creates another directory in its place.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import StoreMissing
from sidecar.host import sync
from sidecar.storage.file.primitives import lock, translated

PRIVATE = ".sidecar"
_MOUNTED = "check that the store's file system is mounted"


class Root:
    """The directory of one store. Methods raise `StoreMissing` and the operating system's errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private = path / PRIVATE
        self._identity: bytes | None = None

    @property
    def identity(self) -> str | None:
        """The name as it was last read."""
        return self._identity.decode(errors="replace") if self._identity else None

    def require(self) -> None:
        """Raise `StoreMissing` unless this is the same store as before; a new one may be created."""
        known = self._identity  # before it is read: another thread may be creating it
        found = self._read()
        if known is None:
            self._identity = self._identity or found
            if found is None and not self.path.exists() and not self.path.parent.exists():
                raise StoreMissing(f"{self.path.parent} does not exist", _MOUNTED)
        elif found != known:
            what = "is not the one that was there before" if self.path.exists() else "is gone"
            raise StoreMissing(f"the store {self.path} {what}", f"{_MOUNTED}; backups continue once it is back")

    def prepare(self) -> None:
        """Ensure that the directory exists before it is written to. Raises `StoreMissing`."""
        self.require()
        if self._identity is None:
            self._identity = self._identity or self._create()

    def rehearse(self) -> None:
        """Create an entry where the first write would, and remove it. Raises what a write would raise."""
        with translated(self.path):
            self.require()
            where = self.path if self.path.exists() else self.path.parent
            tried = where / f"{PRIVATE}-{secrets.token_hex(8)}"
            tried.mkdir()
            tried.rmdir()

    def folder(self, folder: Path) -> None:
        """Ensure that a folder exists, without creating the root again. The entry of a new folder is not synced yet."""
        if folder != self.path and not folder.is_dir():
            self.folder(folder.parent)
            folder.mkdir(exist_ok=True)

    def temporary(self) -> Path:
        """The path for a new private file, in an existing folder."""
        self.prepare()
        incoming = self.private / "incoming"
        self.folder(incoming)
        return incoming / secrets.token_hex(8)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory, so that there is one writer at a time. The lock ends with its process."""
        self.prepare()
        with self._lock():
            yield

    def folders(self, file: Path) -> Iterator[Path]:
        """The folders on the path to a file. A new folder survives a power failure only if its own entry was synced."""
        for folder in file.parents:
            yield folder
            if folder == self.path.parent:
                return

    def _read(self) -> bytes | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return (self.private / "id").read_bytes()
            except PermissionError:  # this user can only read the objects
                if self._identity is not None:
                    raise
        return None

    def _create(self) -> bytes | None:
        """Give the store a name, or return the name that a faster process gave it."""
        self.path.mkdir(exist_ok=True)
        self.private.mkdir(exist_ok=True)
        with self._lock():
            if found := self._read():
                return found
            new = self.private / "id.new"
            new.write_text(secrets.token_hex(16))
            sync(new)
            os.replace(new, self.private / "id")
            for folder in self.folders(self.private / "id"):
                sync(folder)
            return self._read()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.private / "lock").open("a") as file:
            lock(file.fileno(), self.path)
            yield
