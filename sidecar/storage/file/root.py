"""The directory of a `file://` store: which one it is, and what lies in it beside the objects.

A file system that is not mounted leaves an empty directory, or none. So the store has a name of its own, a random one in
`.sidecar/id`, and a process that has seen it uses no other directory in its place, and makes none.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import StoreMissing
from sidecar.host.files import sync
from sidecar.storage.file.primitives import lock, translated

PRIVATE = ".sidecar"
_MOUNTED = "is the store's file system mounted?"


class Root:
    """Raises `StoreMissing` besides the operating system's errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private = path / PRIVATE
        self._identity: bytes | None = None

    @property
    def identity(self) -> str | None:
        """The name that was seen last; asks nobody."""
        return self._identity.decode(errors="replace") if self._identity else None

    def require(self) -> None:
        """Raise `StoreMissing` unless this is the store that was here before; a new one may be made of nothing."""
        known = self._identity  # before it is read: another thread may be making it
        found = self._read()
        if known is None:
            self._identity = self._identity or found
            if found is None and not self.path.exists() and not self.path.parent.exists():
                raise StoreMissing(f"{self.path.parent} does not exist", _MOUNTED)
        elif found != known:
            what = "is not the one that was there" if self.path.exists() else "is gone"
            raise StoreMissing(f"the store {self.path} {what}", f"{_MOUNTED} When it is back all goes on")

    def prepare(self) -> None:
        """See that it is there, to be written to. Raises `StoreMissing`."""
        self.require()
        if self._identity is None:
            self._identity = self._identity or self._create()

    def rehearse(self) -> None:
        """Make an entry where the first write would, and remove it. Raises what a write would."""
        with translated(self.path):
            self.require()
            where = self.path if self.path.exists() else self.path.parent
            tried = where / f"{PRIVATE}-{secrets.token_hex(8)}"
            tried.mkdir()
            tried.rmdir()

    def folder(self, folder: Path) -> None:
        """See that a folder is there, without making the root again. It may be new: its entry is not synced yet."""
        if folder != self.path and not folder.is_dir():
            self.folder(folder.parent)
            folder.mkdir(exist_ok=True)

    def temporary(self) -> Path:
        """A name for a private file, in a folder that is there."""
        self.prepare()
        incoming = self.private / "incoming"
        self.folder(incoming)
        return incoming / secrets.token_hex(8)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer of the directory at a time; the lock goes with the process that holds it."""
        self.prepare()
        with self._lock():
            yield

    def folders(self, file: Path) -> Iterator[Path]:
        """The folders whose entries lead to a file: a new one survives a power cut only with its own entry."""
        for folder in file.parents:
            yield folder
            if folder == self.path.parent:
                return

    def _read(self) -> bytes | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return (self.private / "id").read_bytes()
            except PermissionError:  # of somebody who may only read the objects
                if self._identity is not None:
                    raise
        return None

    def _create(self) -> bytes | None:
        """Give it a name, unless another process is faster: then what that one gave."""
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
