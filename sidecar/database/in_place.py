"""Reads parts of a live database as a read transaction shows them: from its file, overlaid by what the log has of it.

What the transaction shows stays where it is until it ends (https://sqlite.org/wal.html#concurrency, wal.c:
walTryBeginRead): no frame up to its mark leaves the log, and a checkpoint copies none beyond it into the file. If all of
the log was in the file when it began, it may be a reader of the file alone, and then the log may begin anew under it; so
the log is read only where it has something that the file lacks.

Every part has the bytes that SQLite's backup of the same transaction would have, so that the same content has the same
digest whichever way it was copied.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import from_thread

from sidecar.database.wal import StreamCut, WalIndex
from sidecar.database.wal.changed import PART
from sidecar.database.wal.descriptors import borrowed, borrowed_log
from sidecar.database.wal.frames import image_of, newest
from sidecar.host import write_all
from sidecar.model import Followed

_LOCK_BYTE = 0x40000000  # its page has no content, and backup does not copy it (https://sqlite.org/fileformat2.html#the_lock_byte_page)
_HEADER = b"SQLite format 3\0"
_PAGE_COUNT = slice(28, 32)


class NotInPlace(Exception):
    """The database cannot be read so at this moment; SQLite's backup can copy it."""


def _nothing() -> None:
    """No reason to end."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which MiB of the file, from 0 on, are read: those to `copy`, and others, to `compare` with their SHA-256 of before.

    What is to be compared is, in this order, as far as there is time.
    """

    copy: Sequence[int]
    compare: Mapping[int, bytes] = field(default_factory=dict)


# Called with the place of a read transaction, the size of the database and of its pages in bytes; None: all is to be copied.
Choose = Callable[[Followed, int, int], Choice | None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a read transaction shows: a database of `pages` pages of `page_size` bytes, with the wal-index while it is open."""

    index: WalIndex
    page_size: int
    pages: int

    @property
    def size(self) -> int:
        """Bytes of the database."""
        return self.pages * self.page_size


class LiveParts:
    """The parts of a live database, for as long as the transaction is open that shows them. For one thread.

    Call `look` often: it raises `NotInPlace` when the transaction should end early. `version` is that of the SQLite library, whose backup writes it into its copies.
    """

    def __init__(self, database: int, log: int, shown: Shown, version: tuple[int, ...], part: int = PART) -> None:
        """`database` and `log` are descriptors, `part` is the size of a part in bytes. Raises `NotInPlace`."""
        self._database, self._log, self._shown = database, log, shown
        self._version = (version[0] * 1000 + version[1]) * 1000 + version[2]
        self._part = part
        self._buffer = memoryview(bytearray(part))
        self._frames: dict[int, int] = {}  # pages, and the frames they are in
        self.look: Callable[[], None] = _nothing
        index = shown.index
        if not index.behind:
            return
        if index.page_size != shown.page_size:
            raise NotInPlace(f"the log has pages of {index.page_size} bytes, the database of {shown.page_size}")
        try:
            self._frames = newest(log, index, index.backfilled)
        except StreamCut as cut:
            raise NotInPlace(str(cut)) from cut

    @property
    def size(self) -> int:
        """Bytes of the database."""
        return self._shown.size

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self._shown.page_size

    def read(self, number: int) -> memoryview:
        """One part, in memory that the next call reuses. Raises `NotInPlace`, OSError."""
        first = number * self._part
        view = self._buffer[: min(self._part, self._shown.size - first)]
        self._fill(view, first)
        return view

    def read_pages(self, first: int, count: int) -> bytes:
        """So many pages from this one on, from 0. Raises `NotInPlace`, OSError."""
        start = first * self._shown.page_size
        pages = bytearray(max(0, min(count * self._shown.page_size, self._shown.size - start)))
        self._fill(memoryview(pages), start)
        return bytes(pages)

    def _fill(self, view: memoryview, first: int) -> None:
        """Read whole pages from this offset on."""
        filled, size = 0, self._shown.page_size
        while filled < len(view) and (count := os.preadv(self._database, [view[filled:]], first + filled)):
            filled += count
        view[filled:] = bytes(
            len(view) - filled
        )  # the file may be shorter: the rest is in the log, or was never written
        if self._frames:
            for page in range(first // size + 1, (first + len(view)) // size + 1):
                if frame := self._frames.get(page):
                    self._put(view, first, page, image_of(self._log, frame, size))
        self._put(view, first, _LOCK_BYTE // size + 1, bytes(size))
        if first == 0:
            self._rewrite_header(view)

    def _put(self, view: memoryview, first: int, page: int, image: bytes) -> None:
        size = self._shown.page_size
        at = (page - 1) * size - first
        if not 0 <= at < len(view):
            return
        if len(image) != size:
            raise NotInPlace(f"page {page} is not in the log")
        view[at : at + size] = image

    def _rewrite_header(self, view: memoryview) -> None:
        """Write the counters as backup does in a new file: of changes, and of the schema's (https://sqlite.org/fileformat2.html#the_database_header)."""
        if view[: len(_HEADER)] != _HEADER or int.from_bytes(view[_PAGE_COUNT], "big") != self._shown.pages:
            raise NotInPlace("page 1 does not have the number of pages that SQLite says")
        one = (1).to_bytes(4, "big")
        view[24:28], view[40:44], view[92:96] = one, one, one
        view[96:100] = self._version.to_bytes(4, "big")


@contextmanager
def live_parts(path: Path, inode: int, shown: Shown, version: tuple[int, ...], part: int = PART) -> Iterator[LiveParts]:
    """Open the files of a database in WAL mode, while a connection of this process has a transaction open that shows this.

    `inode` is that of the database when the transaction began. Raises `NotInPlace`, also at the end, if one of the files
    was replaced meanwhile.
    """
    try:
        with borrowed(path) as database:
            if os.fstat(database).st_ino != inode:
                raise NotInPlace("its file was replaced before it was read")
            with borrowed_log(path) as log:
                yield LiveParts(database, log, shown, version, part)
                if not (_is_at(database, path) and _is_at(log, f"{path}-wal")):
                    raise NotInPlace("its files were replaced while they were read")
    except OSError as error:
        raise NotInPlace(str(error)) from error


def _is_at(file: int, path: Path | str) -> bool:
    return os.path.samestat(os.fstat(file), os.stat(path))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The parts that were compared with what was known of them, and those that differed."""

    compared: frozenset[int]
    differing: tuple[int, ...]


def copy_parts(parts: LiveParts, copy: Sequence[int], target: int, until: float) -> None:
    """Copy these parts into a sparse file, until the monotonic time `until` at the latest.

    `target` is the descriptor of an empty file. Raises `NotInPlace` when there is not enough time, OSError, and what
    cancels this thread's work.
    """
    for number in copy:
        from_thread.check_cancelled()
        if time.monotonic() > until:
            raise NotInPlace("reading takes so long that the log could not be reset meanwhile")
        write_all(target, parts.read(number), number * PART)
    os.ftruncate(target, parts.size)


def compare_parts(parts: LiveParts, known: Mapping[int, bytes], until: float) -> Comparison:
    """Compare parts with their SHA-256, in this order, as many as there is time for, and one in any case.

    Raises `NotInPlace`, OSError, and what cancels this thread's work.
    """
    compared, differing = set[int](), []
    for number, digest in known.items():
        from_thread.check_cancelled()
        if compared and time.monotonic() > until:
            break
        if hashlib.sha256(parts.read(number)).digest() != digest:
            differing.append(number)
        compared.add(number)
    return Comparison(frozenset(compared), tuple(differing))
