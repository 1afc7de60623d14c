"""Hashes and compresses the chunks of a snapshot in worker threads."""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from anyio import from_thread

from sidecar.concurrency import Pool, ordered
from sidecar.model import Snapshot
from sidecar.progress import Progress
from sidecar.repository.format.chunks import Encoder
from sidecar.repository.format.index import CHUNK_SIZE, DIGEST_SIZE, Index
from sidecar.repository.format.tail import encode_tail
from sidecar.repository.parts import PartAssembler
from sidecar.repository.reuse import ChunkRun, NewChunks, Parent

BATCH = 2
HASHED = 16
THREADS = 2


async def hash_chunks(snapshot: Snapshot) -> bytes:
    """The SHA-256 digests of a snapshot's chunks, concatenated."""
    digests = bytearray()

    async def emit(some: bytes) -> None:
        digests.extend(some)

    chunks = -(-snapshot.size // CHUNK_SIZE)
    await ordered(_batches(range(chunks), HASHED), partial(_digests, snapshot.content), emit, threads=THREADS)
    return bytes(digests)


async def hash_some(snapshot: Snapshot, chunks: Collection[int]) -> dict[int, bytes]:
    """The SHA-256 digests of these chunks."""
    found: dict[int, bytes] = {}
    numbers = sorted(chunks)

    async def emit(some: tuple[Sequence[int], bytes]) -> None:
        batch, digests = some
        for place, number in enumerate(batch):
            found[number] = digests[place * DIGEST_SIZE : (place + 1) * DIGEST_SIZE]

    def work(batch: Sequence[int]) -> tuple[Sequence[int], bytes]:
        return batch, _digests(snapshot.content, batch)

    await ordered(_batches(numbers, HASHED), work, emit, threads=THREADS)
    return found


class SnapshotFrames:
    """The frames of a new restore point, with index and seek table. `sizes` has the sizes of the frames so far."""

    def __init__(
        self, path: Path, index: Index, runs: list[ChunkRun], parent: Parent | None, level: int, progress: Progress
    ) -> None:
        self._path = path
        self._index = index
        self._runs = runs
        self._parent = parent
        self._level = level
        self._progress = progress
        self.sizes: list[int] = []

    async def write_to(self, assembler: PartAssembler) -> None:
        """Write the frames, run by run, then index and seek table."""
        for run in self._runs:
            if isinstance(run, NewChunks):
                await self._compress(run.chunks, assembler)
            elif self._parent:
                await assembler.copy(self._parent.info, run.span)
                self.sizes += self._parent.contents.frame_sizes(run.first_in_parent, len(run.chunks))
                self._report_progress()
        await assembler.write(encode_tail(self._index, self.sizes))

    def _report_progress(self) -> None:
        size = self._index.database_size
        self._progress(min(size, len(self.sizes) * CHUNK_SIZE), size)

    async def _compress(self, chunks: range, assembler: PartAssembler) -> None:
        compressors = Pool(partial(_Compressor, self._level))

        async def emit(frames: list[bytes]) -> None:
            for frame in frames:
                self.sizes.append(len(frame))
                await assembler.write(frame)
            self._report_progress()

        await ordered(_batches(chunks, BATCH), partial(_encode, self._path, compressors), emit, threads=THREADS)


class _Compressor:
    """A thread's compressor and buffer. Both are reused, because fresh memory costs more than a copy."""

    def __init__(self, level: int) -> None:
        self.encoder = Encoder(level)
        self.buffer = memoryview(bytearray(CHUNK_SIZE))


def _batches(chunks: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (chunks[start : start + size] for start in range(0, len(chunks), size))


def _digests(path: Path, chunks: Sequence[int]) -> bytes:
    from_thread.check_cancelled()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(CHUNK_SIZE))
        return b"".join(hashlib.sha256(chunk).digest() for chunk in _read(file.fileno(), chunks, buffer))


def _encode(path: Path, compressors: Pool[_Compressor], chunks: Sequence[int]) -> list[bytes]:
    compressor = compressors.take()
    with path.open("rb", buffering=0) as file:
        frames = [compressor.encoder.frame(chunk) for chunk in _read(file.fileno(), chunks, compressor.buffer)]
    compressors.give(compressor)
    return frames


def _read(file: int, chunks: Sequence[int], buffer: memoryview) -> Iterator[memoryview]:
    """The chunks one by one, in one buffer: each overwrites the previous one."""
    for number in chunks:
        filled = 0
        while filled < CHUNK_SIZE and (count := os.preadv(file, [buffer[filled:]], number * CHUNK_SIZE + filled)):
            filled += count
        yield buffer[:filled]
