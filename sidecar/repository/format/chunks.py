"""Chunks and their frames: each chunk of the database is one zstd frame, checked by its SHA-256. Pure."""

import hashlib

import zstandard

from sidecar.errors import DamagedRestorePoint
from sidecar.model import Bytes
from sidecar.repository.format.index import Index


class Encoder:
    """Compresses chunks to frames. Not for use by two threads at once."""

    def __init__(self, level: int) -> None:
        """`level` is the level of zstd, 1 to 22; negative levels are even faster."""
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
        """Chunk `number`. Raises `DamagedRestorePoint` unless its size and SHA-256 match the index."""
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
