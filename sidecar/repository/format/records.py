"""The records of a segment, one for each commit: with whole page images, or with what changed in them. Pure.

    record: u32 n | u32 pages of the database afterwards | u64 number | u64 microseconds since the epoch, store's clock
            u8 encoding | u8 flags | 6 bytes 0 | n page numbers, u32, ascending | what the encoding says

    encoding 0: n page images
    encoding 1: n bytes, one for each page | 16 bytes, the beginning of the SHA-256 of the n images | n times a page:
                the image where its byte is 0; where it is 1, the image XORed with the previous image of that page

All integers are little-endian. Flag 1 (continued): the transaction continues in the next segment, under the same number.
Flag 2 (folded): the record stands for all commits after the previous record up to `number`.

The previous image of a page is the last one that an earlier record of the same stream has: in this segment, or in one
before. Whoever applies the records in order has just that image, in memory or in the file that he writes. A writer uses none
that is as old as a restore point which names a later commit of the stream. So a restore from any restore point finds each
previous image in what it has applied since, and never depends on what a restore point has: SQLite's backup rewrites parts of
page 1, and free pages may differ. Within a transaction that continues in the next segment, the previous image is the one
before the transaction.

The 16 bytes reveal a previous image that is not the one which the writer had. Nothing is applied then.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sidecar.errors import DamagedSegment, UnsupportedSegment
from sidecar.model import Bytes, Commit

CHECK_SIZE = 16
_RECORD = struct.Struct("<IIQQBB6s")
_WHOLE, _DIFFERENCES = 0, 1
_CONTINUED, _FOLDED = 1, 2
_BLOCK = 256  # bytes; most of a page does not change, and comparing takes less time than XOR in Python
_ZEROS = bytes(_BLOCK)
HINT = "nothing after it in its stream can be restored"

# The last image of a page in the records before; None if there is none.
Previous = Callable[[int], Bytes | None]


@dataclass(frozen=True, slots=True)
class Record:
    """A commit as it is stored: with `images`, and with `differences`, which are pages XORed with their previous image.

    `check` is the beginning of the SHA-256 of all images, in the order of the pages; empty without differences. The other
    fields are those of `Commit`. `segment` is the segment's name in messages.
    """

    number: int
    time: int
    pages: int
    images: Mapping[int, Bytes]
    differences: Mapping[int, Bytes]
    check: bytes = b""
    folded: bool = False
    continued: bool = False
    segment: str = field(default="", compare=False)

    @property
    def count(self) -> int:
        """The number of pages."""
        return len(self.images) + len(self.differences)

    def commit(self, previous: Previous) -> Commit:
        """The commit with whole images. Raises `DamagedSegment` unless the previous images are those that the writer had."""
        if not self.differences:
            return self._commit(self.images)
        images: dict[int, Bytes] = {}
        for page in sorted((*self.images, *self.differences)):
            if (image := self.images.get(page)) is None:
                image = self._image(page, previous(page))
            images[page] = image
        if check_of(images) != self.check:
            raise DamagedSegment(f"commit {self.number} of segment {self.segment} does not fit what precedes it", HINT)
        return self._commit(images)

    def _image(self, page: int, previous: Bytes | None) -> bytes:
        difference = self.differences[page]
        if previous is None or len(previous) != len(difference):
            what = f"commit {self.number} of segment {self.segment} has only what changed in page {page}"
            raise DamagedSegment(f"{what}, which nothing before it has", HINT)
        return changed(previous, difference)

    def _commit(self, images: Mapping[int, Bytes]) -> Commit:
        return Commit(self.number, self.time, self.pages, images, folded=self.folded, continued=self.continued)


def whole(commit: Commit) -> Record:
    """The record that has each page of a commit as it is."""
    return _record(commit, commit.images, {}, b"")


def compared(commit: Commit, previous: Previous) -> Record:
    """The record that has what changed in each page of which there is a previous image."""
    images: dict[int, Bytes] = {}
    differences: dict[int, Bytes] = {}
    for page, image in commit.images.items():
        before = previous(page)
        if before is None or len(before) != len(image):
            images[page] = image
        else:
            differences[page] = xored(image, before)
    return _record(commit, images, differences, check_of(commit.images)) if differences else whole(commit)


def _record(commit: Commit, images: Mapping[int, Bytes], differences: Mapping[int, Bytes], check: bytes) -> Record:
    return Record(commit.number, commit.time, commit.pages, images, differences, check, commit.folded, commit.continued)


def check_of(images: Mapping[int, Bytes]) -> bytes:
    """The beginning of the SHA-256 of images, in the order of their pages."""
    digest = hashlib.sha256()
    for page in sorted(images):
        digest.update(images[page])
    return digest.digest()[:CHECK_SIZE]


def xored(one: Bytes, other: Bytes) -> bytes:
    """The XOR of two pages of the same size, of which most is the same."""
    result = bytearray(len(one))
    for start in range(0, len(one), _BLOCK):
        first, second = one[start : start + _BLOCK], other[start : start + _BLOCK]
        if first != second:
            result[start : start + _BLOCK] = _xored(first, second)
    return bytes(result)


def changed(page: Bytes, difference: Bytes) -> bytes:
    """The XOR of a page with a difference of the same size, of which most is zero."""
    result = bytearray(page)
    for start in range(0, len(difference), _BLOCK):
        block = difference[start : start + _BLOCK]
        if block != _ZEROS:
            result[start : start + _BLOCK] = _xored(block, page[start : start + _BLOCK])
    return bytes(result)


def _xored(one: Bytes, other: Bytes) -> bytes:
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")


def encode_record(record: Record, page_size: int) -> Iterator[bytes]:
    """The bytes of a record, in parts. Raises ValueError for a page that is not one."""
    numbers = sorted((*record.images, *record.differences))
    flags = _CONTINUED * record.continued | _FOLDED * record.folded
    encoding = _DIFFERENCES if record.differences else _WHOLE
    yield _RECORD.pack(len(numbers), record.pages, record.number, record.time, encoding, flags, b"")
    yield struct.pack(f"<{len(numbers)}I", *numbers)
    if record.differences:
        yield bytes(page in record.differences for page in numbers)
        yield record.check
    for page in numbers:
        stored = record.differences[page] if page in record.differences else record.images[page]
        if page < 1 or len(stored) != page_size:
            raise ValueError(f"page {page} of commit {record.number} has {len(stored)} bytes, not {page_size}")
        yield bytes(stored)


def decode_records(raw: bytes, at: int, end: int, page_size: int, name: str) -> Iterator[Record]:
    """The records between two offsets. Raises `DamagedSegment`, and `UnsupportedSegment` for what only a newer version writes."""
    while at < end:
        if end - at < _RECORD.size:
            raise damaged(name, "a record is truncated")
        count, pages, number, time, encoding, flags, rest = _RECORD.unpack_from(raw, at)
        if encoding not in {_WHOLE, _DIFFERENCES} or flags & ~(_CONTINUED | _FOLDED) or any(rest):
            raise unsupported(name, f"has a commit with encoding {encoding} and flags {flags}")
        at += _RECORD.size
        kinds = at + 4 * count
        check = kinds + count * (encoding == _DIFFERENCES)
        stored = check + CHECK_SIZE * (encoding == _DIFFERENCES)
        if end - stored < count * page_size:
            raise damaged(name, "a record is truncated")
        numbers = struct.unpack_from(f"<{count}I", raw, at)
        if any(low >= high for low, high in zip((0, *numbers), numbers, strict=False)):
            raise damaged(name, f"the page numbers of commit {number} do not ascend")
        different = raw[kinds:check] or bytes(count)
        if max(different, default=0) > 1:
            raise unsupported(name, f"has a page with encoding {max(different)}")
        pieces = (raw[begin : begin + page_size] for begin in range(stored, stored + count * page_size, page_size))
        images: tuple[dict[int, Bytes], dict[int, Bytes]] = ({}, {})
        for page, kind, piece in zip(numbers, different, pieces, strict=True):
            images[kind][page] = piece
        folded, continued = bool(flags & _FOLDED), bool(flags & _CONTINUED)
        yield Record(number, time, pages, *images, raw[check:stored], folded, continued, name)
        at = stored + count * page_size


def damaged(name: str, reason: str) -> DamagedSegment:
    """The error for a segment that differs from what was published, or is stored under the wrong key."""
    return DamagedSegment(f"segment {name} is damaged: {reason}", HINT)


def unsupported(name: str, what: str) -> UnsupportedSegment:
    """The error for a segment that only a newer version can have written."""
    return UnsupportedSegment(
        f"segment {name} {what}, which this sidecar does not know",
        "a newer version of sidecar wrote it: use that version or a newer one",
    )
