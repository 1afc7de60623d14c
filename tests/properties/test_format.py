"""A restore point is an ordinary zstd file. Any part of it decodes to the same bytes of the database."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import DamagedRestorePoint
from sidecar.repository.format import index as restore_point_format
from sidecar.repository.format.chunks import Decoder, Encoder
from sidecar.repository.format.tail import Contents, TailTooShort, decode_tail
from tests.properties.restore_points import SMALL_CHUNK, databases, decode, encode, split

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    """Many chunks, little data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_point_format, "CHUNK_SIZE", SMALL_CHUNK)
        yield


def contents_or_needed(data: bytes, length: int) -> Contents | int:
    """The contents, decoded from this many last bytes, or the number of bytes that are needed."""
    try:
        return decode_tail(data[len(data) - length :], len(data), "x")
    except TailTooShort as short:
        return short.needed


def streamed(data: bytes) -> bytes:
    """Decode a file as any zstd tool does, one frame after the other."""
    decompressor = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    return decompressor.read()


@given(databases(), st.sampled_from([1, 3, 9, 19]))
@settings(max_examples=150)
def test_a_restore_point_gives_back_the_database(database: bytes, level: int) -> None:
    data = encode(database, level).object
    assert decode(data) == database
    assert streamed(data) == database


@given(st.text(max_size=30), st.text(max_size=30), st.none() | st.text(max_size=30), st.integers(0, 1 << 62))
def test_the_index_says_what_was_put_into_it(name: str, holder: str, parent: str | None, epoch: int) -> None:
    """The index is one line of JSON even if names contain quotes, newlines or letters of any script."""
    more = {"database": name, "holder": holder, "parent": parent, "epoch": epoch, "sqlite_version": "3.53.4"}
    data = encode(bytes(1000), 1, **more).object
    index = decode_tail(data, len(data), "x").index
    assert (index.database, index.holder, index.parent, index.epoch) == (name, holder, parent, epoch)
    assert (index.database_size, index.page_size, index.sqlite_version) == (1000, 512, "3.53.4")


@given(databases(), st.data())
@settings(max_examples=80)
def test_any_run_of_frames_decodes_alone(database: bytes, draws: st.DataObject) -> None:
    """A frame decodes without those before it, which reuse, ranged reads and diffs depend on."""
    encoded = encode(database)
    data = encoded.object
    contents = decode_tail(data, len(data), "x")
    first = draws.draw(st.integers(0, len(encoded.frames) - 1))
    last = draws.draw(st.integers(first, len(encoded.frames) - 1))
    run = data[contents.offsets[first] : contents.offsets[last + 1]]
    assert run == b"".join(encoded.frames[first : last + 1])
    assert streamed(run) == b"".join(encoded.chunks[first : last + 1])
    assert Decoder(contents.index).chunk(first, encoded.frames[first]) == encoded.chunks[first]


@given(databases(), st.integers(1, 1 << 14))
@settings(max_examples=80)
def test_the_tail_alone_is_enough_once_it_is_long_enough(database: bytes, guess: int) -> None:
    """A reader that requests the number of bytes it is told to has the index after at most two more requests."""
    data = encode(database).object
    asked = [min(max(guess, 9), len(data))]
    while isinstance(contents := contents_or_needed(data, asked[-1]), int):
        asked.append(min(contents, len(data)))
    assert asked == sorted(set(asked))
    assert len(asked) <= 3
    assert contents == decode_tail(data, len(data), "x")


@given(databases(), st.integers(1, 4 * SMALL_CHUNK))
@settings(max_examples=80)
def test_groups_cover_every_chunk_once_in_order_and_stay_below_the_limit(database: bytes, limit: int) -> None:
    data = encode(database).object
    contents: Contents = decode_tail(data, len(data), "x")
    groups = contents.group(limit)
    assert [chunk for group in groups for chunk in group] == list(range(contents.index.chunks))
    for group in groups:
        assert len(group) == 1 or contents.offsets[group.stop] - contents.offsets[group.start] <= limit


@given(databases())
@settings(max_examples=50)
def test_the_same_database_has_the_same_root_whatever_the_level(database: bytes) -> None:
    """The root digest depends on content, not on compression, so it shows whether anything changed."""
    one, other = (encode(database, level).object for level in (1, 9))
    assert decode_tail(one, len(one), "x").index.root == decode_tail(other, len(other), "x").index.root


@given(databases(smallest=SMALL_CHUNK), st.data())
@settings(max_examples=50)
def test_a_change_anywhere_changes_the_root_and_one_digest(database: bytes, draws: st.DataObject) -> None:
    at = draws.draw(st.integers(0, len(database) - 1))
    changed = bytearray(database)
    changed[at] ^= draws.draw(st.integers(1, 255))
    one, other = (encode(bytes(each)).object for each in (database, changed))
    before, after = (decode_tail(each, len(each), "x").index for each in (one, other))
    assert before.root != after.root
    different = [number for number in range(before.chunks) if before.digest(number) != after.digest(number)]
    assert different == [at // SMALL_CHUNK]


@given(databases())
@settings(max_examples=50)
def test_the_seek_table_is_that_of_the_zstd_seekable_format(database: bytes) -> None:
    """The test reads it by the published specification, not with our own code: other tools can find the frames too."""
    encoded = encode(database)
    data = encoded.object
    assert data[-4:] == bytes.fromhex("b1ea928f")
    assert data[-5] == 0
    count = int.from_bytes(data[-9:-5], "little")
    table = data[-9 - 8 * count : -9]
    pairs = [table[start : start + 8] for start in range(0, len(table), 8)]
    sizes = [(int.from_bytes(pair[:4], "little"), int.from_bytes(pair[4:], "little")) for pair in pairs]
    header = data[-9 - 8 * count - 8 : -9 - 8 * count]
    assert header == bytes.fromhex("5e2a4d18") + (8 * count + 9).to_bytes(4, "little")
    assert sizes[:-1] == [(len(frame), len(chunk)) for frame, chunk in zip(encoded.frames, encoded.chunks, strict=True)]
    assert sizes[-1][1] == 0
    assert sum(packed for packed, _ in sizes) + 8 + 8 * count + 9 == len(data)


@given(databases())
@settings(max_examples=30)
def test_every_frame_carries_its_size_and_a_checksum(database: bytes) -> None:
    encoded = encode(database)
    for frame, chunk in zip(encoded.frames, encoded.chunks, strict=True):
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum) == (len(chunk), True)


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not on PATH")
@pytest.mark.parametrize("size", [1, SMALL_CHUNK, 40 * SMALL_CHUNK + 3])
def test_the_zstd_command_decodes_it(size: int) -> None:
    """Standard tools suffice: `aws s3 cp … - | zstd -d > app.db`."""
    database = bytes(number * number % 251 for number in range(size))
    done = subprocess.run(["zstd", "-d", "-q", "-c"], input=encode(database).object, capture_output=True, check=True)
    assert done.stdout == database
    assert done.stderr == b""


@pytest.mark.parametrize("size", [MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 3 * MEBIBYTE + 512])
def test_real_chunks_are_one_mebibyte(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_point_format, "CHUNK_SIZE", MEBIBYTE)
    database = bytes(range(256)) * (size // 256 + 1)
    database = database[:size]
    assert len(split(database)) == -(-size // MEBIBYTE)
    data = encode(database).object
    assert decode(data) == database
    assert streamed(data) == database


@given(st.binary(max_size=300))
@example(b"")
@settings(max_examples=200)
def test_arbitrary_bytes_are_no_restore_point(data: bytes) -> None:
    with pytest.raises(DamagedRestorePoint, match="x is damaged: it has"):
        decode(data)


@given(st.binary(min_size=1, max_size=2000), st.booleans())
@settings(max_examples=50)
def test_a_foreign_zstd_file_is_named_as_such(content: bytes, seekable: bool) -> None:
    """The same holds for a file in the seekable format without our index."""
    frame = Encoder(1).frame(content)
    if seekable:
        frame += bytes.fromhex("5e2a4d18") + (17).to_bytes(4, "little") + len(frame).to_bytes(4, "little")
        frame += len(content).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0" + bytes.fromhex("b1ea928f")
    with pytest.raises(DamagedRestorePoint, match="not a restore point of sidecar"):
        decode(frame)
