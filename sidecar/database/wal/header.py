"""The header of a wal-index, which says how many frames of which generation of the log are committed.

The wal-index is the shared memory in the `-shm` file (https://sqlite.org/walformat.html#wal_index_file_format). Its first
136 bytes are two copies of a header of 48 bytes, and the checkpoint information. A writer writes the second copy first,
so two equal copies with a correct checksum are a consistent state. All integers are in the byte order of the machine.
"""

import struct
from dataclasses import dataclass

SIZE = 136  # bytes
VERSION = 3007000
_COPY = 48
_SUMMED = 40
_LAYOUT = struct.Struct(
    "=I4xIBBHIIII8s"
)  # version, change, initialised, endianness, page size, frames, pages, checksum, salts
_SUM = struct.Struct("=II")
_WORDS = struct.Struct("=10I")
_BACKFILLED, _ATTEMPTED = struct.Struct("=I"), struct.Struct("=128xI")


class UnknownVersion(Exception):
    """The wal-index does not have the layout that all versions of SQLite since 3.7.0 share."""


@dataclass(frozen=True, slots=True)
class WalIndex:
    """The content of the header. `frame` is the last committed frame, from 1, or 0 in a log without any.

    `salts` identify the generation of the log; `checksum` is that of frame `frame`; `change` counts commits modulo 2**32,
    over generations; `pages` is the size of the database after the last commit. `page_size`, in bytes, is 0 as long as a
    new log has no frame. `backfilled` frames have been copied into the database by checkpoints. A checkpoint first says how
    far it will go, `attempted`, which SQLite before 3.11 does not.
    """

    salts: bytes
    frame: int
    checksum: tuple[int, int]
    change: int
    pages: int
    page_size: int
    backfilled: int
    attempted: int = 0

    def same_commit(self, other: "WalIndex") -> bool:
        """Whether both show the same last commit; checkpoints may have run in between."""
        return (self.salts, self.frame, self.checksum, self.change, self.pages) == (
            other.salts,
            other.frame,
            other.checksum,
            other.change,
            other.pages,
        )

    @property
    def behind(self) -> bool:
        """Whether some committed frames are not in the database yet."""
        return self.backfilled < self.frame

    @property
    def size(self) -> int:
        """Bytes that the committed frames take in the log."""
        return self.frame * (self.page_size + 24)


def parse(raw: bytes) -> WalIndex | None:
    """Parse the first 136 bytes of the wal-index; None while it is being written, or if its writer died meanwhile.

    Raises `UnknownVersion`.
    """
    if len(raw) < SIZE or raw[:_COPY] != raw[_COPY : 2 * _COPY] or not raw[12]:
        return None
    if checksum(raw) != _SUM.unpack_from(raw, _SUMMED):
        return None
    version, change, _, _, size, frame, pages, one, two, salts = _LAYOUT.unpack_from(raw)
    if version != VERSION:
        raise UnknownVersion(f"the wal-index is of version {version}, not {VERSION}")
    # A page of 65,536 bytes is written as 1.
    page_size = (size & 0xFE00) | ((size & 1) << 16)
    (backfilled,), (attempted,) = _BACKFILLED.unpack_from(raw, 2 * _COPY), _ATTEMPTED.unpack_from(raw)
    return WalIndex(salts, frame, (one, two), change, pages, page_size, backfilled, attempted)


def checksum(raw: bytes) -> tuple[int, int]:
    """The checksum of the first 40 bytes (https://sqlite.org/fileformat2.html#checksum_algorithm)."""
    words = _WORDS.unpack_from(raw)
    one = two = 0
    for index in range(0, len(words), 2):
        one = (one + words[index] + two) & 0xFFFFFFFF
        two = (two + words[index + 1] + one) & 0xFFFFFFFF
    return one, two
