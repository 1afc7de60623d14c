"""Restore points written and read with the format alone, in the way of `Publisher` and `Reader`."""

import hashlib
import random
from dataclasses import dataclass

from hypothesis import strategies as st

from sidecar.repository.format import index as restore_point_format
from sidecar.repository.format.chunks import Decoder, Encoder
from sidecar.repository.format.index import Index
from sidecar.repository.format.tail import decode_tail, encode_tail

SMALL_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Encoded:
    """A restore point: its database, its frames, and the tail after them."""

    database: bytes
    frames: tuple[bytes, ...]
    tail: bytes

    @property
    def object(self) -> bytes:
        """The whole object as stored."""
        return b"".join(self.frames) + self.tail

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of the database."""
        return split(self.database)


def split(database: bytes) -> list[bytes]:
    """The chunks of a database."""
    size = restore_point_format.CHUNK_SIZE
    return [database[start : start + size] for start in range(0, len(database), size)]


def encode(database: bytes, level: int = 1, /, **more: object) -> Encoded:
    """Encode a restore point of a database. `more` are further fields of its index."""
    encoder = Encoder(level)
    frames = tuple(encoder.frame(chunk) for chunk in split(database))
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in split(database))
    known: dict[str, object] = {"database": "app.db", "timestamp": "20261120T145503.123Z"} | more
    index = Index(page_size=512, database_size=len(database), digests=digests, **known)  # type: ignore[arg-type]
    return Encoded(database, frames, encode_tail(index, [len(frame) for frame in frames]))


def decode(data: bytes) -> bytes:
    """Decode the database of a restore point. Raises `DamagedRestorePoint`."""
    contents = decode_tail(data, len(data), "x")
    decoder = Decoder(contents.index)
    view = memoryview(data)
    frames = (view[contents.offsets[n] : contents.offsets[n + 1]] for n in range(contents.index.chunks))
    return b"".join(decoder.chunk(number, frame) for number, frame in enumerate(frames))


@st.composite
def databases(draw: st.DrawFn, smallest: int = 1, largest: int = 6 * SMALL_CHUNK) -> bytes:
    """Bytes of one kind (incompressible, text, few symbols, zeros). Half of them are a whole number of chunks."""
    size = draw(st.integers(smallest, largest) | st.sampled_from(range(SMALL_CHUNK, largest + 1, SMALL_CHUNK)))
    source = random.Random(draw(st.integers(0, 1 << 32)))
    kind = draw(st.sampled_from(["random", "text", "few", "zeros", "runs"]))
    if kind == "random":
        return source.randbytes(size)
    if kind == "text":
        return (b"CREATE TABLE guest(id INTEGER PRIMARY KEY, name TEXT);" * (size // 50 + 1))[:size]
    if kind == "few":
        return bytes(source.choices(b"abcd", k=size))
    if kind == "runs":
        return b"".join(bytes([source.randrange(256)]) * 64 for _ in range(size // 64 + 1))[:size]
    return bytes(size)
