"""A database file that nobody writes to, as a state."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.errors import DatabaseBusy
from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE


class FileState:
    """Implements `pages.State` for an open file. All of it is read once, for its digests."""

    def __init__(self, file: int, path: Path | None = None) -> None:
        """With a `path`, `require_unchanged` looks at the file that is there then."""
        self._file = file
        self._path = path
        self._stamp = _stamp_of(os.fstat(file))
        self.size = self._stamp[1]
        self.chunks = -(-self.size // CHUNK_SIZE)
        self._digests = b"".join(
            hashlib.sha256(os.pread(file, CHUNK_SIZE, chunk * CHUNK_SIZE)).digest() for chunk in range(self.chunks)
        )

    @property
    def root(self) -> str:
        """The root digest, as a restore point of this file would have it."""
        return hashlib.sha256(self._digests).hexdigest()

    def require_unchanged(self) -> None:
        """Raise `DatabaseBusy` if the file was written to, or another one is in its place, since it was opened."""
        if self._path is not None and (not self._path.exists() or _stamp_of(self._path.stat()) != self._stamp):
            raise DatabaseBusy(f"{self._path} was changed or replaced while it was read", "try again")

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`. Raises OSError."""
        return os.pread(self._file, length, offset)

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`: it is all here."""


def _stamp_of(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def opened_file(path: Path) -> Iterator[FileState]:
    """A file that no SQLite of this process has open: closing its descriptor would drop that one's locks. Raises OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        yield FileState(file, path)
    finally:
        os.close(file)
