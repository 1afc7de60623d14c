"""A database file that nobody writes to, as a state."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from anyio import from_thread

from sidecar.compare.opening import Named
from sidecar.database.wal.descriptors import borrowed
from sidecar.errors import DatabaseBusy
from sidecar.host import local_errors
from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE


class FileState:
    """Implements `pages.State` for an open file. `learn_digests` first, where digests are needed."""

    def __init__(self, file: int, path: Path | None = None) -> None:
        """With a `path`, `require_unchanged` looks at the file that is there then. Raises OSError if it cannot be read."""
        self._file = file
        self._path = path
        self._stamp = _stamp_of(os.fstat(file))
        self.size = self._stamp[1]
        self.chunks = -(-self.size // CHUNK_SIZE)
        self._digests = b""
        os.pread(file, 1, 0)

    def learn_digests(self, tick: Callable[[], None] = lambda: None) -> str:
        """Read all of it. Returns the root digest, as a restore point of this file would have it. Raises OSError.

        `tick` is called for each chunk, and may raise to end the work.
        """
        digests = []
        for chunk in range(self.chunks):
            tick()
            digests.append(hashlib.sha256(os.pread(self._file, CHUNK_SIZE, chunk * CHUNK_SIZE)).digest())
        self._digests = b"".join(digests)
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
    """A file that nobody writes to. If this process opens it meanwhile as a database, no lock of that is lost. Raises OSError."""
    with borrowed(path) as file:
        yield FileState(file, path)


@contextmanager
def at_rest(path: Path, name: str, *, hashed: bool = True) -> Iterator[Named]:
    """Such a file as a state. If it is to be compared it is `hashed`: all of it is read once, by the worker thread that opens it.

    Raises what `local_errors` raises, and what cancels the thread's work.
    """
    with ExitStack() as stack:
        with local_errors(path):
            state = stack.enter_context(opened_file(path))
            root = state.learn_digests(from_thread.check_cancelled) if hashed else ""
        yield Named(name, state, root, state.require_unchanged)
