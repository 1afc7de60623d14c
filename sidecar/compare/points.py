"""A restore point as a state: only the chunks that are needed are fetched."""

from collections.abc import Iterable

from anyio import from_thread

from sidecar.compare.cache import ChunkCache
from sidecar.repository.chunks import Chunks
from sidecar.repository.format.index import CHUNK_SIZE


class PointState:
    """Implements `pages.State`, for use in a worker thread: what is missing is fetched in the event loop."""

    def __init__(self, chunks: Chunks, cache: ChunkCache) -> None:
        self._chunks = chunks
        self._cache = cache
        self._index = chunks.contents.index
        self.size, self.chunks = self._index.database_size, self._index.chunks
        self.root = self._index.root

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._index.digest(chunk)

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`. Raises `DamagedRestorePoint` and what the store raises."""
        chunk, start = divmod(offset, CHUNK_SIZE)
        if chunk >= self.chunks:
            return b""
        digest = self._index.digest(chunk)
        if digest not in self._cache:
            self.fetch([chunk])
        return self._cache.read(digest, start, length)

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`."""
        missing = [each for each in chunks if each < self.chunks and self._index.digest(each) not in self._cache]
        if missing:
            from_thread.run(self._chunks.fetch, missing, self._keep)

    def _keep(self, chunk: int, data: bytes) -> None:
        digest = self._index.digest(chunk)
        if digest not in self._cache:
            self._cache.keep(digest, data)
