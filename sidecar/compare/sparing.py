"""A state with damaged chunks, of which whatever can be read is read."""

from collections.abc import Iterable
from contextlib import suppress

from sidecar.compare.pages import State
from sidecar.errors import DamagedRestorePoint
from sidecar.repository.format.index import CHUNK_SIZE


class SparingState:
    """Implements `pages.State`: a damaged chunk is reported when it is read, not when others are fetched with it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._damaged: dict[int, DamagedRestorePoint] = {}
        self.size, self.chunks = state.size, state.chunks

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._state.digest(chunk)

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`. Raises `DamagedRestorePoint` and what the state raises."""
        chunk = offset // CHUNK_SIZE
        if chunk in self._damaged:
            raise self._damaged[chunk]
        try:
            return self._state.read(offset, length)
        except DamagedRestorePoint as error:
            self._damaged[chunk] = error
            raise

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`."""
        with suppress(DamagedRestorePoint):
            self._state.fetch(each for each in chunks if each not in self._damaged)
