"""A restore point with the commits that were streamed after it, as a state: their pages are laid over those of the point."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sidecar.compare.pages import State
from sidecar.model import Bytes, Commit
from sidecar.repository.format.index import CHUNK_SIZE

_PAGE_COUNT_AT = 28  # https://sqlite.org/fileformat2.html#the_database_header


class OverlayPages:
    """The pages that commits wrote, in an unnamed file, over those of a restore point. Implements `restore.pages.PageImages`.

    `count` is the number of pages in the end. For use in worker threads.
    """

    def __init__(self, base: State, size: int, file: int) -> None:
        self.size = size
        self.count = base.size // size
        self._base = base
        self._file = file
        self._end = 0
        self._places: dict[int, int] = {}
        self._incomplete: dict[int, int] = {}

    @property
    def written(self) -> Iterable[int]:
        """The pages that differ from the restore point's."""
        return self._places.keys()

    def expect(self, pages: Iterable[int]) -> None:
        """Fetch the chunks of these pages that are not here."""
        missing = (page for page in pages if page not in self._places)
        self._base.fetch({(page - 1) * self.size // CHUNK_SIZE for page in missing})

    def add(self, commit: Commit) -> None:
        """Take the images of a commit. Raises OSError."""
        self._incomplete |= self._write(commit.images)
        if not commit.continued:
            self._places |= self._incomplete
            self._incomplete = {}

    def image(self, page: int) -> Bytes | None:
        """The page after the last complete commit; None where the file ends before it."""
        place = self._places.get(page)
        if place is not None:
            return os.pread(self._file, self.size, place)
        found = self._base.read((page - 1) * self.size, self.size)
        return found if len(found) == self.size else None

    def finish(self, count: int) -> None:
        """The database has this many pages in the end."""
        self.count = count

    def header_count(self) -> int:
        """The number of pages according to the first page."""
        return int.from_bytes(bytes(self.image(1) or b"")[_PAGE_COUNT_AT : _PAGE_COUNT_AT + 4], "big")

    def _write(self, images: Mapping[int, Bytes]) -> dict[int, int]:
        places = {}
        for page, image in images.items():
            os.pwrite(self._file, image, self._end)
            places[page] = self._end
            self._end += self.size
        return places


@contextmanager
def overlay_pages(base: State, page_size: int, directory: Path) -> Iterator[OverlayPages]:
    """Pages over a restore point; what is written is in this directory, and gone at the end."""
    with tempfile.TemporaryFile(dir=directory) as file:
        yield OverlayPages(base, page_size, file.fileno())


class OverlayState:
    """Implements `pages.State`. Call `learn_digests` first."""

    def __init__(self, base: State, pages: OverlayPages) -> None:
        self._base = base
        self._pages = pages
        self._digests: dict[int, bytes] = {}
        self.size = pages.count * pages.size
        self.chunks = -(-self.size // CHUNK_SIZE)

    def learn_digests(self) -> str:
        """Hash the chunks that commits wrote, which are fetched for that. Returns the root digest."""
        per_chunk = CHUNK_SIZE // self._pages.size
        written = {(page - 1) // per_chunk for page in self._pages.written}
        same = self._base.chunks if self.size == self._base.size else min(self.chunks, self._base.chunks) - 1
        changed = sorted({chunk for chunk in written if chunk < self.chunks} | set(range(same, self.chunks)))
        self.fetch(changed)
        for chunk in changed:
            self._digests[chunk] = hashlib.sha256(self.read(chunk * CHUNK_SIZE, CHUNK_SIZE)).digest()
        return hashlib.sha256(b"".join(map(self.digest, range(self.chunks)))).hexdigest()

    def digest(self, chunk: int) -> bytes:
        """See `pages.State`."""
        return self._digests.get(chunk) or self._base.digest(chunk)

    def read(self, offset: int, length: int) -> bytes:
        """See `pages.State`."""
        size, end = self._pages.size, min(offset + length, self.size)
        parts = [bytes(self._pages.image(page + 1) or bytes(size)) for page in range(offset // size, -(-end // size))]
        start = offset % size
        return b"".join(parts)[start : start + end - offset]

    def fetch(self, chunks: Iterable[int]) -> None:
        """See `pages.State`."""
        self._base.fetch(chunks)
