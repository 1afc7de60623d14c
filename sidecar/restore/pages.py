"""The pages of a restored database file: images are collected in bounded memory and written in file order.

At most `WINDOW` bytes of images are held. A transaction that comes in several parts is kept in an unnamed file beside the
database until its last part has arrived, so that an incomplete one is never written.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sidecar.host import write_all
from sidecar.model import Bytes, Commit

WINDOW = 16 << 20
_PAGE_SIZE_AT, _PAGE_COUNT_AT = 16, 28  # https://sqlite.org/fileformat2.html#the_database_header


class PageImages(Protocol):
    """The pages of a restored database to which commits are applied. `size` is that of a page, in bytes."""

    size: int

    def expect(self, pages: Iterable[int]) -> None:
        """The images of these pages will be asked for next."""
        ...

    def add(self, commit: Commit) -> None:
        """Take the images of a commit; those of an incomplete one do not count until its last part has come."""
        ...

    def image(self, page: int) -> Bytes | None:
        """The page after the last complete commit; None where the file ends before it."""
        ...

    def finish(self, count: int) -> None:
        """The database has this many pages in the end."""
        ...

    def header_count(self) -> int:
        """The number of pages according to the first page."""
        ...


@contextmanager
def opened_pages(path: Path) -> "Iterator[Pages]":
    """The pages of a restored file. No SQLite has it open, so closing its descriptor drops no locks. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    pages = Pages(file, path.parent)
    try:
        yield pages
    finally:
        pages.drop_parts()
        os.close(file)


class Pages:
    """Implements `PageImages` for a database file. Collects the last image of each page in memory, and writes them in file order.

    `size` is that of a page, in bytes.
    """

    def __init__(self, file: int, directory: Path) -> None:
        self._file = file
        self._directory = directory
        self._waiting: dict[int, Bytes] = {}
        self._bytes = 0
        self._parts: _Parts | None = None
        size = int.from_bytes(os.pread(file, 2, _PAGE_SIZE_AT), "big")
        self.size = 65536 if size == 1 else size

    def expect(self, pages: Iterable[int]) -> None:
        """See `PageImages`: they are all here."""

    def add(self, commit: Commit) -> None:
        """Collect the images of a commit. An incomplete commit is kept separately. Raises OSError."""
        if commit.continued:
            self._parts = self._parts or _Parts(self._directory)
            self._parts.add(commit.images)
            return
        if self._parts:
            for images in self._parts.read():
                self._wait(images)
            self.drop_parts()
        self._wait(commit.images)

    def image(self, page: int) -> Bytes | None:
        """The page after the last complete commit; None where the file ends before it. Raises OSError."""
        if page in self._waiting:
            return self._waiting[page]
        found = os.pread(self._file, self.size, (page - 1) * self.size)
        return found if len(found) == self.size else None

    def finish(self, count: int) -> None:
        """Write everything, and truncate or extend the file to this many pages. Raises OSError."""
        self._write()
        os.ftruncate(self._file, count * self.size)

    def header_count(self) -> int:
        """The number of pages according to the first page."""
        return int.from_bytes(os.pread(self._file, 4, _PAGE_COUNT_AT), "big")

    def _wait(self, images: Mapping[int, Bytes]) -> None:
        for page, image in images.items():
            if self._bytes >= WINDOW:
                self._write()
            self._bytes += len(image) if page not in self._waiting else 0
            self._waiting[page] = image

    def _write(self) -> None:
        for page in sorted(self._waiting):
            write_all(self._file, self._waiting[page], (page - 1) * self.size)
        self._waiting.clear()
        self._bytes = 0

    def drop_parts(self) -> None:
        """Drop the parts of a commit that is incomplete, or was collected."""
        if self._parts:
            self._parts.close()
            self._parts = None


class _Parts:
    """The parts of one commit, in an unnamed file."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`
        self._pages: list[tuple[int, int]] = []

    def add(self, images: Mapping[int, Bytes]) -> None:
        """Append images. Raises OSError."""
        for page, image in images.items():
            self._file.write(image)
            self._pages.append((page, len(image)))

    def read(self) -> Iterator[Mapping[int, Bytes]]:
        """All images in the order in which they were added. Raises OSError."""
        self._file.seek(0)
        for page, size in self._pages:
            yield {page: self._file.read(size)}

    def close(self) -> None:
        """Free the space."""
        self._file.close()
