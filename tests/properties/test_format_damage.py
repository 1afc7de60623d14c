"""No damage to a restore point ever yields a wrong database.

Some bits carry no meaning: the unused bit of a zstd frame's header and the padding of its bit streams. Flipping one of
them changes nothing, and is not noticed. Outside of the chunks' frames every bit has a meaning.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.errors import DamagedRestorePoint, UnsupportedRestorePoint
from sidecar.repository.format import index as restore_point_format
from sidecar.repository.format.tail import decode_tail, encode_tail
from tests.properties.restore_points import SMALL_CHUNK, Encoded, databases, decode, encode

UNUSED_BIT = 0x10  # of the frame header's descriptor, which follows the magic number: RFC 8878, 3.1.1.1.1


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    """Many chunks, little data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_point_format, "CHUNK_SIZE", SMALL_CHUNK)
        yield


def is_found(data: bytes, database: bytes) -> bool:
    """Whether the damage is noticed. If it is not, assert that the database is decoded correctly."""
    try:
        decoded = decode(data)
    except DamagedRestorePoint:
        return True
    assert decoded == database
    return False


def flipped(data: bytes, at: int, mask: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


@given(databases(), st.data())
@settings(max_examples=400)
def test_a_changed_byte_never_yields_a_wrong_database(database: bytes, draws: st.DataObject) -> None:
    data = encode(database).object
    at = draws.draw(st.integers(0, len(data) - 1))
    is_found(flipped(data, at, draws.draw(st.integers(1, 255))), database)


@pytest.mark.parametrize("kind", [bytes(1100), b"CREATE TABLE guest(name);" * 44, hashlib.shake_128(b"x").digest(1100)])
def test_every_single_bit_matters_but_the_unused_one_of_a_frame(kind: bytes) -> None:
    """Tries every bit of three databases: zeros, text, and data that does not compress."""
    encoded = encode(kind)
    data = encoded.object
    starts = {sum(map(len, encoded.frames[:number])) for number in range(len(encoded.frames))}
    unnoticed = {
        (at, 1 << bit) for at in range(len(data)) for bit in range(8) if not is_found(flipped(data, at, 1 << bit), kind)
    }
    assert unnoticed == {(start + 4, UNUSED_BIT) for start in starts}


@given(databases(), st.data())
@settings(max_examples=200)
def test_every_bit_after_the_frames_matters(database: bytes, draws: st.DataObject) -> None:
    encoded = encode(database)
    at = len(encoded.object) - 1 - draws.draw(st.integers(0, len(encoded.tail) - 1))
    assert is_found(flipped(encoded.object, at, 1 << draws.draw(st.integers(0, 7))), database)


@given(databases(), st.data())
@settings(max_examples=200)
def test_a_truncated_object_is_damaged(database: bytes, draws: st.DataObject) -> None:
    """Bytes are missing at the end, as after an interrupted copy, at the start or in the middle."""
    data = encode(database).object
    start = draws.draw(st.integers(0, len(data) - 1))
    end = draws.draw(st.integers(start + 1, len(data)))
    assert is_found(data[:start] + data[end:], database)


@given(databases(), st.binary(min_size=1, max_size=64), st.data())
@settings(max_examples=200)
def test_an_extended_object_is_damaged(database: bytes, more: bytes, draws: st.DataObject) -> None:
    data = encode(database).object
    at = draws.draw(st.sampled_from([0, len(data)]) | st.integers(0, len(data)))
    assert is_found(data[:at] + more + data[at:], database)


@given(databases(smallest=2 * SMALL_CHUNK), st.data())
@settings(max_examples=150)
def test_frames_in_another_order_are_damage(database: bytes, draws: st.DataObject) -> None:
    """Even if the frames have equal sizes, so that the seek table is still correct."""
    encoded = encode(database)
    order = draws.draw(st.permutations(range(len(encoded.frames))))
    shuffled = b"".join(encoded.frames[number] for number in order) + encoded.tail
    assume(shuffled != encoded.object)
    assert is_found(shuffled, database)


@given(databases(smallest=2 * SMALL_CHUNK), databases(), st.data())
@settings(max_examples=150)
def test_a_frame_of_another_restore_point_is_damage(database: bytes, other: bytes, draws: st.DataObject) -> None:
    """As if the store had copied a range from the wrong object, and the seek table fitted it."""
    encoded, foreign = encode(database), encode(other)
    frames = list(encoded.frames)
    frames[draws.draw(st.integers(0, len(frames) - 1))] = draws.draw(st.sampled_from(foreign.frames))
    assume(tuple(frames) != encoded.frames)
    index = decode_tail(encoded.object, len(encoded.object), "x").index
    tail = encode_tail(index, [len(frame) for frame in frames])
    assert is_found(b"".join(frames) + tail, database)


@given(databases(smallest=2 * SMALL_CHUNK), databases(smallest=2 * SMALL_CHUNK))
@settings(max_examples=60)
def test_frames_of_one_with_the_tail_of_another_are_damage(one: bytes, other: bytes) -> None:
    assume(one != other)
    assert is_found(b"".join(encode(one).frames) + encode(other).tail, other)


def with_head(encoded: Encoded, change: Callable[[dict[str, object]], object]) -> bytes:
    """The object with a changed head in its index. All checksums and sizes are right, so only a writer could have made it."""
    table = 8 + (len(encoded.frames) + 1) * 8 + 9
    payload = encoded.tail[8:-table]
    line, _, digests = payload[:-32].partition(b"\n")
    head = json.loads(line)
    body = json.dumps(change(head) or head).encode() + b"\n" + digests
    payload = body + hashlib.sha256(body).digest()
    entries = bytearray(encoded.tail[-table:])
    struct.pack_into("<I", entries, len(entries) - 9 - 8, len(payload) + 8)
    header = struct.pack("<II", 0x184D2A53, len(payload))
    return b"".join(encoded.frames) + header + payload + bytes(entries)


def test_the_head_can_be_rewritten_without_damage() -> None:
    """The following tests depend on this."""
    encoded = encode(bytes(1100))
    assert decode(with_head(encoded, lambda _head: None)) == encoded.database


@given(st.integers(2, 1 << 31))
@settings(max_examples=20)
def test_a_future_format_version_is_named_with_what_to_do(version: int) -> None:
    """It is not damaged and must not be skipped as such: a newer sidecar, or zstd, can read it."""
    data = with_head(encode(bytes(1100)), lambda head: head.update(format=version))
    with pytest.raises(UnsupportedRestorePoint) as caught:
        decode(data)
    assert f"format version {version}, but this sidecar reads version 1" in caught.value.message
    assert "zstd -d" in caught.value.hint
    assert "damaged" not in str(caught.value)


NAMES = [
    "database",
    "timestamp",
    "database_size",
    "page_size",
    "chunk_size",
    "root",
    "sqlite",
    "sidecar",
    "holder",
    "epoch",
]
JSON = (
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 40) | st.text(max_size=5) | st.lists(st.none(), max_size=2)
)


@pytest.mark.parametrize("name", [*NAMES, "parent", "format"])
def test_an_index_that_lacks_a_field_is_damage(name: str) -> None:
    with pytest.raises(DamagedRestorePoint, match=r"the index (cannot be read|has)|root digest"):
        decode(with_head(encode(bytes(1100)), lambda head: head.pop(name) and None))


@given(st.sampled_from(["database_size", "chunk_size", "root", "format"]), JSON)
@settings(max_examples=150)
def test_a_field_that_contradicts_the_object_is_damage(name: str, value: object) -> None:
    encoded = encode(bytes(1100))
    data = with_head(encoded, lambda head: head.update({name: value}))
    with suppress(UnsupportedRestorePoint) if name == "format" else nullcontext():
        is_found(data, encoded.database)


@given(JSON | st.dictionaries(st.text(max_size=3), st.none(), max_size=2))
@settings(max_examples=50)
def test_an_index_of_another_shape_is_damage(head: object) -> None:
    with pytest.raises(DamagedRestorePoint):
        decode(with_head(encode(bytes(1100)), lambda _head: head or {"x": 1}))


def test_offsets_are_those_of_the_frames() -> None:
    encoded = encode(bytes(2000))
    contents = decode_tail(encoded.object, len(encoded.object), "x")
    assert [end - start for start, end in pairwise(contents.offsets)] == [len(frame) for frame in encoded.frames]
