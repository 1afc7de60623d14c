"""A segment of a stream as bytes: committed transactions with the pages that they changed. Pure.

One zstd frame, with content size and checksum, of:

    SIDEINC1 | u32 length | header, JSON of that length | one record for each commit | 8 bytes 0xff | SHA-256

All integers are little-endian; `records` describes a record. The SHA-256 covers header and records. `prev` in the header is that of the previous segment, in hex; in the first segment
it is the SHA-256 of the stream's name.
"""

import hashlib
import json
import struct
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import zstandard

from sidecar.lease import origin_in
from sidecar.model import Commit, LogPosition, Origin
from sidecar.repository.format.records import Record, damaged, decode_records, encode_record, unsupported, whole

FORMAT_VERSION = 1
LEVEL = 3
MAXIMUM = 64 << 20  # bytes of page images in a segment that a reader accepts; a writer stays well below

_MAGIC = b"SIDEINC"
_START = struct.Struct("<8sI")
_END = b"\xff" * 8
_DIGEST_SIZE = 32
_TRAILER = len(_END) + _DIGEST_SIZE
_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65536  # https://sqlite.org/fileformat2.html#page_size
_of_thread = threading.local()
_LARGEST_RAW = 2 * MAXIMUM  # header, records and page numbers included


@dataclass(frozen=True, slots=True)
class ClockAnchor:
    """One instant by the store's clock and by the machine's own clock, in microseconds since the epoch."""

    store: int
    machine: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The description of a segment: it holds the commits `first` to `last` of a stream.

    `after` is the position that the stream's first commit continues, the same in all its segments; None if that was not
    proved. `log` is the last WAL frame that the segment covers, if any. `unsummed`: some of its frames had no checksum
    (SQLite 3.40 and older). `closing`: it ends its stream and holds all pages changed since the restore point.
    """

    database: str
    stream: str
    first: int
    last: int
    page_size: int
    prev: str
    holder: str
    epoch: int
    sqlite: str
    clock: ClockAnchor
    after: Origin | None = None
    log: LogPosition | None = None
    unsummed: bool = False
    closing: bool = False


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """The bytes of a segment, and its SHA-256 in hex: the `prev` of the next one."""

    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded segment. `digest` is its SHA-256 in hex."""

    header: SegmentHeader
    records: tuple[Record, ...]
    digest: str


def first_prev(stream: str) -> str:
    """The `prev` of the first segment of a stream."""
    return hashlib.sha256(stream.encode()).hexdigest()


def encode(header: SegmentHeader, commits: Sequence[Commit], level: int = LEVEL) -> EncodedSegment:
    """The bytes of a segment with whole images. Raises what `encode_records` raises."""
    return encode_records(header, tuple(map(whole, commits)), level)


def encode_records(header: SegmentHeader, records: Sequence[Record], level: int = LEVEL) -> EncodedSegment:
    """The bytes of a segment. Raises ValueError if the commits do not match the header or exceed `MAXIMUM`."""
    if problem := _problem(header, records):
        raise ValueError(problem)
    if (size := sum(each.count for each in records) * header.page_size) > MAXIMUM:
        raise ValueError(f"{size} bytes of pages are too many for one segment")
    if not _is_page_size(header.page_size):
        raise ValueError(f"{header.page_size} is not an SQLite page size")
    head = json.dumps(_encode_header(header), separators=(",", ":")).encode()
    parts = [head, *(part for record in records for part in encode_record(record, header.page_size))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    raw = b"".join((_START.pack(b"%s%d" % (_MAGIC, FORMAT_VERSION), len(head)), *parts, _END, digest.digest()))
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return EncodedSegment(compressor.compress(raw), digest.hexdigest())


def decode(data: bytes, name: str) -> Segment:
    """Read a segment; `name` is its name in messages, usually its key.

    Raises `DamagedSegment`, and `UnsupportedSegment` for a format that only a newer version can have written.
    """
    raw = _decompress(data, name)
    magic, length = _START.unpack_from(raw) if len(raw) >= _START.size + _TRAILER else (b"", 0)
    if magic[: len(_MAGIC)] != _MAGIC:
        raise damaged(name, "it is not a segment of sidecar")
    if magic != b"%s%d" % (_MAGIC, FORMAT_VERSION):
        raise unsupported(name, f"begins with {magic.decode('latin-1')!r}")
    digest = hashlib.sha256(memoryview(raw)[_START.size : -_TRAILER]).digest()
    if raw[-_TRAILER:-_DIGEST_SIZE] != _END or digest != raw[-_DIGEST_SIZE:]:
        raise damaged(name, "its SHA-256 is not the one at its end")
    header = _decode_header(raw[_START.size : _START.size + length], name)
    if not _is_page_size(header.page_size):
        raise damaged(name, f"{header.page_size} is not an SQLite page size")
    records = tuple(decode_records(raw, _START.size + length, len(raw) - _TRAILER, header.page_size, name))
    if problem := _problem(header, records):
        raise damaged(name, problem)
    return Segment(header, records, digest.hex())


def _problem(header: SegmentHeader, commits: Sequence[Record]) -> str:
    """Why these commits do not match the header, or an empty string."""
    if not commits or not 1 <= header.first <= header.last or commits[-1].number != header.last:
        return f"it does not hold commits {header.first} to {header.last}"
    expected = header.first
    for commit in commits:
        if commit.number < expected or (commit.number > expected and not commit.folded):
            return f"it has commit {commit.number} in the place of commit {expected}"
        if commit.continued and commit is not commits[-1]:
            return f"commit {commit.number} continues in the next segment, but another one follows it here"
        if commit.pages < 1:
            return f"the database has no page after commit {commit.number}"
        expected = commit.number + 1
    return ""


def _is_page_size(size: int) -> bool:
    return size.bit_count() == 1 and _SMALLEST_PAGE <= size <= _LARGEST_PAGE


def _encode_header(header: SegmentHeader) -> dict[str, object]:
    log = header.log
    return {
        "format": FORMAT_VERSION,
        "database": header.database,
        "stream": header.stream,
        "first": header.first,
        "last": header.last,
        "page_size": header.page_size,
        "prev": header.prev,
        "holder": header.holder,
        "epoch": header.epoch,
        "sqlite": header.sqlite,
        "clock": {"store": header.clock.store, "machine": header.clock.machine},
        "after": asdict(header.after) if header.after else None,
        "log": {"salts": log.salts.hex(), "frame": log.frame, "checksum": log.checksum} if log else None,
        "unsummed": header.unsummed,
        "closing": header.closing,
    }


def _decode_header(data: bytes, name: str) -> SegmentHeader:
    try:
        head = json.loads(data)
        version = int(head["format"])
        if version > FORMAT_VERSION:
            raise unsupported(name, f"has format {version}")
        log, clock = head["log"], head["clock"]
        return SegmentHeader(
            database=str(head["database"]),
            stream=str(head["stream"]),
            first=int(head["first"]),
            last=int(head["last"]),
            page_size=int(head["page_size"]),
            prev=str(head["prev"]),
            holder=str(head["holder"]),
            epoch=int(head["epoch"]),
            sqlite=str(head["sqlite"]),
            clock=ClockAnchor(int(clock["store"]), int(clock["machine"])),
            after=origin_in(head["after"]),
            log=_decode_log(log) if log else None,
            unsummed=bool(head["unsummed"]),
            closing=bool(head["closing"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(name, f"its header cannot be read: {error!r}") from error


def _decode_log(value: dict[str, object]) -> LogPosition:
    first, second = map(int, list(value["checksum"]))  # type: ignore[call-overload]
    return LogPosition(bytes.fromhex(str(value["salts"])), int(str(value["frame"])), (first, second))


def _decompressor() -> zstandard.ZstdDecompressor:
    """That of this thread: to make one takes five times as long as a small segment does."""
    try:
        found: zstandard.ZstdDecompressor = _of_thread.decompressor
    except AttributeError:
        found = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return found


def _decompress(data: bytes, name: str) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > _LARGEST_RAW:
            raise damaged(name, f"it would decompress to {size} bytes")
        return _decompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise damaged(name, str(error)) from error
