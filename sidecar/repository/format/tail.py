"""The restore-point file: an ordinary zstd file of an ordinary SQLite database, with an index at its end.

    chunk frame 0 | chunk frame 1 | … | index (skippable frame) | seek table (skippable frame)

There is one zstd frame per chunk (1 MiB of the database file, the last one shorter), with content size and checksum. Any
`zstd -d` decodes the file, because decoders ignore skippable frames (RFC 8878, 3.1.2). The seek table is that of the zstd
seekable format (https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md). It
also has an entry for the index frame, of zero decompressed bytes, so that the sizes add up to that of the file.

This module encodes and decodes the two skippable frames. Pure: bytes in, bytes out.
"""

import struct
from dataclasses import dataclass
from itertools import accumulate

from sidecar.model import Bytes
from sidecar.repository.format.index import DIGEST_SIZE, Index, damaged, decode_index, encode_index

_INDEX_MAGIC = 0x184D2A53
_SEEK_TABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_SKIPPABLE_HEADER = struct.Struct("<II")
_SEEK_ENTRY = struct.Struct("<II")
_SEEK_FOOTER = struct.Struct("<IBI")


@dataclass(frozen=True, slots=True)
class Contents:
    """The index of a restore point and the place of each frame: frame n spans `offsets[n]` to `offsets[n + 1]`."""

    index: Index
    offsets: tuple[int, ...]
    size: int

    def frame_sizes(self, first: int, count: int) -> list[int]:
        """Compressed bytes of `count` frames from `first` on."""
        return [self.offsets[number + 1] - self.offsets[number] for number in range(first, first + count)]

    def group(self, limit: int) -> list[range]:
        """All chunks in runs whose frames have at most `limit` bytes in total; a single frame may have more."""
        runs: list[range] = []
        first = 0
        for chunk in range(self.index.chunks):
            if chunk > first and self.offsets[chunk + 1] - self.offsets[first] > limit:
                runs.append(range(first, chunk))
                first = chunk
        return [*runs, range(first, self.index.chunks)]


class TailTooShort(Exception):
    """The given tail of a file does not include its whole index. `needed` is the length to read."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes of the tail are needed")
        self.needed = needed


def encode_tail(index: Index, frame_sizes: list[int]) -> bytes:
    """The index and the seek table that follow frames of these sizes, in bytes."""
    index_frame = _skippable(_INDEX_MAGIC, encode_index(index))
    entries = b"".join(
        _SEEK_ENTRY.pack(size, index.chunk_size(number)) for number, size in enumerate(frame_sizes)
    ) + _SEEK_ENTRY.pack(len(index_frame), 0)
    footer = _SEEK_FOOTER.pack(len(frame_sizes) + 1, 0, _SEEKABLE_MAGIC)
    return index_frame + _skippable(_SEEK_TABLE_MAGIC, entries + footer)


def decode_tail(tail: Bytes, size: int, name: str) -> Contents:
    """Read index and seek table from the last bytes of a restore point of `size` bytes; `name` is for messages.

    Raises `TailTooShort` if more bytes are needed, `DamagedRestorePoint` for anything that is not a complete restore
    point of a known version.
    """
    table_size, sizes = _read_seek_table(tail, size, name)
    needed = sizes[-1][0] + table_size
    if needed > len(tail):
        raise TailTooShort(needed)
    index_frame = bytes(tail[len(tail) - needed : len(tail) - table_size])
    index = decode_index(_index_payload(index_frame, name), name)
    *frames, (_, decoded) = sizes
    if len(frames) != index.chunks or decoded:
        raise damaged(name, f"the seek table has {len(frames)} frames, but the index has {index.chunks} chunks")
    wrong = next((n for n, (_, length) in enumerate(frames) if length != index.chunk_size(n)), None)
    if wrong is not None:
        raise damaged(name, f"the seek table and the index disagree on the size of chunk {wrong}")
    return Contents(index, tuple(accumulate((packed for packed, _ in frames), initial=0)), size)


def _skippable(magic: int, payload: bytes) -> bytes:
    return _SKIPPABLE_HEADER.pack(magic, len(payload)) + payload


def _read_seek_table(tail: Bytes, size: int, name: str) -> tuple[int, list[tuple[int, int]]]:
    """The size of the seek table itself, and (compressed, decompressed) bytes of every frame before it."""
    if size == 0:
        raise damaged(name, "it has zero bytes")
    footer = _SEEK_FOOTER.unpack(tail[-_SEEK_FOOTER.size :]) if len(tail) >= _SEEK_FOOTER.size else (0, 0, 0)
    if footer[2] != _SEEKABLE_MAGIC:
        raise damaged(name, "it has no seek table at its end: it was truncated, or is not a restore point of sidecar")
    frames, descriptor, _ = footer
    table_size = _SKIPPABLE_HEADER.size + frames * _SEEK_ENTRY.size + _SEEK_FOOTER.size
    if descriptor or not frames or table_size + _SKIPPABLE_HEADER.size > size:
        raise damaged(name, "its seek table does not have the form that sidecar writes")
    if table_size + _SKIPPABLE_HEADER.size > len(tail):
        raise TailTooShort(min(size, 2 * table_size + frames * DIGEST_SIZE + 4096))
    start = len(tail) - table_size
    if _SKIPPABLE_HEADER.unpack_from(tail, start) != (_SEEK_TABLE_MAGIC, table_size - _SKIPPABLE_HEADER.size):
        raise damaged(name, "its seek table's header is wrong")
    entries = memoryview(tail)[start + _SKIPPABLE_HEADER.size : len(tail) - _SEEK_FOOTER.size]
    sizes = list(_SEEK_ENTRY.iter_unpack(entries))
    total = sum(packed for packed, _ in sizes) + table_size
    if total != size:
        raise damaged(name, f"its frames add up to {total} bytes, but the object has {size}")
    return table_size, sizes


def _index_payload(frame: bytes, name: str) -> bytes:
    magic, length = _SKIPPABLE_HEADER.unpack_from(frame) if len(frame) >= _SKIPPABLE_HEADER.size else (0, 0)
    payload = frame[_SKIPPABLE_HEADER.size :]
    if magic != _INDEX_MAGIC or length != len(payload):
        raise damaged(name, "there is no index frame before its seek table: it is not a restore point of sidecar")
    return payload
