"""From a snapshot to a restore point: hash, plan, compress in worker threads, upload or copy, in bounded memory."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import structlog
from anyio import from_thread

from sidecar.domain import ObjectInfo, Snapshot
from sidecar.errors import ReuseFailed
from sidecar.format import CHUNK_SIZE, FORMAT_VERSION, Contents, Encoder, Index, encode_tail
from sidecar.pipeline import ordered
from sidecar.plan import Fresh, Reused, Segment, plan
from sidecar.replica import Assembly, PartSizes, Permit, Replica, always

log = structlog.get_logger()

BATCH = 2
HASHED = 16
THREADS = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """Who publishes: repeated in every restore point's index."""

    holder: str
    sidecar_version: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A restore point to reuse: the object, and what is where in it."""

    info: ObjectInfo
    contents: Contents


@dataclass(frozen=True, slots=True)
class Published:
    """A restore point that exists. `uploaded` and `reused` are bytes of the object."""

    info: ObjectInfo
    contents: Contents
    uploaded: int
    reused: int

    @property
    def as_parent(self) -> Parent:
        """For the next publish."""
        return Parent(self.info, self.contents)


class Publisher:
    """Turns snapshots into restore points."""

    def __init__(self, replica: Replica, origin: Origin, *, level: int = 1) -> None:
        self._replica = replica
        self._origin = origin
        self._level = level

    async def index(self, snapshot: Snapshot, database: str) -> Index:
        """Hash a snapshot; the index has no timestamp and no epoch yet."""
        digests = bytearray()

        async def emit(some: bytes) -> None:
            digests.extend(some)

        chunks = -(-snapshot.size // CHUNK_SIZE)
        await ordered(_batches(range(chunks), HASHED), partial(_digests, snapshot.path), emit, threads=THREADS)
        return Index(
            database=database,
            timestamp="",
            page_size=snapshot.page_size,
            database_size=snapshot.size,
            digests=bytes(digests),
            sqlite_version=snapshot.sqlite_version,
            sidecar_version=self._origin.sidecar_version,
            holder=self._origin.holder,
            epoch=0,
        )

    async def publish(
        self, snapshot: Snapshot, index: Index, key: str, parent: Parent | None = None, permit: Permit = always
    ) -> Published:
        """Publish a snapshot under a key that must not exist yet, reusing what the parent has.

        Raises what `Replica.publish` does, but for `ReuseFailed`: then everything is uploaded.
        """
        if parent is not None:
            try:
                return await self._publish(snapshot, index, key, parent, permit)
            except ReuseFailed as error:
                log.warning("everything is uploaded: the previous restore point cannot be reused", reason=error.message)
        return await self._publish(snapshot, index, key, None, permit)

    async def _publish(
        self, snapshot: Snapshot, index: Index, key: str, parent: Parent | None, permit: Permit
    ) -> Published:
        metadata = {
            "size": str(index.database_size),
            "tables": str(snapshot.tables),
            "root": index.root,
            "epoch": str(index.epoch),
            "format": str(FORMAT_VERSION),
        }
        rules = self._replica.rules_for(snapshot.size)
        segments = plan(index, parent.contents if parent else None, rules)
        copies = any(isinstance(segment, Reused) for segment in segments)
        part_size = self._replica.part_size_for(snapshot.size, copies=copies)
        sizes = PartSizes(part_size, rules.minimum_part if copies else 0)
        job = _Job(snapshot.path, index, segments, parent, self._level)
        info = await self._replica.publish(key, sizes, metadata, job.produce, permit)
        contents = Contents(index, tuple(accumulate(job.sizes, initial=0)), info.size)
        return Published(info, contents, job.uploaded, job.reused)


class _Job:
    """One object in the making. `sizes` are those of its frames so far."""

    def __init__(self, path: Path, index: Index, segments: list[Segment], parent: Parent | None, level: int) -> None:
        self._path = path
        self._index = index
        self._segments = segments
        self._parent = parent
        self._level = level
        self.sizes: list[int] = []
        self.uploaded = 0
        self.reused = 0

    async def produce(self, assembly: Assembly) -> None:
        """Assemble the frames, segment by segment, then index and seek table."""
        for segment in self._segments:
            if isinstance(segment, Fresh):
                await self._compress(segment.chunks, assembly)
            elif self._parent:
                await assembly.copy(self._parent.info, segment.span)
                self.sizes += self._parent.contents.frame_sizes(segment.first_in_parent, len(segment.chunks))
        await assembly.write(encode_tail(self._index, self.sizes))
        await assembly.end()
        self.uploaded, self.reused = assembly.uploaded, assembly.reused

    async def _compress(self, chunks: range, assembly: Assembly) -> None:
        async def emit(frames: list[bytes]) -> None:
            for frame in frames:
                self.sizes.append(len(frame))
                await assembly.write(frame)

        await ordered(_batches(chunks, BATCH), partial(_encode, self._path, self._level), emit, threads=THREADS)


def _batches(chunks: range, size: int) -> Iterator[range]:
    return (chunks[start : start + size] for start in range(0, len(chunks), size))


def _digests(path: Path, chunks: range) -> bytes:
    from_thread.check_cancelled()
    with _opened(path) as file:
        return b"".join(hashlib.sha256(chunk).digest() for chunk in _read(file, chunks))


def _encode(path: Path, level: int, chunks: range) -> list[bytes]:
    encoder = Encoder(level)
    with _opened(path) as file:
        return [encoder.frame(chunk) for chunk in _read(file, chunks)]


def _read(file: int, chunks: range) -> Iterator[memoryview]:
    """Chunk after chunk, in one buffer: each is gone when the next one comes. Fresh memory costs more than the copy."""
    buffer = memoryview(bytearray(CHUNK_SIZE))
    for number in chunks:
        filled = 0
        while filled < CHUNK_SIZE and (count := os.preadv(file, [buffer[filled:]], number * CHUNK_SIZE + filled)):
            filled += count
        yield buffer[:filled]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
