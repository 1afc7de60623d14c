"""The restore-point file: an ordinary zstd file of an ordinary SQLite database, with an index at its end.

    chunk frame 0 | chunk frame 1 | … | index (skippable frame) | seek table (skippable frame)

One zstd frame per chunk (1 MiB of the database file, the last one shorter), content size and checksum on. Any `zstd -d`
decodes the file: decoders skip skippable frames (RFC 8878, 3.1.2). The seek table is that of the zstd seekable format
(https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md); it has an entry
for the index frame too, of zero decompressed bytes, so that the sizes add up to the file's.

The index's payload is one line of JSON, then the chunks' SHA-256 digests (32 bytes each), then the SHA-256 of all that.

Pure: bytes in, bytes out. Nothing here reads a file or a socket.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from itertools import accumulate

import zstandard

from sidecar.errors import DamagedRestorePoint, UnsupportedRestorePoint
from sidecar.model import Bytes

CHUNK_SIZE = 1 << 20
FORMAT_VERSION = 1
DIGEST_SIZE = 32

_INDEX_MAGIC = 0x184D2A53
_SEEK_TABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_SKIPPABLE_HEADER = struct.Struct("<II")
_SEEK_ENTRY = struct.Struct("<II")
_SEEK_FOOTER = struct.Struct("<IBI")


@dataclass(frozen=True, slots=True)
class Index:
    """What a restore point says of itself. `digests` is the concatenation of the chunks' SHA-256."""

    database: str
    timestamp: str
    page_size: int
    database_size: int
    digests: bytes
    sqlite_version: str = ""
    sidecar_version: str = ""
    holder: str = ""
    epoch: int = 0
    parent: str | None = None

    @property
    def chunks(self) -> int:
        """How many chunks the database has."""
        return len(self.digests) // DIGEST_SIZE

    @property
    def root(self) -> str:
        """The root digest: SHA-256 over the chunk digests, in hex."""
        return hashlib.sha256(self.digests).hexdigest()

    def digest(self, chunk: int) -> bytes:
        """The SHA-256 of one chunk."""
        return self.digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]

    def chunk_size(self, chunk: int) -> int:
        """The size in bytes of one chunk: 1 MiB, less for the last."""
        return min(CHUNK_SIZE, self.database_size - chunk * CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class Contents:
    """The index of a restore point, and where each frame lies: frame n is at `offsets[n]` to `offsets[n + 1]`."""

    index: Index
    offsets: tuple[int, ...]
    size: int

    def frame_sizes(self, first: int, count: int) -> list[int]:
        """Compressed bytes of `count` frames from `first` on."""
        return [self.offsets[number + 1] - self.offsets[number] for number in range(first, first + count)]

    def group(self, limit: int) -> list[range]:
        """Chunks in runs whose frames together have at most `limit` bytes (one frame may have more), in order."""
        runs: list[range] = []
        first = 0
        for chunk in range(self.index.chunks):
            if chunk > first and self.offsets[chunk + 1] - self.offsets[first] > limit:
                runs.append(range(first, chunk))
                first = chunk
        return [*runs, range(first, self.index.chunks)]


class TailTooShort(Exception):
    """The end of a file was given, and its index begins before it. `needed` is the length to ask for."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes of the tail are needed")
        self.needed = needed


class Encoder:
    """Compresses chunks to frames. Not for use by two threads at once."""

    def __init__(self, level: int) -> None:
        """Level: zstd's, 1 to 22; negative ones are faster still."""
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)

    def frame(self, chunk: Bytes) -> bytes:
        """One zstd frame, with content size and checksum."""
        return self._compressor.compress(chunk)


class Decoder:
    """Decompresses and checks frames. Not for use by two threads at once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._decompressor = zstandard.ZstdDecompressor()

    def chunk(self, number: int, frame: Bytes) -> bytes:
        """The chunk of that number. Raises `DamagedRestorePoint` unless its size and SHA-256 are the index's."""
        expected = self._index.chunk_size(number)
        try:
            parameters = zstandard.get_frame_parameters(frame)
            if parameters.content_size != expected:
                raise self._damaged(number, f"its frame holds {parameters.content_size} bytes, not {expected}")
            data = self._decompressor.decompress(frame, max_output_size=expected, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise self._damaged(number, str(error)) from error
        if hashlib.sha256(data).digest() != self._index.digest(number):
            raise self._damaged(number, "its SHA-256 is not the one in the index")
        return data

    def _damaged(self, number: int, reason: str) -> DamagedRestorePoint:
        return DamagedRestorePoint(
            f"restore point {self._index.timestamp} of {self._index.database} is damaged: "
            f"chunk {number} of {self._index.chunks}: {reason}"
        )


def encode_tail(index: Index, frame_sizes: list[int]) -> bytes:
    """The index and the seek table, to follow frames of these sizes in bytes."""
    index_frame = _skippable(_INDEX_MAGIC, _index_payload(index))
    entries = b"".join(
        _SEEK_ENTRY.pack(size, index.chunk_size(number)) for number, size in enumerate(frame_sizes)
    ) + _SEEK_ENTRY.pack(len(index_frame), 0)
    footer = _SEEK_FOOTER.pack(len(frame_sizes) + 1, 0, _SEEKABLE_MAGIC)
    return index_frame + _skippable(_SEEK_TABLE_MAGIC, entries + footer)


def decode_tail(tail: Bytes, size: int, name: str) -> Contents:
    """Read index and seek table from the last bytes of a restore point of `size` bytes; `name` is for messages.

    Raises `TailTooShort` when more bytes are needed, `DamagedRestorePoint` for anything that is not a whole restore
    point of a known version.
    """
    table_size, sizes = _read_seek_table(tail, size, name)
    needed = sizes[-1][0] + table_size
    if needed > len(tail):
        raise TailTooShort(needed)
    index_frame = bytes(tail[len(tail) - needed : len(tail) - table_size])
    index = _read_index(index_frame, name)
    *frames, (_, decoded) = sizes
    if len(frames) != index.chunks or decoded:
        raise _broken(name, f"the seek table has {len(frames)} frames, the index {index.chunks} chunks")
    wrong = next((n for n, (_, length) in enumerate(frames) if length != index.chunk_size(n)), None)
    if wrong is not None:
        raise _broken(name, f"the seek table and the index disagree on the size of chunk {wrong}")
    return Contents(index, tuple(accumulate((packed for packed, _ in frames), initial=0)), size)


def _index_payload(index: Index) -> bytes:
    head = {
        "format": FORMAT_VERSION,
        "database": index.database,
        "timestamp": index.timestamp,
        "database_size": index.database_size,
        "page_size": index.page_size,
        "chunk_size": CHUNK_SIZE,
        "root": index.root,
        "sqlite": index.sqlite_version,
        "sidecar": index.sidecar_version,
        "holder": index.holder,
        "epoch": index.epoch,
        "parent": index.parent,
    }
    body = json.dumps(head, separators=(",", ":")).encode() + b"\n" + index.digests
    return body + hashlib.sha256(body).digest()


def _skippable(magic: int, payload: bytes) -> bytes:
    return _SKIPPABLE_HEADER.pack(magic, len(payload)) + payload


def _broken(name: str, reason: str) -> DamagedRestorePoint:
    return DamagedRestorePoint(f"restore point {name} is damaged: {reason}")


def _read_seek_table(tail: Bytes, size: int, name: str) -> tuple[int, list[tuple[int, int]]]:
    """The seek table's own size, and (compressed, decompressed) bytes of every frame before it."""
    if size == 0:
        raise _broken(name, "it has zero bytes")
    footer = _SEEK_FOOTER.unpack(tail[-_SEEK_FOOTER.size :]) if len(tail) >= _SEEK_FOOTER.size else (0, 0, 0)
    if footer[2] != _SEEKABLE_MAGIC:
        raise _broken(name, "it has no seek table at its end: it was cut short, or is no restore point of sidecar")
    frames, descriptor, _ = footer
    table_size = _SKIPPABLE_HEADER.size + frames * _SEEK_ENTRY.size + _SEEK_FOOTER.size
    if descriptor or not frames or table_size + _SKIPPABLE_HEADER.size > size:
        raise _broken(name, "its seek table is not of the form that sidecar writes")
    if table_size + _SKIPPABLE_HEADER.size > len(tail):
        raise TailTooShort(min(size, 2 * table_size + frames * DIGEST_SIZE + 4096))
    start = len(tail) - table_size
    if _SKIPPABLE_HEADER.unpack_from(tail, start) != (_SEEK_TABLE_MAGIC, table_size - _SKIPPABLE_HEADER.size):
        raise _broken(name, "its seek table's header is wrong")
    entries = memoryview(tail)[start + _SKIPPABLE_HEADER.size : len(tail) - _SEEK_FOOTER.size]
    sizes = list(_SEEK_ENTRY.iter_unpack(entries))
    total = sum(packed for packed, _ in sizes) + table_size
    if total != size:
        raise _broken(name, f"its frames add up to {total} bytes, the object has {size}")
    return table_size, sizes


def _read_index(frame: bytes, name: str) -> Index:
    magic, length = _SKIPPABLE_HEADER.unpack_from(frame) if len(frame) >= _SKIPPABLE_HEADER.size else (0, 0)
    payload = frame[_SKIPPABLE_HEADER.size :]
    if magic != _INDEX_MAGIC or length != len(payload):
        raise _broken(name, "the index frame is missing before its seek table: no restore point of sidecar")
    body, checksum = payload[:-DIGEST_SIZE], payload[-DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != checksum:
        raise _broken(name, "the index's checksum is wrong")
    line, _, digests = body.partition(b"\n")
    try:
        head = json.loads(line)
        version = int(head["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(name, f"the index cannot be read: {error}") from error
    if version < FORMAT_VERSION:
        raise _broken(name, f"its index has format version {version}, which never was")
    if version > FORMAT_VERSION:
        raise UnsupportedRestorePoint(
            f"restore point {name} has format version {version}, this sidecar reads version {FORMAT_VERSION}",
            "restore it with the sidecar version that wrote it or a newer one; `zstd -d` works too",
        )
    return _index_of(head, digests, name)


def _index_of(head: dict[str, object], digests: bytes, name: str) -> Index:
    try:
        index = Index(
            database=str(head["database"]),
            timestamp=str(head["timestamp"]),
            page_size=int(str(head["page_size"])),
            database_size=int(str(head["database_size"])),
            digests=digests,
            sqlite_version=str(head["sqlite"]),
            sidecar_version=str(head["sidecar"]),
            holder=str(head["holder"]),
            epoch=int(str(head["epoch"])),
            parent=None if head["parent"] is None else str(head["parent"]),
        )
    except (ValueError, KeyError) as error:
        raise _broken(name, f"the index cannot be read: {error}") from error
    whole = -(-index.database_size // CHUNK_SIZE)
    if head.get("chunk_size") != CHUNK_SIZE or not whole or len(digests) != whole * DIGEST_SIZE:
        raise _broken(
            name, f"the index has {len(digests)} bytes of digests for {index.database_size} bytes of database"
        )
    if index.root != head.get("root"):
        raise _broken(name, "the root digest is not that of the chunk digests")
    return index
