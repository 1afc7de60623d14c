"""A database file that nobody writes to, as a state."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE


class FileState:
    """Implements `pages.State` for an open file. All of it is read once, for its digests."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size
        self.chunks = -(-self.size // CHUNK_SIZE)
        self._digests = b"".join(
            hashlib.sha256(os.pread(file, CHUNK_SIZE, chunk * CHUNK_SIZE)).digest() for chunk in range(self.chunks)
        )

    @property
    def root(self) -> str:
        """The root digest, as a restore point of this file would have it."""
        return hashlib.sha256(self._digests).hexdigest()

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`. Raises OSError."""
        return os.pread(self._file, length, offset)

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`: it is all here."""


@contextmanager
def opened_file(path: Path) -> Iterator[FileState]:
    """A file that no SQLite of this process has open: closing its descriptor would drop that one's locks. Raises OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        yield FileState(file)
    finally:
        os.close(file)
