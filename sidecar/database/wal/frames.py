"""Reads committed frames from a log (https://sqlite.org/fileformat2.html#walformat).

Only frames that are committed according to the wal-index are read, and only under a read transaction that keeps them in
place. Markers and checksums in the file are not decisive: it may contain complete transactions that were never committed,
and SQLite 3.40 writes committed frames without salts and checksums.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.header import WalIndex

LOG_HEADER = 32
FRAME_HEADER = 24
_AT_ONCE = 1 << 20  # bytes
_SALTS = slice(16, 24)
_HEADER = struct.Struct(">II8sII")  # page, size of the database if it is a commit, salts, checksum
_SALTS_IN_FRAME = slice(8, 16)
NO_SUM = bytes(16)


@dataclass(slots=True)
class Transaction:
    """A transaction in the log, or several of them folded: `pages` is the size of the database after it."""

    pages: int
    images: dict[int, bytes]
    commits: int = 1


@dataclass(slots=True)
class Found:
    """What was read. `ends` has the last frame of each commit; `last` is the header of the last frame, 24 bytes.

    `repeated` counts commits that repeat the frame before them, as SQLite does to fill a disk's sector where the app
    asked for it (`psow=0`). `unsummed` counts frames without salts and checksum.
    """

    transactions: list[Transaction] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    last: bytes = b""
    frames: int = 0
    repeated: int = 0
    unsummed: int = 0

    @property
    def checksum(self) -> tuple[int, int]:
        """The checksum of the last frame."""
        return checksum_of(self.last)


def checksum_of(header: bytes) -> tuple[int, int]:
    """The checksum in the header of a frame; (0, 0) if there is no frame."""
    return _HEADER.unpack(header)[3:] if header else (0, 0)


def salts_of(file: int) -> bytes:
    """The salts of the generation that was begun last in a log; fewer than 8 bytes if it is empty."""
    return os.pread(file, LOG_HEADER, 0)[_SALTS]


def header_of(file: int, frame: int, page_size: int) -> bytes:
    """The header of one frame; shorter than 24 bytes if the log ends there."""
    return os.pread(file, FRAME_HEADER, _offset(frame, page_size))


def image_of(file: int, frame: int, page_size: int) -> bytes:
    """The page in one frame."""
    return os.pread(file, page_size, _offset(frame, page_size) + FRAME_HEADER)


def has_commit(file: int, after: int) -> bool:
    """Whether a frame after `after` is a commit, of those that the generation has which the log begins with."""
    head = os.pread(file, LOG_HEADER, 0)
    page_size = int.from_bytes(head[8:12], "big")
    while (header := header_of(file, after + 1, page_size))[8:16] == head[_SALTS]:
        if header[4:8] != bytes(4):
            return True
        after += 1
    return False


def pages_of(file: int, index: WalIndex, after: int) -> set[int]:
    """The numbers of the pages in the frames after `after`, without reading the pages."""
    headers = (header_of(file, frame, index.page_size) for frame in range(after + 1, index.frame + 1))
    return {int.from_bytes(header[:4], "big") for header in headers}


def newest(file: int, index: WalIndex, after: int) -> dict[int, int]:
    """The last committed frame of each page in the frames after `after`, without reading the pages.

    Raises `StreamCut` if they are not frames of the generation that `index` names.
    """
    found: dict[int, int] = {}
    for frame in range(after + 1, index.frame + 1):
        header = header_of(file, frame, index.page_size)
        if len(header) != FRAME_HEADER or (header[_SALTS_IN_FRAME] != index.salts and header[8:] != NO_SUM):
            raise StreamCut(CutCause.MISMATCH, f"frame {frame} of the log is of another generation")
        found[int.from_bytes(header[:4], "big")] = frame
    return found


def read(file: int, index: WalIndex, after: int, *, fold: bool) -> Found:
    """The committed frames after `after`. With `fold`, they are combined into one transaction.

    Raises `StreamCut` if they are not frames of the generation that `index` names, or do not end with a commit.
    """
    reader = _Reader(index, fold, after)
    for raw in _chunks(file, index, after):
        for at in range(0, len(raw), index.page_size + FRAME_HEADER):
            reader.take(raw, at)
    if reader.open:
        raise StreamCut(CutCause.MISMATCH, "the committed part of the log does not end with a commit")
    return reader.found


class _Reader:
    def __init__(self, index: WalIndex, fold: bool, after: int) -> None:
        self._salts, self._size, self._fold = index.salts, index.page_size + FRAME_HEADER, fold
        self._frame = after
        self._images: dict[int, bytes] = {}
        self._before: tuple[int, int, bytes] | None = None
        self.open = False
        self.found = Found()

    def take(self, raw: bytes, at: int) -> None:
        page, pages, salts, _, _ = _HEADER.unpack_from(raw, at)
        self._frame += 1
        self.found.frames += 1
        if salts != self._salts:
            self._require_unsummed(raw[at + 8 : at + FRAME_HEADER])
        image = raw[at + FRAME_HEADER : at + self._size]
        self._images[page] = image
        if pages:
            self.found.repeated += not self.open and self._before == (page, pages, image)
            self._commit(pages, raw[at : at + FRAME_HEADER])
        self.open = not pages
        self._before = (page, pages, image)

    def _commit(self, pages: int, header: bytes) -> None:
        found = self.found
        found.ends.append(self._frame)
        found.last = header
        if self._fold and found.transactions:
            found.transactions[0].pages = pages
            found.transactions[0].commits += 1
        else:
            found.transactions.append(Transaction(pages, self._images))
        if not self._fold:
            self._images = {}

    def _require_unsummed(self, rest: bytes) -> None:
        if rest != NO_SUM:
            raise StreamCut(CutCause.MISMATCH, f"frame {self._frame} of the log is of another generation")
        self.found.unsummed += 1


def _chunks(file: int, index: WalIndex, after: int) -> Iterator[bytes]:
    size = index.page_size + FRAME_HEADER
    at_once = max(1, _AT_ONCE // size)
    while after < index.frame:
        count = min(at_once, index.frame - after)
        raw = os.pread(file, count * size, _offset(after + 1, index.page_size))
        if len(raw) != count * size:
            raise StreamCut(CutCause.MISMATCH, f"the log ends before its last committed frame, {index.frame}")
        yield raw
        after += count


def _offset(frame: int, page_size: int) -> int:
    return LOG_HEADER + (frame - 1) * (page_size + FRAME_HEADER)
