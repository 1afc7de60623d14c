"""Chunks that were fetched, by their digests: both states share them. They are in an unnamed file, not in memory."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ChunkCache:
    """Keeps chunks; for use by several threads."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._places: dict[bytes, tuple[int, int]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def keep(self, digest: bytes, chunk: bytes) -> None:
        """Keep a chunk. Raises OSError, if there is no room."""
        with self._lock:
            place = self._end
            self._end += len(chunk)
        written = 0
        while written < len(chunk):
            written += os.pwrite(self._file, memoryview(chunk)[written:], place + written)
        self._places[digest] = place, len(chunk)

    def read(self, digest: bytes, offset: int, length: int) -> bytes:
        """Bytes of a chunk that was kept."""
        place, size = self._places[digest]
        return os.pread(self._file, min(length, size - offset), place + offset)


@contextmanager
def chunk_cache(directory: Path) -> Iterator[ChunkCache]:
    """A cache whose file is in this directory, and gone at the end."""
    with tempfile.TemporaryFile(dir=directory) as file:
        yield ChunkCache(file.fileno())
