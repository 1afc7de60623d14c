"""A live database as a state, read in place under a read transaction, which ends with the comparison."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.compare.opening import Named
from sidecar.database import Driver, LiveParts, NotInPlace, live_now
from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE

# How long the transaction may last once all was read for the digests: meanwhile the app's log cannot begin anew.
LONGEST = 60.0  # seconds


class LiveState:
    """Implements `pages.State`. All of it is read once, for its digests."""

    def __init__(self, parts: LiveParts, tick: Callable[[], None]) -> None:
        """`tick` may raise to end the work."""
        self._parts = parts
        self.size = parts.size
        self.chunks = -(-self.size // CHUNK_SIZE)
        digests = []
        for chunk in range(self.chunks):
            tick()
            parts.look()
            digests.append(hashlib.sha256(parts.read(chunk)).digest())
        self._digests = b"".join(digests)
        self.root = hashlib.sha256(self._digests).hexdigest()
        self._until = time.monotonic() + LONGEST

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`. Raises `NotInPlace`, as well when the transaction has lasted too long, and OSError."""
        if time.monotonic() > self._until:
            raise NotInPlace(f"the comparison takes more than {LONGEST:.0f} s")
        self._parts.look()
        size = self._parts.page_size
        first, end = offset // size, -(-(offset + length) // size)
        start = offset - first * size
        return self._parts.read_pages(first, end - first)[start : start + length]

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`: it is all here."""


@contextmanager
def opened_live(path: Path, name: str, driver: Driver, tick: Callable[[], None]) -> Iterator[Named]:
    """The newest commit of a live database. Raises `NotInPlace`, also at the end, and `OtherLocks`."""
    with live_now(path, driver) as parts:
        state = LiveState(parts, tick)
        yield Named(name, state, state.root, parts.look)
