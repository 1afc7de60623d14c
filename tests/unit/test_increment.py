"""Segments: what is written can be read back, and what is not a whole segment is told in one line."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard

from sidecar.errors import DamagedSegment, UnsupportedSegment
from sidecar.model import AtRestorePoint, Commit, LogPosition, Position
from sidecar.repository.format.folding import fold, split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, encode, first_prev
from tests.harness.segments import commits_in, commits_of

SIZE = 512
HEADER = SegmentHeader(
    database="app.db",
    stream="20261120T145503.123Z-0000000007-web",
    first=4,
    last=6,
    page_size=SIZE,
    prev=first_prev("20261120T145503.123Z-0000000007-web"),
    holder="web",
    epoch=7,
    sqlite="3.53.4",
    clock=ClockAnchor(1_790_000_000_000_000, 1_790_000_060_000_000),
    after=Position("20261119T145503.123Z-0000000006-web", 99),
    log=LogPosition(b"12345678", 17, (2**32 - 1, 5)),
)


def page(number: int, byte: int = 1) -> dict[int, bytes]:
    return {number: bytes([byte]) * SIZE}


COMMITS = (
    Commit(4, 1_790_000_000_000_001, 9, page(2) | page(1)),
    Commit(5, 1_790_000_000_000_002, 9, {}),
    Commit(6, 1_790_000_000_000_003, 12, page(12) | page(2, 9)),
)


def raw(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


def packed(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(body)


def sealed(head: dict[str, object], records: bytes, magic: bytes = b"SIDEINC1") -> bytes:
    """A segment whose digest is right, whatever is in it."""
    text = json.dumps(head).encode()
    body = text + records
    return packed(magic + struct.pack("<I", len(text)) + body + b"\xff" * 8 + hashlib.sha256(body).digest())


def parts_of(data: bytes) -> tuple[dict[str, object], bytes]:
    body = raw(data)
    (length,) = struct.unpack_from("<I", body, 8)
    return json.loads(body[12 : 12 + length]), body[12 + length : -40]


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        replace(HEADER, after=AtRestorePoint("app.db/20261120T145503.123Z.sqlite3.zst")),
        replace(HEADER, after=None, log=None, unsummed=True, closing=True),
    ],
)
def test_a_segment_is_read_back(header: SegmentHeader) -> None:
    written = encode(header, COMMITS)
    segment = decode(written.data, "s")
    assert (segment.header, commits_of(segment), segment.digest) == (header, COMMITS, written.digest)


def test_a_segment_has_the_documented_layout() -> None:
    """Byte for byte: the reader in the documentation knows nothing else."""
    written = encode(replace(HEADER, first=6), COMMITS[2:])
    body = raw(written.data)
    (length,) = struct.unpack_from("<I", body, 8)
    assert body[:8] == b"SIDEINC1"
    assert json.loads(body[12 : 12 + length]) == {
        "format": 1,
        "database": "app.db",
        "stream": HEADER.stream,
        "first": 6,
        "last": 6,
        "page_size": SIZE,
        "prev": hashlib.sha256(HEADER.stream.encode()).hexdigest(),
        "holder": "web",
        "epoch": 7,
        "sqlite": "3.53.4",
        "clock": {"store": 1_790_000_000_000_000, "machine": 1_790_000_060_000_000},
        "after": {"stream": "20261119T145503.123Z-0000000006-web", "commit": 99},
        "log": {"salts": b"12345678".hex(), "frame": 17, "checksum": [2**32 - 1, 5]},
        "unsummed": False,
        "closing": False,
    }
    record = struct.pack("<IIQQBB6xII", 2, 12, 6, 1_790_000_000_000_003, 0, 0, 2, 12)
    assert body[12 + length : -40] == record + b"\x09" * SIZE + b"\x01" * SIZE
    assert body[-40:-32] == b"\xff" * 8
    assert body[-32:] == hashlib.sha256(body[12:-40]).digest()
    assert written.digest == body[-32:].hex()


@pytest.mark.parametrize(
    ("commit", "bits"),
    [(COMMITS[2], 0), (replace(COMMITS[2], continued=True), 1), (replace(COMMITS[2], folded=True), 2)],
)
def test_flags_are_those_of_the_documentation(commit: Commit, bits: int) -> None:
    data = encode(replace(HEADER, first=6), [commit]).data
    assert parts_of(data)[1][25] == bits
    assert commits_in(data) == (commit,)


def test_a_segment_cut_short_anywhere_is_damaged() -> None:
    data = encode(HEADER, COMMITS).data
    for length in range(len(data)):
        with pytest.raises(DamagedSegment, match=r"^segment s is damaged: "):
            decode(data[:length], "s")


def test_no_flipped_byte_is_read() -> None:
    data = encode(HEADER, COMMITS).data
    for place in range(len(data)):
        with pytest.raises((DamagedSegment, UnsupportedSegment)):
            decode(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :], "s")


def test_no_flipped_byte_is_read_where_the_compression_was_right() -> None:
    """The SHA-256 covers the path from the follower's memory, not only the store."""
    body = raw(encode(HEADER, COMMITS).data)
    for place in range(0, len(body), 7):
        with pytest.raises((DamagedSegment, UnsupportedSegment)):
            decode(packed(body[:place] + bytes([body[place] ^ 0x5A]) + body[place + 1 :]), "s")


def test_bytes_after_a_segment_are_damage() -> None:
    with pytest.raises(DamagedSegment):
        decode(encode(HEADER, COMMITS).data + b"x", "s")


def record(count: int, numbers: tuple[int, ...], number: int = 4, encoding: int = 0, flags: int = 0) -> bytes:
    head = struct.pack("<IIQQBB6x", count, 9, number, 1, encoding, flags)
    return head + struct.pack(f"<{len(numbers)}I", *numbers) + bytes(SIZE * len(numbers))


ONE = {"first": 4, "last": 4}


@pytest.mark.parametrize(
    ("changed", "records", "reason"),
    [
        (ONE, b"", "does not hold commits 4 to 4"),
        (ONE, record(1, (1,))[:20], "truncated"),
        (ONE, record(2, (1,)), "truncated"),
        (ONE, record(2**32 - 1, (1,)), "truncated"),
        (ONE, record(2, (2, 2)), "do not ascend"),
        (ONE, record(2, (3, 2)), "do not ascend"),
        (ONE, record(1, (0,)), "do not ascend"),
        (ONE, record(1, (1,), number=5), "does not hold commits 4 to 4"),
        ({"first": 4, "last": 6}, record(1, (1,)) + record(1, (1,), number=6), "commit 6 in the place of commit 5"),
        ({"first": 4, "last": 5}, record(1, (1,), number=5), "commit 5 in the place of commit 4"),
        ({"first": 4, "last": 4}, record(1, (1,)) * 2, "commit 4 in the place of commit 5"),
        ({"first": 4, "last": 5}, record(1, (1,), flags=1) + record(1, (1,), 5), "continues in the next segment"),
        ({**ONE, "page_size": 500}, record(1, (1,)), "not an SQLite page size"),
        ({**ONE, "page_size": 1 << 17}, b"", "not an SQLite page size"),
        ({**ONE, "first": 0}, record(1, (1,)), "does not hold"),
        ({**ONE, "page_size": None}, record(1, (1,)), "header cannot be read"),
        ({**ONE, "clock": 3}, record(1, (1,)), "header cannot be read"),
        ({**ONE, "after": 3}, record(1, (1,)), "header cannot be read"),
        ({**ONE, "log": {"salts": "x"}}, record(1, (1,)), "header cannot be read"),
    ],
)
def test_a_segment_that_contradicts_itself_is_damaged(changed: dict[str, object], records: bytes, reason: str) -> None:
    head, _ = parts_of(encode(HEADER, COMMITS).data)
    with pytest.raises(DamagedSegment, match=reason):
        decode(sealed(head | changed, records), "s")


@pytest.mark.parametrize(
    "build",
    [
        lambda head, records: sealed(head, records, b"SIDEINC2"),
        lambda head, records: sealed(head | {"format": 2}, records),
        lambda head, _: sealed(head | ONE, record(1, (1,), encoding=2)),
        lambda head, _: sealed(head | ONE, record(1, (1,), flags=4)),
    ],
)
def test_a_segment_of_the_future_is_not_called_damaged(
    build: Callable[[dict[str, object], bytes], bytes],
) -> None:
    with pytest.raises(UnsupportedSegment, match="newer version") as told:
        decode(build(*parts_of(encode(HEADER, COMMITS).data)), "s")
    assert told.value.exit_code == 78


@pytest.mark.parametrize("data", [b"", b"x", packed(b""), packed(b"x" * 100), packed(b"SQLite format 3\0" * 10)])
def test_what_is_no_segment_is_told(data: bytes) -> None:
    with pytest.raises(DamagedSegment):
        decode(data, "s")


def test_a_segment_that_would_fill_the_memory_is_not_unpacked() -> None:
    with pytest.raises(DamagedSegment, match="would decompress to"):
        decode(zstandard.ZstdCompressor().compress(bytes(200 << 20)), "s")


@pytest.mark.parametrize(
    ("header", "commits"),
    [
        (HEADER, COMMITS[:2]),
        (HEADER, ()),
        (HEADER, (COMMITS[0], COMMITS[2])),
        (replace(HEADER, page_size=1024), COMMITS),
        (replace(HEADER, page_size=3), COMMITS),
        (replace(HEADER, first=6), [replace(COMMITS[2], images={0: bytes(SIZE)})]),
        (replace(HEADER, first=6), [replace(COMMITS[2], pages=0)]),
    ],
)
def test_what_is_no_segment_is_not_written(header: SegmentHeader, commits: tuple[Commit, ...]) -> None:
    with pytest.raises(ValueError):
        encode(header, commits)


def test_folded_commits_are_their_last_images_and_nothing_beyond_the_size() -> None:
    folded = fold([Commit(1, 10, 9, page(9) | page(2)), Commit(2, 11, 3, page(2, 7) | page(1))])
    assert folded == Commit(2, 11, 3, page(1) | page(2, 7), folded=True)


def test_one_commit_folded_is_not_called_folded() -> None:
    assert fold([COMMITS[0]]) == COMMITS[0]
    assert fold([replace(COMMITS[0], continued=True), COMMITS[0]]) == COMMITS[0]
    assert fold([replace(COMMITS[0], folded=True)]).folded


def test_a_giant_commit_goes_over_several_segments_with_keys_of_their_own() -> None:
    giant = Commit(5, 9_000_000, 99, {number: bytes(SIZE) for number in range(1, 8)})
    portions = split([Commit(4, 8_999_999, 9, page(1)), giant, Commit(6, 9_001_000, 99, page(3))], 3, 3 * SIZE)
    assert [(each.first, each.last, each.time) for each in portions] == [
        (3, 4, 8_999),
        (5, 5, 8_998),
        (5, 5, 8_999),
        (5, 6, 9_001),
    ]
    assert [
        [(commit.number, len(commit.images), commit.continued) for commit in each.commits] for each in portions
    ] == [
        [(4, 1, False)],
        [(5, 3, True)],
        [(5, 3, True)],
        [(5, 1, False), (6, 1, False)],
    ]
